// One cluster's backlog before the others' fresh tasks, on a real queue.
import { expect, test, vi } from "vitest";
import { listDeadLetters } from "../../src/actors/jetstream/dead-letters.ts";
import { openQueue, type Queue } from "../../src/actors/jetstream/queue.ts";
import { unwrap } from "../../src/domain/outcome.ts";
import { encodeMessage } from "../../src/wire/queue-message.ts";
import { startQueue } from "../support/embedded-queue.ts";
import { eventually } from "../support/eventually.ts";
import { wal } from "../support/queue-tasks.ts";
import { listenToTasks } from "../support/task-listener.ts";
import { temporaryDirectory } from "../support/temporary-directory.ts";
import { testLog } from "../support/test-log.ts";

const WINDOW = 1_024;

async function publish(queue: Queue, cluster: string, count: number): Promise<void> {
  const names = Array.from({ length: count }, (_, n) => wal(n + 1));
  for (let at = 0; at < count; at += 500)
    await Promise.all(
      names.slice(at, at + 500).map((walName) =>
        queue.js.publish(queue.names.subject("wal", cluster), encodeMessage({ clusterName: cluster, walName }), {
          timeout: 30_000,
        }),
      ),
    );
}

const consumerOf = (queue: Queue) => queue.jsm.consumers.info(queue.names.stream.wal, queue.names.consumer.wal);
const pendingOf = async (queue: Queue, cluster: string) => unwrap(await queue.pendingOf("wal", cluster));

test("a fresh task is handed out while 10,000 of another cluster are before it, and done it is gone", async () => {
  await using directory = await temporaryDirectory();
  await using server = await startQueue(directory.path, testLog());
  const { queue } = server;
  await publish(queue, "a", 10_000);
  const source = listenToTasks(queue, "wal", testLog(), WINDOW, WINDOW / 2);
  source.command({ type: "room.changed", room: WINDOW });
  await eventually(() => source.tasks().length >= WINDOW);
  await publish(queue, "eu.b", 1);
  const fresh = await eventually(() => source.tasks().find(({ cluster }) => cluster === "eu.b"));
  expect(fresh).toMatchObject({ name: wal(1), deliveries: 1 });
  expect((await consumerOf(queue)).num_pending).toBeGreaterThan(8_000); // the queue itself is far from it
  source.command({ type: "task.acked", id: fresh.id });
  await eventually(async () => (await pendingOf(queue, "eu.b")) === 0);
  expect(await pendingOf(queue, "a")).toBe(10_000);
  // No more of the backlog is taken ahead of its turn.
  expect(source.tasks().filter(({ cluster }) => cluster === "a").length).toBeLessThan(WINDOW + 256);
  source.actor.stop();
}, 60_000);

test("a cluster has its share ahead and no more; what the queue hands out itself then is not handed out twice", async () => {
  await using directory = await temporaryDirectory();
  await using server = await startQueue(directory.path, testLog());
  const { queue } = server;
  await publish(queue, "a", 40);
  const source = listenToTasks(queue, "wal", testLog(), 20, 10);
  source.command({ type: "room.changed", room: 20 });
  await eventually(() => source.tasks().length >= 20);
  await publish(queue, "b", 30);
  const of = (cluster: string) => source.tasks().filter((task) => task.cluster === cluster);
  await eventually(() => of("b").length >= 16);
  expect(of("b").map(({ name }) => name)).toEqual(Array.from({ length: 16 }, (_, n) => wal(n + 1)));
  // Room for all: the queue reaches what was taken ahead.
  for (let settled = 0; settled < 70; ) {
    source.command({ type: "room.changed", room: 70 });
    for (const { id } of await eventually(() => source.tasks().length > settled && source.tasks().slice(settled))) {
      settled += 1;
      source.command({ type: "task.acked", id });
    }
  }
  await eventually(async () => (await pendingOf(queue, "a")) + (await pendingOf(queue, "b")) === 0);
  expect(new Set(source.tasks().map(({ id }) => id)).size).toBe(source.tasks().length);
  source.actor.stop();
});

/** A task of `b` that is found behind those of `a`, which fill all the room; `of(n)`: when it comes for the n-th time. */
async function takenAhead(queue: Queue) {
  await publish(queue, "a", 100);
  const source = listenToTasks(queue, "wal", testLog(), 20, 10);
  source.command({ type: "room.changed", room: 20 });
  await eventually(() => source.tasks().length >= 20);
  await publish(queue, "b", 1);
  return { source, of: (n: number) => eventually(() => source.tasks().filter(({ cluster }) => cluster === "b")[n]) };
}

