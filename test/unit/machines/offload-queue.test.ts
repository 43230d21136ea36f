import fc from "fast-check";
import { expect, test } from "vitest";
import { assign, createActor, fromCallback, SimulatedClock, setup } from "xstate";
import type { OffloadTask, TaskVerdict } from "../../../src/domain/offload-task.ts";
import {
  frontierOf,
  type QueueCommand,
  type QueueFact,
  type QueueLimits,
} from "../../../src/domain/task-scheduling.ts";
import { offloadQueue } from "../../../src/machines/offload-queue.machine.ts";
import { done, failed, limits, task, wal } from "../../support/queue-tasks.ts";
import { stateName } from "../../support/transition-table.ts";

/** The queue with workers that end when the test says so. */
function start(changed: Partial<QueueLimits> = {}) {
  const clock = new SimulatedClock();
  const commands: QueueCommand[] = [];
  const facts: QueueFact[] = [];
  const workers = new Map<number, (verdict: TaskVerdict | "crash") => void>();
  const stopped: number[] = [];
  const worker = setup({
    types: {
      input: {} as { task: OffloadTask },
      context: {} as { task: OffloadTask; verdict: TaskVerdict },
      events: {} as { type: "end"; verdict: TaskVerdict } | { type: "shutdown.requested" } | { type: "crash" },
      output: {} as TaskVerdict,
    },
    actions: {
      crash: () => {
        throw new Error("a bug");
      },
    },
  }).createMachine({
    context: ({ input }) => ({ ...input, verdict: { kind: "interrupted" } }),
    initial: "working",
    entry: ({ context, self }) =>
      void workers.set(context.task.id, (verdict) =>
        verdict === "crash" ? self.send({ type: "crash" }) : self.send({ type: "end", verdict }),
      ),
    exit: ({ context }) => void workers.delete(context.task.id),
    states: {
      working: {
        on: {
          end: { target: "ended", actions: assign({ verdict: ({ event }) => event.verdict }) },
          crash: { actions: "crash" },
          "shutdown.requested": { target: "ended", actions: ({ context }) => void stopped.push(context.task.id) },
        },
      },
      ended: { type: "final" },
    },
    output: ({ context }) => context.verdict,
  });
  const taskSource = fromCallback<QueueCommand, { queue: string }>(({ receive }) =>
    receive((command) => void commands.push(command)),
  );
  const machine = offloadQueue.provide({ actors: { taskSource, worker: worker as never } });
  const actor = createActor(machine, {
    id: "offloadQueue/wal",
    clock,
    input: { name: "wal", limits: { ...limits, ...changed }, spread: 1 },
  });
  actor.on("*", (fact) => void facts.push(fact));
  actor.start();
  return {
    actor,
    clock,
    commands,
    facts,
    stopped,
    running: () => [...workers.keys()],
    end: (id: number, verdict: TaskVerdict | "crash") => {
      workers.get(id)?.(verdict);
      workers.delete(id);
    },
    receive: (...tasks: OffloadTask[]) => {
      for (const each of tasks) actor.send({ type: "task.received", task: each });
    },
    state: () => stateName(actor.getSnapshot().value),
    settled: () => commands.filter(({ type }) => type !== "room.changed"),
    room: () => commands.filter((command) => command.type === "room.changed").at(-1)?.room,
  };
}

test("Q1: workers, bytes and workers per cluster are bounded; a task larger than the budget runs alone", () => {
  const queue = start({ perCluster: 2 });
  queue.receive(task(1), task(2), task(3), task(4, "b"), task(5, "c"));
  expect(queue.running()).toEqual([1, 2, 4]);
  const bytes = start();
  bytes.receive(task(1, "a", { bytes: 500 }), task(2, "b"), task(3, "c", { bytes: 95 }));
  expect(bytes.running()).toEqual([1]);
  bytes.end(1, done(1));
  expect(bytes.running()).toEqual([2]);
  bytes.end(2, done(2));
  expect(bytes.running()).toEqual([3]);
});

test("Q2: a cluster with many tasks does not keep another one waiting", () => {
  const queue = start({ maxConcurrent: 1 });
  queue.receive(task(1), task(2), task(3), task(4), task(9, "b"));
  queue.end(1, done(1));
  queue.end(2, done(2));
  expect(queue.running()).toEqual([9]);
});

test("a cluster may be called like what every object has", () => {
  const queue = start();
  for (const [id, cluster] of [
    [1, "constructor"],
    [2, "toString"],
    [3, "__proto__"],
  ] as const) {
    queue.actor.send({ type: "wal.stored", cluster, name: wal(id) });
    queue.receive(task(id, cluster));
    expect(queue.running()).toEqual([id]);
    queue.end(id, done(id));
    queue.actor.send({ type: "cluster.listing", cluster });
    queue.actor.send({ type: "cluster.listed", cluster, missing: [], held: [wal(id)] });
    queue.actor.send({ type: "frontier.restored", cluster, at: wal(id) });
    expect(frontierOf(queue.actor.getSnapshot().context, cluster)).toMatchObject({ at: wal(id), missing: [] });
  }
  queue.receive(task(4, "constructor"), task(5, "__proto__"), task(6, "__proto__"));
  expect(queue.running()).toEqual([4, 5, 6]);
});

