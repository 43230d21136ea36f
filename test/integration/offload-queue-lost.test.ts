import { rm } from "node:fs/promises";
import { join } from "node:path";
import { expect, test } from "vitest";
import type { ObjectStore } from "../../src/actors/s3/object-store.ts";
import { eventually } from "../support/eventually.ts";
import { offloadBench, wal } from "../support/offload-bench.ts";
import { temporaryDirectory } from "../support/temporary-directory.ts";

const quick = { probe: { firstMs: 50, limitMs: 200 }, delaysMs: [100] };

test("P2, P5: an upload that outlasts the queue's loss neither settles nor ends another one that got its number", async () => {
  await using directory = await temporaryDirectory();
  await using bench = await offloadBench(directory.path);
  /** When the store takes the second file of a cluster. */
  const taking = { a: Promise.withResolvers<void>(), b: Promise.withResolvers<void>() };
  const begun: string[] = [];
  const put: ObjectStore["put"] = async (key, body, options) => {
    begun.push(key);
    if (key.endsWith(wal(2))) await taking[key.includes("/a/") ? "a" : "b"].promise;
    return bench.s3.objects.put(key, body, options);
  };
  const parts = { ...bench.parts, objects: { ...bench.s3.objects, put } };
  const role = await bench.start({ limits: quick, tier2: { prefix: "p", whenOpen: Promise.resolve(parts) } });
  const hasBegun = (count: number) => eventually(() => begun.length === count);
  await bench.segment("b", wal(1));
  await eventually(() => role.frontier("b").listed && role.frontier("b").at === wal(1));
  await bench.segment("a", wal(2)); // the second task of the queue
  await hasBegun(2);
  await rm(join(directory.path, "queue", "jetstream"), { recursive: true, maxRetries: 20, retryDelay: 20 });
  process.kill(role.queuePid(), "SIGKILL");
  await hasBegun(3); // the same file: the listing's task
  await bench.segment("b", wal(2)); // the second task of the new queue
  await hasBegun(4);
  taking.a.resolve();
  await eventually(() => role.frontier("a").at === wal(2));
  await eventually(async () => (await role.admin.pending()).wal === 1);
  expect(role.frontier("b").missing).toEqual([wal(2)]);
  taking.b.resolve();
  await eventually(async () => (await role.admin.pending()).wal === 0);
  expect(await bench.names2("a")).toEqual([wal(2)]);
  expect(await bench.names2("b")).toEqual([wal(1), wal(2)]);
  expect(role.frontier("b")).toMatchObject({ at: wal(2), missing: [] });
  expect(await role.admin.failed("wal")).toEqual([]);
});
