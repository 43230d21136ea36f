import { expect, test } from "vitest";
import { createActor, fromCallback } from "xstate";
import { getShortestPaths } from "xstate/graph";
import { lineLength } from "../../../src/domain/fair-line.ts";
import type { TaskVerdict } from "../../../src/domain/offload-task.ts";
import { offloadQueue } from "../../../src/machines/offload-queue.machine.ts";
import { done, failed, limits, task, wal } from "../../support/queue-tasks.ts";
import { checkTransitionTable, stateName } from "../../support/transition-table.ts";

const base = createActor(offloadQueue, { id: "x", input: { name: "wal", limits, spread: 1 } }).getSnapshot().context;
const busy = { ...base, running: { 1: task(1) }, outages: 1 };
const end = (output: TaskVerdict) => ({ type: "xstate.done.actor.worker:1", actorId: "worker:1", output });
const events = {
  received: { type: "task.received", task: task(2) },
  stored: { type: "wal.stored", cluster: "a", name: wal(1) },
  listing: { type: "cluster.listing", cluster: "a" },
  listed: { type: "cluster.listed", cluster: "a", missing: [], held: [] },
  restored: { type: "frontier.restored", cluster: "a", at: wal(1) },
  forgotten: { type: "tasks.forgotten" },
  "ended/done": end(done(1)),
  "ended/task": end(failed("task")),
  "ended/tier": end(failed("tier")),
  "ended/interrupted": end({ kind: "interrupted" }),
  crashed: { type: "xstate.error.actor.worker:1", actorId: "worker:1", error: new Error("bug") },
  waited: { type: "xstate.after.probe.offloadQueue.open.paused" },
  "shutdown.requested": { type: "shutdown.requested" },
};
type State = "open.pulling" | "open.paused" | "open.probing" | "open.draining";
const stay = (state: string) =>
  Object.fromEntries(Object.keys(events).map((key) => [key, state])) as Record<keyof typeof events, string>;
// Context-only changes count as "ignored" to the checker: they neither leave the state nor act.
const notes = { stored: "ignored", listing: "ignored", listed: "ignored", restored: "ignored", forgotten: "ignored" };

export const transitionTable: Record<State, Record<keyof typeof events, string>> = {
  "open.pulling": {
    ...stay("open.pulling"),
    ...notes,
    "ended/tier": "open.paused",
    waited: "ignored",
    "shutdown.requested": "open.draining",
  },
  "open.paused": {
    ...stay("open.paused"),
    ...notes,
    received: "ignored",
    "ended/done": "open.pulling",
    waited: "open.pulling",
    "shutdown.requested": "open.draining",
  },
  "open.probing": {
    ...stay("open.pulling"),
    ...notes,
    received: "ignored",
    "ended/tier": "open.paused",
    waited: "ignored",
    "shutdown.requested": "open.draining",
  },
  "open.draining": {
    ...stay("closed"),
    ...notes,
    received: "ignored",
    waited: "ignored",
    "shutdown.requested": "ignored",
  },
};

test("every event in every state", () => {
  // The pure function has no children, but needs somebody to send to.
  const nobody = createActor(fromCallback(() => undefined));
  const machine = offloadQueue.provide({});
  const resolve = machine.resolveState.bind(machine);
  machine.resolveState = (config) =>
    Object.assign(resolve(config), { children: { taskSource: nobody, "worker:1": nobody } }) as never;
  checkTransitionTable(machine, busy, transitionTable, events);
});

test("every state is reachable", () => {
  const reached = getShortestPaths(offloadQueue, {
    input: { name: "wal", limits, spread: 1 },
    events: [
      { type: "task.received", task: task(1) },
      { type: "task.received", task: task(2) },
      end(failed("tier")),
      events.waited,
      events["shutdown.requested"],
    ] as never,
    stopWhen: ({ context }) =>
      context.outages > 1 || lineLength(context.line) + Object.keys(context.running).length > 1,
  });
  expect(new Set(reached.map(({ state }) => stateName(state.value)))).toEqual(
    new Set(["open.pulling", "open.paused", "open.probing", "open.draining", "closed"]),
  );
});
