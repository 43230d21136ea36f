import { readFileSync, statSync } from "node:fs";
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { connect } from "nats";
import { expect, test } from "vitest";
import { dropDeadLetter, listDeadLetters, retryDeadLetter } from "../../src/actors/jetstream/dead-letters.ts";
import { openQueue } from "../../src/actors/jetstream/queue.ts";
import { startQueue } from "../support/embedded-queue.ts";
import { eventually } from "../support/eventually.ts";
import { listenToTasks } from "../support/task-listener.ts";
import { temporaryDirectory } from "../support/temporary-directory.ts";
import { testLog } from "../support/test-log.ts";

const wal = (n: number) => `0000000100000000${n.toString(16).toUpperCase().padStart(8, "0")}`;

test("a task is kept once, handed out with its size and trace, and gone when acknowledged", async () => {
  await using directory = await temporaryDirectory();
  await using server = await startQueue(directory.path, testLog());
  const { queue } = server;
  const message = { clusterName: "eu.main", walName: wal(1), bytes: 42 };
  const headers = { traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01" };
  for (let i = 0; i < 3; i++)
    expect(await queue.publish("wal", message, { id: `eu.main/${wal(1)}`, headers })).toMatchObject({ kind: "ok" });
  expect(await queue.pendingOf("wal", "eu.main")).toEqual({ kind: "ok", value: 1 });
  const source = listenToTasks(queue, "wal");
  source.command({ type: "room.changed", room: 10 });
  const [task] = await eventually(() => source.tasks().length === 1 && source.tasks());
  expect(task).toMatchObject({
    cluster: "eu.main",
    name: wal(1),
    bytes: 42,
    deliveries: 1,
    traceparent: headers.traceparent,
    deadLetter: 0,
  });
  source.command({ type: "task.acked", id: task!.id });
  await eventually(async () => {
    const status = await queue.status();
    return status.kind === "ok" && status.value.pending.wal === 0;
  });
  source.actor.stop();
});

test("without room nothing is taken; what is given back comes again", async () => {
  await using directory = await temporaryDirectory();
  await using server = await startQueue(directory.path, testLog());
  const { queue } = server;
  for (const n of [1, 2, 3]) await queue.publish("wal", { clusterName: "a", walName: wal(n) }, { id: `a/${wal(n)}` });
  const source = listenToTasks(queue, "wal", testLog(), 2);
  source.command({ type: "room.changed", room: 2 });
  await eventually(() => source.tasks().length === 2);
  source.command({ type: "task.delayed", id: source.tasks()[0]!.id, delayMs: 1 });
  const consumer = await queue.js.consumers.get("klio-wal-stream", "klio-wal-consumer");
  expect((await consumer.info()).num_ack_pending).toBe(2);
  expect(source.tasks().length).toBe(2);
  source.command({ type: "room.changed", room: 2 });
  await eventually(() => source.tasks().length === 4);
  expect(
    source
      .tasks()
      .filter(({ name }) => name === wal(1))
      .map(({ deliveries }) => deliveries),
  ).toEqual([1, 2]);
  expect(source.facts).toEqual([{ type: "task.redelivered", stream: "klio-wal-stream" }]);
  source.actor.stop();
  // A stop gives back what was in hand: it is not lost until its wait is over.
  const again = listenToTasks(queue, "wal");
  again.command({ type: "room.changed", room: 10 });
  await eventually(() => new Set(again.tasks().map(({ name }) => name)).size === 3);
  again.actor.stop();
});

test("KLIO-QUEUE-MESSAGE: what cannot be decoded is dropped with a line, and delays nothing", async () => {
  await using directory = await temporaryDirectory();
  await using server = await startQueue(directory.path, testLog());
  const { queue } = server;
  await queue.js.publish("klio.wal.a", new TextEncoder().encode("{"));
  await queue.publish("wal", { clusterName: "a", walName: wal(1) }, { id: "1" });
  const source = listenToTasks(queue, "wal");
  source.command({ type: "room.changed", room: 10 });
  await eventually(() => source.tasks().length === 1);
  expect(source.log.lines.map(({ event, message }) => `${event}: ${message}`)).toEqual([
    "queue.message.invalid: a message is dropped: a queue message is not JSON: Expected property name or '}' in JSON at position 1 (line 1 column 2)",
  ]);
  expect(source.facts).toEqual([{ type: "task.undecodable", stream: "klio-wal-stream" }]);
  await eventually(async () => {
    const pending = await queue.pendingOf("wal", "a");
    return pending.kind === "ok" && pending.value === 1;
  });
  source.actor.stop();
});

test("a buried task is a dead letter with its reason; sent again and done it is gone", async () => {
  await using directory = await temporaryDirectory();
  await using server = await startQueue(directory.path, testLog());
  const { queue } = server;
  expect(await listDeadLetters(queue, "wal")).toEqual({ kind: "ok", value: [] });
  await queue.publish("wal", { clusterName: "a", walName: wal(1) }, { id: "1" });
  const source = listenToTasks(queue, "wal");
  source.command({ type: "room.changed", room: 10 });
  await eventually(() => source.tasks().length === 1);
  source.command({
    type: "task.buried",
    id: source.tasks()[0]!.id,
    code: "KLIO-WAL-DAMAGED",
    reason: "frame 3 is bad",
  });
  const [letter] = await eventually(async () => {
    const listed = await listDeadLetters(queue, "wal", "a");
    return listed.kind === "ok" && listed.value.length === 1 && listed.value;
  });
  expect(letter).toMatchObject({ name: wal(1), code: "KLIO-WAL-DAMAGED", error: "frame 3 is bad", attempts: 1 });
  expect(await listDeadLetters(queue, "wal", "b")).toEqual({ kind: "ok", value: [] });
  await retryDeadLetter(queue, letter!);
  const retried = await eventually(() => source.tasks()[1]);
  expect(retried.deadLetter).toBe(letter!.sequence);
  source.command({ type: "task.acked", id: retried.id });
  await eventually(async () => {
    const status = await queue.status();
    return status.kind === "ok" && status.value.dead.wal === 0 && status.value.pending.wal === 0;
  });
  source.actor.stop();
});

test("a task that nobody answers for ends as an advisory, and is listed by its message", async () => {
  await using directory = await temporaryDirectory();
  await using server = await startQueue(directory.path, testLog());
  const { queue } = server;
  await queue.publish("wal", { clusterName: "a", walName: wal(7) }, { id: "1" });
  const consumer = await queue.js.consumers.get("klio-wal-stream", "klio-wal-consumer");
  for (let i = 0; i < 10; i++) (await consumer.next({ expires: 5_000 }))?.nak();
  const letters = await eventually(async () => {
    await consumer.next({ expires: 1_000 });
    const listed = await listDeadLetters(queue, "wal");
    return listed.kind === "ok" && listed.value.length === 1 && listed.value;
  });
  expect(letters[0]).toMatchObject({ cluster: "a", name: wal(7), attempts: 10 });
  expect(await dropDeadLetter(queue, "wal", letters[0]!.sequence)).toMatchObject({ kind: "ok" });
  const status = await queue.status();
  expect(status).toMatchObject({ value: { pending: { wal: 0 }, dead: { wal: 0 } } });
  expect(await dropDeadLetter(queue, "wal", letters[0]!.sequence)).toMatchObject({ kind: "ok" });
});

test("a deferred task never runs out of deliveries", async () => {
  await using directory = await temporaryDirectory();
  await using server = await startQueue(directory.path, testLog());
  const { queue } = server;
  await queue.publish("backup", { clusterName: "a", backupName: "b1", sendToTier2: true }, { id: "1" });
  const source = listenToTasks(queue, "backup");
  source.command({ type: "room.changed", room: 10 });
  for (let i = 0; i < 12; i++) {
    const task = await eventually(() => source.tasks()[i]);
    expect(task).toMatchObject({ name: "b1", backup: { sendToTier2: true } });
    source.command({ type: "task.deferred", id: task.id, delayMs: 1 });
  }
  await eventually(async () => {
    const status = await queue.status();
    return status.kind === "ok" && status.value.pending.backup === 1 && status.value.dead.backup === 0;
  });
  source.actor.stop();
});

test("the server listens on loopback only, refuses strangers, and its password lies in a private file", async () => {
  await using directory = await temporaryDirectory();
  await using server = await startQueue(directory.path, testLog());
  const file = join(directory.path, "nats-server.conf");
  expect(statSync(file).mode & 0o777).toBe(0o600);
  expect(readFileSync(file, "utf8")).toContain('listen: "127.0.0.1:');
  const { url } = server.embedded;
  await expect(connect({ servers: url, reconnect: false })).rejects.toThrow(/Authorization/);
  const address = { url, user: "klio", password: "guess", namespace: "", replicas: 1 };
  await expect(openQueue(address, { log: testLog() })).rejects.toMatchObject({ code: "KLIO-QUEUE-REFUSED" });
});

test("killed with -9 the server comes back on its port with every task; the source goes on by itself", async () => {
  await using directory = await temporaryDirectory();
  await using server = await startQueue(directory.path, testLog());
  const { queue } = server;
  await queue.publish("wal", { clusterName: "a", walName: wal(1) }, { id: "1" });
  await queue.recordLatest("a", wal(1));
  const source = listenToTasks(queue, "wal");
  source.command({ type: "room.changed", room: 10 });
  await eventually(() => source.tasks().length === 1);
  const before = server.pid();
  process.kill(before, "SIGKILL");
  await eventually(() => server.pid() !== before && server.pid() !== 0);
  await eventually(
    async () => (await queue.publish("wal", { clusterName: "a", walName: wal(2) }, { id: "2" })).kind === "ok",
  );
  await eventually(() => source.tasks().some(({ name }) => name === wal(2)));
  source.command({ type: "task.acked", id: source.tasks()[0]!.id });
  await eventually(async () => {
    const pending = await queue.pendingOf("wal", "a");
    return pending.kind === "ok" && pending.value === 1;
  });
  expect(await queue.readLatest()).toEqual({ kind: "ok", value: { a: wal(1) } });
  expect(source.events.some(({ type }) => type === "tasks.forgotten")).toBe(false);
  source.actor.stop();
});

test("when the queue's directory is lost its streams are made again, and who listens is told", async () => {
  await using directory = await temporaryDirectory();
  await using server = await startQueue(directory.path, testLog());
  const { queue } = server;
  let lost = 0;
  queue.onLost(() => {
    lost += 1;
  });
  await queue.publish("wal", { clusterName: "a", walName: wal(1) }, { id: "1" });
  const source = listenToTasks(queue, "wal");
  source.command({ type: "room.changed", room: 10 });
  await eventually(() => source.tasks().length === 1);
  const before = server.pid();
  await rm(join(directory.path, "jetstream"), { recursive: true, maxRetries: 20, retryDelay: 20 });
  process.kill(before, "SIGKILL");
  await eventually(() => lost === 1 && source.events.some(({ type }) => type === "tasks.forgotten"));
  // An answer for a task of the lost stream must not settle the one that now has its number.
  source.command({ type: "task.acked", id: source.tasks()[0]!.id });
  await eventually(
    async () => (await queue.publish("wal", { clusterName: "a", walName: wal(9) }, { id: "9" })).kind === "ok",
  );
  const task = await eventually(() => source.tasks().find(({ name }) => name === wal(9)));
  expect(task.deliveries).toBe(1);
  source.actor.stop();
});