test("a task taken ahead that fails is put off, counts its tries, and is buried with its reason", async () => {
  await using directory = await temporaryDirectory();
  await using server = await startQueue(directory.path, testLog());
  const { queue } = server;
  const { source, of } = await takenAhead(queue);
  const first = await of(0);
  const failedAt = Date.now();
  source.command({ type: "task.delayed", id: first.id, delayMs: 1_500 });
  const second = await of(1);
  expect(Date.now() - failedAt).toBeGreaterThanOrEqual(1_500);
  expect(second).toMatchObject({ id: first.id, deliveries: 2 });
  expect(source.facts).toEqual([{ type: "task.redelivered", stream: "klio-wal-stream" }]);
  source.command({ type: "task.buried", id: second.id, code: "KLIO-WAL-DAMAGED", reason: "frame 3 is bad" });
  await eventually(async () => (await pendingOf(queue, "b")) === 0);
  expect(await listDeadLetters(queue, "wal", "b")).toMatchObject({
    value: [{ name: wal(1), code: "KLIO-WAL-DAMAGED", attempts: 2 }],
  });
  source.actor.stop();
});

test("a task taken ahead that is put off comes again in time, though the clock was set back by a day", async () => {
  await using directory = await temporaryDirectory();
  await using server = await startQueue(directory.path, testLog());
  const { queue } = server;
  const { source, of } = await takenAhead(queue);
  const { id } = await of(0);
  source.command({ type: "task.delayed", id, delayMs: 500 });
  const now = Date.now.bind(Date);
  const clock = vi.spyOn(Date, "now").mockImplementation(() => now() - 86_400_000);
  try {
    expect(await of(1)).toMatchObject({ id, deliveries: 2 });
  } finally {
    clock.mockRestore();
    source.actor.stop();
  }
}, 60_000);

test("a queue that an earlier run left with all its room in hand is as fair", async () => {
  await using directory = await temporaryDirectory();
  await using server = await startQueue(directory.path, testLog());
  {
    // As a killed server leaves it: handed out, never answered.
    const { queue } = server;
    await publish(queue, "a", 2_000);
    await publish(queue, "b", 1);
    const consumer = await queue.js.consumers.get(queue.names.stream.wal, queue.names.consumer.wal);
    for await (const _ of await consumer.fetch({ max_messages: WINDOW, expires: 5_000 }));
    expect((await consumerOf(queue)).num_ack_pending).toBe(WINDOW);
  }
  const { url, user, password } = server.embedded;
  await using queue = await openQueue({ url, user, password, namespace: "", replicas: 1 }, { log: testLog() });
  const source = listenToTasks(queue, "wal", testLog(), WINDOW, WINDOW / 2);
  source.command({ type: "room.changed", room: WINDOW });
  await eventually(() => source.tasks().some(({ cluster }) => cluster === "b"));
  expect(source.tasks()[0]).toMatchObject({ cluster: "a", name: wal(1) });
  source.actor.stop();
}, 60_000);

test("while everything waits, clusters whose tasks are all in hand are not asked for again and again", async () => {
  await using directory = await temporaryDirectory();
  await using server = await startQueue(directory.path, testLog());
  const { queue } = server;
  const [clusters, each] = [100, 8];
  await publish(queue, "noisy", 400);
  const source = listenToTasks(queue, "wal", testLog(), 200, 100);
  source.command({ type: "room.changed", room: 200 });
  await eventually(() => source.tasks().length >= 200);
  for (let n = 0; n < clusters; n++) await publish(queue, `small-${n}`, each);
  await eventually(() => source.tasks().filter(({ cluster }) => cluster !== "noisy").length === clusters * each);
  // Nothing ends and nothing comes, as in an outage of tier 2; it is looked each second.
  const { outMsgs } = queue.connection.stats();
  const beganMs = Date.now();
  await eventually(() => Date.now() - beganMs > 4_000);
  expect(queue.connection.stats().outMsgs - outMsgs).toBeLessThan(1_000 /* a heartbeat of each */ + 20);
  source.actor.stop();
}, 60_000);