test("Q3: acknowledged when done and not before; a file that tier 2 surely holds needs no worker", () => {
  const queue = start();
  queue.receive(task(2));
  expect(queue.settled()).toEqual([]);
  queue.end(2, done(2));
  expect(queue.settled()).toEqual([{ type: "task.acked", id: 2 }]);
  queue.actor.send({ type: "cluster.listing", cluster: "a" });
  queue.actor.send({ type: "cluster.listed", cluster: "a", missing: [wal(7)], held: [wal(5), wal(6)] });
  queue.receive(task(6), task(7));
  expect(queue.running()).toEqual([7]);
  expect(queue.settled().at(-1)).toEqual({ type: "task.acked", id: 6 });
});

test("Q4: when tier 2 is away everything waits, then one task tries; nothing is given back", () => {
  const queue = start({ maxConcurrent: 2 });
  queue.receive(task(1), task(2), task(3, "b"));
  queue.end(1, failed("tier", false, "KLIO-S3-DOWN"));
  expect(queue.state()).toBe("open.paused");
  expect(queue.room()).toBe(0);
  queue.end(2, failed("tier"));
  expect(queue.running()).toEqual([]);
  queue.receive(task(4, "c"));
  expect(queue.running()).toEqual([]);
  queue.clock.increment(1_000);
  expect(queue.state()).toBe("open.probing");
  expect(queue.running().length).toBe(1);
  expect(queue.room()).toBe(0);
  expect(queue.settled()).toEqual([]);
  queue.end(queue.running()[0]!, done(1));
  expect(queue.state()).toBe("open.pulling");
  expect(queue.running().length).toBe(2);
  expect(queue.facts.filter(({ type }) => type.startsWith("queue."))).toEqual([
    { type: "queue.paused", queue: "wal", code: "KLIO-S3-DOWN", reason: "why" },
    { type: "queue.resumed", queue: "wal", code: "", reason: "" },
  ]);
});

test("Q4: a running worker's success while paused shows that tier 2 is back", () => {
  const queue = start();
  queue.receive(task(1), task(2));
  queue.end(1, failed("tier"));
  queue.end(2, done(2));
  expect(queue.state()).toBe("open.pulling");
  expect(queue.running()).toEqual([1]);
});

test("Q5: the waits double up to the limit while probes fail, and begin anew after a success", () => {
  const queue = start();
  queue.receive(task(1));
  for (const wait of [1_000, 2_000, 4_000, 8_000, 8_000]) {
    queue.end(1, failed("tier"));
    queue.clock.increment(wait - 1);
    expect(queue.state()).toBe("open.paused");
    queue.clock.increment(1);
    expect(queue.state()).toBe("open.probing");
  }
  queue.end(1, done(1));
  queue.receive(task(2));
  queue.end(2, failed("tier"));
  queue.clock.increment(1_000);
  expect(queue.state()).toBe("open.probing");
  expect(queue.facts.filter(({ type }) => type === "queue.paused").length).toBe(2);
});

test("Q6: a failed task comes back later, the fatal and the last one are buried; others go on", () => {
  const queue = start();
  queue.receive(task(1), task(2, "a", { deliveries: 2 }), task(3, "a", { deliveries: 3 }), task(4));
  queue.end(1, failed("task"));
  queue.end(2, failed("task"));
  queue.end(3, failed("task"));
  queue.end(4, failed("task", true, "KLIO-WAL-DAMAGED"));
  expect(queue.settled()).toEqual([
    { type: "task.delayed", id: 1, delayMs: 1_000 },
    { type: "task.delayed", id: 2, delayMs: 5_000 },
    { type: "task.buried", id: 3, code: "KLIO-X", reason: "why" },
    { type: "task.buried", id: 4, code: "KLIO-WAL-DAMAGED", reason: "why" },
  ]);
  expect(queue.state()).toBe("open.pulling");
  queue.receive(task(5));
  queue.end(5, { kind: "deferred", reason: "WAL is missing" });
  expect(queue.settled().at(-1)).toEqual({ type: "task.deferred", id: 5, delayMs: 60_000 });
});

test("Q6: a poison task met while probing is judged by itself, and another one tries", () => {
  const queue = start();
  queue.receive(task(1), task(2, "b"));
  queue.end(1, failed("tier"));
  queue.end(2, failed("tier"));
  queue.clock.increment(1_000);
  const [first] = queue.running();
  queue.end(first!, failed("task", true));
  expect(queue.state()).toBe("open.probing");
  expect(queue.running()).not.toEqual([first]);
  queue.end(queue.running()[0]!, done(2));
  expect(queue.state()).toBe("open.pulling");
});

