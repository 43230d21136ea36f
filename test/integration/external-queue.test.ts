import { join } from "node:path";
import { expect, test } from "vitest";
import type { QueueAddress } from "../../src/actors/jetstream/queue.ts";
import { openQueue } from "../../src/actors/jetstream/queue.ts";
import { eventually } from "../support/eventually.ts";
import { type ExternalNats, externalNats } from "../support/external-nats.ts";
import { type OffloadBench, offloadBench, wal } from "../support/offload-bench.ts";
import { temporaryDirectory } from "../support/temporary-directory.ts";
import { testLog } from "../support/test-log.ts";

const quick = { probe: { firstMs: 50, limitMs: 200 }, delaysMs: [100] };

const addressOf = (nats: ExternalNats, more: Partial<QueueAddress> = {}): QueueAddress => ({
  url: nats.url,
  user: "klio",
  passwordFile: nats.passwordFile,
  tls: { caFile: nats.certificates.caCert },
  namespace: "one",
  replicas: 1,
  owner: "server-1",
  isExternal: true,
  ...more,
});
const external = (address: QueueAddress) => ({ queue: { kind: "external", address } as const, limits: quick });
const hasAll = (bench: OffloadBench, cluster: string, names: string[]) => async () => {
  const held = await bench.names2(cluster);
  return names.every((name) => held.includes(name));
};

test("two servers with a cluster of one name share a NATS with TLS, and neither sees the other's tasks", async () => {
  await using directory = await temporaryDirectory();
  await using nats = await externalNats(directory.path);
  await using directory1 = await temporaryDirectory();
  await using directory2 = await temporaryDirectory();
  await using one = await offloadBench(directory1.path);
  await using two = await offloadBench(directory2.path);
  await one.start(external(addressOf(nats)));
  await two.start(external(addressOf(nats, { namespace: "two", owner: "server-2" })));
  expect(one.role().queueState()).toEqual({ ready: true, detail: `connected to ${nats.url}` });
  await one.segment("main", wal(1));
  await two.segment("main", wal(2));
  await eventually(hasAll(one, "main", [wal(1)]));
  await eventually(hasAll(two, "main", [wal(2)]));
  for (const bench of [one, two]) {
    await eventually(async () => (await bench.role().admin.pending()).wal === 0);
    expect(await bench.role().admin.failed("wal")).toEqual([]);
  }
  expect([await one.names2("main"), await two.names2("main")]).toEqual([[wal(1)], [wal(2)]]);
});

test("KLIO-QUEUE-REFUSED: another server's namespace, a wrong password, an unknown CA, no JetStream; each is named", async () => {
  await using directory = await temporaryDirectory();
  await using nats = await externalNats(directory.path);
  const log = testLog();
  const open = (more: Partial<QueueAddress>) => openQueue(addressOf(nats, more), { log });
  await (await open({}))[Symbol.asyncDispose]();
  await (await open({}))[Symbol.asyncDispose](); // its own streams are taken again
  await expect(open({ owner: "server-2" })).rejects.toMatchObject({
    code: "KLIO-QUEUE-REFUSED",
    message: "stream klio-wal-stream-one belongs to another Klio server",
  });
  await expect(open({ passwordFile: nats.wrongFile })).rejects.toMatchObject({
    code: "KLIO-QUEUE-REFUSED",
    message: expect.stringContaining("user, password or credentials are wrong"),
  });
  await expect(open({ tls: {} })).rejects.toMatchObject({
    code: "KLIO-QUEUE-REFUSED",
    message: expect.stringMatching(/TLS: .*certificate/),
  });
  await expect(open({ passwordFile: join(directory.path, "none") })).rejects.toMatchObject({
    code: "KLIO-CONFIG",
    message: expect.stringContaining("cannot read queue.password_file"),
  });
  await expect(open({ tls: { caFile: join(directory.path, "none") } })).rejects.toMatchObject({
    code: "KLIO-CONFIG",
    message: expect.stringContaining("cannot read queue.ca_cert"),
  });
  await expect(open({ url: "tls://127.0.0.1:1" })).rejects.toMatchObject({ code: "KLIO-QUEUE-DOWN" });
  await using bareDirectory = await temporaryDirectory();
  await using bare = await externalNats(bareDirectory.path, { withJetStream: false });
  await expect(openQueue(addressOf(bare), { log })).rejects.toMatchObject({
    code: "KLIO-QUEUE-REFUSED",
    message: expect.stringMatching(/jetstream/i),
  });
});

test("P4: an external queue that is away at the start, and goes away later, delays no storing and loses no file", async () => {
  await using directory = await temporaryDirectory();
  await using nats = await externalNats(directory.path, { isStarted: false });
  await using own = await temporaryDirectory();
  await using bench = await offloadBench(own.path);
  const role = await bench.start(external(addressOf(nats)));
  expect(role.queueState().detail).toBe(`not connected to ${nats.url}`);
  await bench.segment("a", wal(1));
  await expect(role.admin.pending()).rejects.toMatchObject({ code: "KLIO-QUEUE-DOWN" });
  await nats.start();
  await eventually(hasAll(bench, "a", [wal(1)]));
  await nats.kill();
  await eventually(() => role.queueState().detail === `not connected to ${nats.url}`);
  await bench.segment("a", wal(2));
  await nats.start();
  await eventually(hasAll(bench, "a", [wal(1), wal(2)]));
  await eventually(() => role.frontier("a").at === wal(2));
  const events = bench.log.events();
  expect(events.filter((event) => event === "queue.away")).toHaveLength(1);
  expect(events).toContain("queue.reached");
});

test("a stop while the external queue is still away ends at once", async () => {
  await using directory = await temporaryDirectory();
  await using nats = await externalNats(directory.path, { isStarted: false });
  await using own = await temporaryDirectory();
  await using bench = await offloadBench(own.path);
  const role = await bench.start(external(addressOf(nats)));
  await role.stop();
  expect(bench.log.events()).not.toContain("queue.reached");
});
