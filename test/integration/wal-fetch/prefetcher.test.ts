import assert from "node:assert/strict";
import { existsSync, writeFileSync } from "node:fs";
import { mkdir, rename } from "node:fs/promises";
import { join } from "node:path";
import { test } from "vitest";
import type { DownloadOutcome } from "../../../src/actors/wal-fetch/download-wal.ts";
import { createPrefetcher } from "../../../src/actors/wal-fetch/prefetcher.ts";
import { eventually, settle } from "../../support/eventually.ts";
import { temporaryDirectory } from "../../support/temporary-directory.ts";

const SEGMENT = 16 << 20;
const name = (n: number, timeline = 1) =>
  `0000000${timeline}00000000000000${n.toString(16).toUpperCase().padStart(2, "0")}`;

/** Downloads end when the test says so. */
function source(spool: string, count: number, maxConcurrent: number) {
  const running = new Map<string, { end: (outcome: DownloadOutcome) => void; signal: AbortSignal }>();
  const started: string[] = [];
  let most = 0;
  const bugs: unknown[] = [];
  const prefetcher = createPrefetcher({
    spool,
    count,
    maxConcurrent,
    onBug: (error) => bugs.push(error),
    download: (file, into, signal) =>
      new Promise<DownloadOutcome>((resolve) => {
        started.push(file);
        const end = (outcome: DownloadOutcome) => {
          running.delete(file);
          if (outcome.kind === "stored") writeFileSync(into, file);
          resolve(outcome);
        };
        running.set(file, { end, signal });
        most = Math.max(most, running.size);
        signal.addEventListener("abort", () => end({ kind: "retryable", code: "KLIO-CANCELLED", reason: "cancelled" }));
      }),
  });
  const store = (file: string) =>
    running.get(file)?.end({ kind: "stored", tier: "tier1", bytes: SEGMENT, segmentBytes: SEGMENT });
  return { prefetcher, running, started, store, bugs, most: () => most };
}

test("K1: the next count segments are fetched, and nothing else", async () => {
  await using directory = await temporaryDirectory();
  const { prefetcher, running, store } = source(directory.path, 2, 4);
  await using _ = prefetcher;
  prefetcher.moveTo(name(1), SEGMENT);
  assert.deepEqual([...running.keys()], [name(2), name(3)]);
  store(name(2));
  store(name(3));
  await eventually(() => prefetcher.ready().length === 2);
  assert.ok(existsSync(join(directory.path, name(2))));
});

test("K1: what the position moved past is dropped, a running download of it is cut short", async () => {
  await using directory = await temporaryDirectory();
  const { prefetcher, running, store } = source(directory.path, 2, 4);
  await using _ = prefetcher;
  prefetcher.moveTo(name(1), SEGMENT);
  store(name(2));
  await eventually(() => prefetcher.ready().length === 1);
  const slow = running.get(name(3));
  prefetcher.moveTo(name(5), SEGMENT);
  assert.equal(slow?.signal.aborted, true);
  await eventually(() => !existsSync(join(directory.path, name(2))));
  assert.deepEqual([...running.keys()], [name(6), name(7)]);
});

test("K1: another timeline leaves nothing of the old one", async () => {
  await using directory = await temporaryDirectory();
  const { prefetcher, running, store } = source(directory.path, 2, 4);
  await using _ = prefetcher;
  prefetcher.moveTo(name(1), SEGMENT);
  store(name(2));
  await eventually(() => prefetcher.ready().length === 1);
  prefetcher.moveTo(name(1, 2), SEGMENT);
  assert.deepEqual([...running.keys()], [name(2, 2), name(3, 2)]);
  await eventually(() => !existsSync(join(directory.path, name(2))));
});

test("K2: no more downloads than allowed run, the others wait their turn", async () => {
  await using directory = await temporaryDirectory();
  const { prefetcher, running, started, store, most } = source(directory.path, 5, 2);
  await using _ = prefetcher;
  prefetcher.moveTo(name(1), SEGMENT);
  assert.deepEqual([...running.keys()], [name(2), name(3)]);
  await prefetcher.settled(name(4)); // not begun: nobody waits for it
  for (let n = 2; n <= 6; n++) {
    await eventually(() => running.has(name(n)));
    store(name(n));
  }
  await eventually(() => prefetcher.ready().length === 5);
  assert.deepEqual(
    started,
    [2, 3, 4, 5, 6].map((n) => name(n)),
  );
  assert.equal(most(), 2);
});

test("K3: what could not be had is asked for again when the position moves, not before", async () => {
  await using directory = await temporaryDirectory();
  const { prefetcher, running, started } = source(directory.path, 2, 4);
  await using _ = prefetcher;
  prefetcher.moveTo(name(1), SEGMENT);
  running.get(name(2))?.end({ kind: "missing" });
  running.get(name(3))?.end({ kind: "missing" });
  await settle();
  assert.equal(started.length, 2);
  prefetcher.moveTo(name(2), SEGMENT);
  assert.deepEqual(started.slice(2).sort(), [name(3), name(4)]);
});

test("segments that were moved away by others move the position on", async () => {
  await using directory = await temporaryDirectory();
  const { prefetcher, running, store } = source(directory.path, 2, 4);
  await using _ = prefetcher;
  prefetcher.moveTo(name(1), SEGMENT);
  store(name(2));
  store(name(3));
  await eventually(() => prefetcher.ready().length === 2);
  assert.equal(await prefetcher.noticeTaken(), false);
  await mkdir(join(directory.path, "pg_wal"));
  await rename(join(directory.path, name(2)), join(directory.path, "pg_wal", "RECOVERYXLOG"));
  assert.equal(await prefetcher.noticeTaken(), true);
  assert.deepEqual([...running.keys()], [name(4)]);
  assert.deepEqual(prefetcher.ready(), [name(3)]);
});

test("waiting for a running download ends with it; closing drops all of it", async () => {
  await using directory = await temporaryDirectory();
  const { prefetcher, store, running } = source(directory.path, 2, 4);
  prefetcher.moveTo(name(1), SEGMENT);
  const waited = prefetcher.settled(name(2));
  store(name(2));
  await waited;
  assert.deepEqual(prefetcher.ready(), [name(2)]);
  await prefetcher[Symbol.asyncDispose]();
  assert.equal(existsSync(join(directory.path, name(2))), false);
  assert.equal(running.size, 0);
  prefetcher.moveTo(name(5), SEGMENT);
  assert.equal(running.size, 0);
});

test("a download that met a bug is told to the owner", async () => {
  await using directory = await temporaryDirectory();
  const bugs: unknown[] = [];
  await using prefetcher = createPrefetcher({
    spool: directory.path,
    count: 1,
    maxConcurrent: 1,
    download: () => Promise.reject(new TypeError("not a function")),
    onBug: (error) => bugs.push(error),
  });
  prefetcher.moveTo(name(1), SEGMENT);
  await eventually(() => bugs.length === 1);
});