test("Q6: a worker that crashes costs its own task only", () => {
  const queue = start();
  queue.receive(task(1), task(2));
  queue.end(1, "crash");
  expect(queue.settled()).toEqual([{ type: "task.delayed", id: 1, delayMs: 1_000 }]);
  expect(queue.facts).toMatchObject([{ type: "task.failed", code: "KLIO-BUG", reason: "a bug" }]);
  expect(queue.running()).toEqual([2]);
});

test("Q7: the frontier passes no segment that tier 1 has and tier 2 lacks", () => {
  const queue = start();
  queue.actor.send({ type: "cluster.listing", cluster: "a" });
  queue.actor.send({ type: "cluster.listed", cluster: "a", missing: [], held: [wal(1)] });
  for (const n of [2, 3]) queue.actor.send({ type: "wal.stored", cluster: "a", name: wal(n) });
  queue.receive(task(2), task(3));
  queue.end(3, done(3));
  const frontiers = () => queue.facts.flatMap((fact) => (fact.type === "frontier.advanced" ? [fact.at] : []));
  expect(frontiers()).toEqual([wal(1)]);
  queue.end(2, done(2));
  expect(frontiers()).toEqual([wal(1), wal(3)]);
});

test("Q8: a stop tells the running workers, starts none, and ends with them", () => {
  const queue = start({ maxConcurrent: 2 });
  queue.receive(task(1), task(2), task(3));
  queue.actor.send({ type: "shutdown.requested" });
  expect(queue.stopped).toEqual([1, 2]);
  expect(queue.running()).toEqual([]);
  expect(queue.settled()).toEqual([]);
  expect(queue.actor.getSnapshot().status).toBe("done");
  const idle = start();
  idle.actor.send({ type: "shutdown.requested" });
  expect(idle.actor.getSnapshot().status).toBe("done");
});

test("Q9: what fails tier-wide while others succeed is put off like any other failure", () => {
  const queue = start();
  queue.receive(task(1, "bad"));
  for (let round = 0; round < 12 && !queue.settled().some(({ type }) => type === "task.delayed"); round++) {
    queue.receive(task(10 + round, "good"));
    if (queue.state() === "open.paused") queue.clock.increment(10_000);
    for (const id of queue.running().toReversed()) queue.end(id, id === 1 ? failed("tier") : done(id));
  }
  expect(queue.settled()).toContainEqual({ type: "task.delayed", id: 1, delayMs: 1_000 });
});

test("a lost queue empties the line, what runs is finished", () => {
  const queue = start({ maxConcurrent: 1 });
  queue.receive(task(1), task(2));
  queue.actor.send({ type: "tasks.forgotten" });
  queue.end(1, done(1));
  expect(queue.running()).toEqual([]);
});

test("over any walk every task is settled once or still held, and the bounds hold (Q1, Q3)", () => {
  const step = fc.oneof(
    fc.record({ do: fc.constant("receive" as const), cluster: fc.constantFrom("a", "b", "c"), bytes: fc.nat(150) }),
    fc.record({
      do: fc.constant("end" as const),
      pick: fc.nat(5),
      how: fc.constantFrom("done", "task", "tier", "fatal"),
    }),
    fc.record({ do: fc.constant("wait" as const) }),
  );
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
      const queue = start();
      let next = 1;
      for (const each of steps) {
        if (each.do === "receive") queue.receive(task(next++, each.cluster, { bytes: each.bytes }));
        else if (each.do === "wait") queue.clock.increment(10_000);
        else {
          const id = queue.running()[each.pick % Math.max(1, queue.running().length)];
          if (id === undefined) continue;
          queue.end(
            id,
            each.how === "done" ? done(id) : failed(each.how === "tier" ? "tier" : "task", each.how === "fatal"),
          );
        }
        const { running, line } = queue.actor.getSnapshot().context;
        const held = [
          ...Object.keys(running),
          ...Object.values(line.waiting)
            .flat()
            .map(({ id }) => String(id)),
        ];
        const settled = queue.settled().map((command) => String("id" in command && command.id));
        expect([...held, ...settled].map(Number).sort((a, b) => a - b)).toEqual(
          Array.from({ length: next - 1 }, (_, i) => i + 1),
        );
        const bytes = Object.values(running).map((one) => one.bytes);
        expect(bytes.length).toBeLessThanOrEqual(3);
        if (bytes.length > 1 && bytes.every((one) => one > 0))
          expect(bytes.reduce((a, b) => a + b)).toBeLessThanOrEqual(100 + Math.min(...bytes));
        if (queue.state() === "open.pulling" && queue.running().length === 0) expect(line.turns).toEqual([]);
      }
    }),
  );
});
