import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, test } from "vitest";
import { openQueue, type Queue } from "../../src/actors/jetstream/queue.ts";
import type { ObjectStore } from "../../src/actors/s3/object-store.ts";
import { eventually } from "../support/eventually.ts";
import { offloadBench, wal } from "../support/offload-bench.ts";
import { temporaryDirectory } from "../support/temporary-directory.ts";
import { testLog } from "../support/test-log.ts";

const quick = { probe: { firstMs: 50, limitMs: 200 }, delaysMs: [100] };
const SHORT_MS = 100;

/** A connection of our own to the queue of a running server, which forgets repeated messages soon. */
async function queueAt(directory: string): Promise<Queue> {
  const config = await readFile(join(directory, "nats-server.conf"), "utf8");
  const [, host = ""] = /^listen: "(.*)"$/m.exec(config) ?? [];
  const [, user = "", password = ""] = /user: "(.*)", password: "(.*)"/.exec(config) ?? [];
  const address = { url: `nats://${host}`, user, password, namespace: "", replicas: 1 };
  const queue = await openQueue(address, { log: testLog() });
  await queue.jsm.streams.update(queue.names.stream.wal, { duplicate_window: SHORT_MS * 1_000_000 });
  return queue;
}

const letterOf = (attempts: number) => ({
  kind: "wal" as const,
  clusterName: "a",
  name: wal(1),
  code: "KLIO-S3-INTEGRITY",
  error: "other bytes",
  attempts,
  message: { clusterName: "a", walName: wal(1) },
});

test("a dead letter is sent again once, however many rounds pass before its task ends; a file has one at most", async () => {
  await using directory = await temporaryDirectory();
  await using bench = await offloadBench(directory.path);
  const taking = Promise.withResolvers<void>();
  const put: ObjectStore["put"] = async (...args) => {
    await taking.promise;
    return bench.s3.objects.put(...args);
  };
  const parts = { ...bench.parts, objects: { ...bench.s3.objects, put } };
  await bench.segment("a", wal(1));
  const role = await bench.start({ limits: quick, tier2: { prefix: "p", whenOpen: Promise.resolve(parts) } });
  await using queue = await queueAt(join(directory.path, "queue"));
  for (const attempts of [1, 2]) await queue.publishDeadLetter(letterOf(attempts), `letter/${attempts}`);
  const rounds = 4;
  for (let n = 0; n < rounds; n++) {
    await eventually(() => role.admin.reconcile("a"));
    const endedMs = Date.now();
    await eventually(() => Date.now() - endedMs > 2 * SHORT_MS); // what is sent from now on is no repetition
  }
  expect((await role.admin.pending()).wal).toBe(1);
  expect(await role.admin.failed("wal")).toMatchObject([{ name: wal(1), attempts: 2 }]);
  taking.resolve();
  await eventually(async () => (await role.admin.failed("wal")).length === 0);
  await eventually(async () => (await role.admin.pending()).wal === 0);
  expect(await bench.names2("a")).toEqual([wal(1)]);
});
