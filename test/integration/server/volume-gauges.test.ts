// klio.volume.*: over real directories, one of them not there yet.
import { mkdirSync } from "node:fs";
import { statfs } from "node:fs/promises";
import { join } from "node:path";
import { expect, test } from "vitest";
import { watchVolumes } from "../../../src/roles/volume-gauges.ts";
import type { Reading } from "../../../src/telemetry/instruments.ts";
import { eventually } from "../../support/eventually.ts";
import { temporaryDirectory } from "../../support/temporary-directory.ts";
import { testLog } from "../../support/test-log.ts";

test("size and free space per volume; a directory that comes later is told then; what is old is told no more", async () => {
  await using dir = await temporaryDirectory();
  const later = join(dir.path, "later");
  const readers = new Map<string, () => Iterable<Reading>>();
  let shiftMs = 0;
  const stop = watchVolumes({
    paths: { tier1_wal: dir.path, queue: later },
    telemetry: {
      observe: (name, read) => {
        readers.set(name, read);
        return () => void readers.delete(name);
      },
    },
    log: testLog(),
    now: () => Date.now() + shiftMs,
    everyMs: 20,
  });
  const values = (metric: string) =>
    Object.fromEntries([...(readers.get(metric)?.() ?? [])].map(({ value, labels }) => [labels?.volume, value]));
  const first = await eventually(() => "tier1_wal" in values("klio.volume.size") && values("klio.volume.size"));
  const { blocks, bsize } = await statfs(dir.path);
  expect(first).toEqual({ tier1_wal: blocks * bsize });
  const free = values("klio.volume.free_size").tier1_wal ?? 0;
  expect(free).toBeGreaterThan(0);
  expect(free).toBeLessThanOrEqual(blocks * bsize);
  mkdirSync(later);
  await eventually(() => "queue" in values("klio.volume.free_size"));
  await dir[Symbol.asyncDispose]();
  shiftMs = 61_000;
  await eventually(() => Object.keys(values("klio.volume.size")).length === 0);
  stop();
  expect(readers.size).toBe(0);
});
