import assert from "node:assert/strict";
import { rmSync, writeFileSync } from "node:fs";
import { mkdir } from "node:fs/promises";
import { createServer } from "node:net";
import { join } from "node:path";
import { test } from "vitest";
import {
  askPrefetcher,
  type FetchRequest,
  serveFetches,
  socketPath,
} from "../../../src/actors/wal-fetch/fetch-socket.ts";
import { eventually } from "../../support/eventually.ts";
import { temporaryDirectory } from "../../support/temporary-directory.ts";

const request: FetchRequest = {
  name: "000000010000000000000001",
  file: "/pg_wal/RECOVERYXLOG",
  partial: true,
  origin: "a",
};

test("a request gets its answer; without a prefetcher there is none", async () => {
  await using directory = await temporaryDirectory();
  const path = join(directory.path, ".socket");
  assert.equal(await askPrefetcher(path, request), undefined);
  const asked: FetchRequest[] = [];
  await using server = await serveFetches(path, async (one) => {
    asked.push(one);
    return { kind: "missing" };
  });
  assert.deepEqual(await askPrefetcher(path, request), { kind: "missing" });
  assert.deepEqual(asked, [request]);
  assert.equal(server?.isReachable(), true);
});

test("a prefetcher that ends before it answers is as none; so is one that the caller gives up", async () => {
  await using directory = await temporaryDirectory();
  const path = join(directory.path, ".socket");
  const gone: AbortSignal[] = [];
  const server = await serveFetches(path, (_, signal) => {
    gone.push(signal);
    return new Promise(() => undefined);
  });
  const abort = new AbortController();
  const given = askPrefetcher(path, request, abort.signal);
  await eventually(() => gone.length === 1);
  abort.abort();
  assert.equal(await given, undefined);
  await eventually(() => gone[0]?.aborted === true);
  const waiting = askPrefetcher(path, request);
  await eventually(() => gone.length === 2);
  await server?.[Symbol.asyncDispose]();
  assert.equal(await waiting, undefined);
});

test("a second one does not take the place of a living one; a left-over socket is replaced", async () => {
  await using directory = await temporaryDirectory();
  const path = join(directory.path, ".socket");
  await using first = await serveFetches(path, async () => ({ kind: "missing" }));
  assert.ok(first !== undefined);
  assert.equal(await serveFetches(path, async () => ({ kind: "other" })), undefined);
  const stale = join(directory.path, ".stale");
  writeFileSync(stale, "");
  await using second = await serveFetches(stale, async () => ({ kind: "missing" }));
  assert.deepEqual(await askPrefetcher(stale, request), { kind: "missing" });
  rmSync(stale);
  assert.equal(second?.isReachable(), false);
});

test("the socket's path is said as short as can be, and not at all when that is too long", async () => {
  await using directory = await temporaryDirectory();
  const deep = join(directory.path, "x".repeat(60), "y".repeat(60), "pg_wal", ".klio-spool");
  await mkdir(deep, { recursive: true });
  assert.equal(socketPath(deep, join(deep, "..", "..")), join("pg_wal", ".klio-spool", ".socket"));
  assert.equal(socketPath(deep, "/"), undefined);
});

test("a peer that talks nonsense or nothing is no answer", async () => {
  await using directory = await temporaryDirectory();
  const path = join(directory.path, ".socket");
  const server = createServer((socket) => socket.end());
  await new Promise<void>((resolve) => server.listen(path, resolve));
  assert.equal(await askPrefetcher(path, request), undefined);
  server.close();
});
