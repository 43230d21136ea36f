// The tasks of one queue (WAL files or backups), from the moment they are handed out until they are settled.
//   Q1. At most `maxConcurrent` workers run, at most `perCluster` of one cluster, and together they carry at most
//       `maxBytes`, unless one task alone is larger.
//   Q2. Clusters with waiting tasks take turns.
//   Q3. A task is acknowledged only after its worker said done, or when tier 2 surely holds its file.
//   Q4. A failure of tier 2 as a whole pauses: no worker starts until the wait is over, then exactly one; the task keeps
//       its delivery.
//   Q5. The wait before the n-th probe in a row is `backoffMs(policy, n, spread)`; only a success begins anew.
//   Q6. A task's own failure gives it back with a delay; when it is fatal, or at the last delivery, the task is buried with
//       its reason. Other tasks go on.
//   Q7. The frontier of a cluster never passes a segment that tier 1 has and tier 2 lacks.
//   Q8. After `shutdown.requested` no worker starts; the machine ends when the running ones have.
//   Q9. A task that fails "tier-wide" again and again while others succeed is judged by itself.
import { assign, emit, enqueueActions, setup } from "xstate";
import { backoffMs } from "../domain/backoff.ts";
import { emptyLine, lineUp } from "../domain/fair-line.ts";
import { fromListing, listingBegun, withStored } from "../domain/frontier.ts";
import type { OffloadTask, TaskVerdict } from "../domain/offload-task.ts";
import {
  advance,
  BLAME_LIMIT,
  blameOf,
  frontierOf,
  type Gate,
  idOf,
  oneOnly,
  open,
  pump,
  type QueueCommand,
  type QueueFact,
  type QueueSetup,
  type QueueState,
  type Step,
  settleAndPump,
  shut,
} from "../domain/task-scheduling.ts";
import type { StateMeta } from "../telemetry/state-telemetry.ts";
import { taskWorker } from "./task-worker.ts";
import { unprovidedSource } from "./unprovided.ts";

export type QueueEvent =
  | { type: "task.received"; task: OffloadTask }
  | { type: "wal.stored"; cluster: string; name: string }
  | { type: "cluster.listing"; cluster: string }
  | { type: "cluster.listed"; cluster: string; missing: string[]; held: string[] }
  | { type: "frontier.restored"; cluster: string; at: string }
  | { type: "tasks.forgotten" }
  | { type: "shutdown.requested" }
  | { type: `xstate.done.actor.worker:${string}`; actorId: string; output: TaskVerdict }
  | { type: `xstate.error.actor.worker:${string}`; actorId: string; error: unknown };

type WorkerEnd = Extract<QueueEvent, { actorId: string }>;

/** A worker that crashed is a bug of its own run: its task is judged like any other failed one. */
function verdictOf(event: WorkerEnd): { id: string; verdict: TaskVerdict } {
  const id = idOf(event.actorId);
  if ("output" in event) return { id, verdict: event.output };
  const reason = event.error instanceof Error ? event.error.message : String(event.error);
  return { id, verdict: { kind: "failed", scope: "task", fatal: false, code: "KLIO-BUG", reason } };
}

const ended = (context: QueueState, event: WorkerEnd, gate: Gate) => {
  const { id, verdict } = verdictOf(event);
  return { step: settleAndPump(context, id, verdict, gate), stopped: event.actorId };
};

const received = (context: QueueState, task: OffloadTask, gate: Gate) => {
  const line = lineUp(context.line, task);
  const step = pump({ ...context, line }, gate);
  return { step };
};

export const offloadQueue = setup({
  types: {
    input: {} as QueueSetup,
    context: {} as QueueState,
    events: {} as QueueEvent,
    emitted: {} as QueueFact,
    meta: {} as StateMeta,
  },
  actors: {
    taskSource: unprovidedSource<QueueCommand, { queue: string }>("taskSource"),
    worker: taskWorker,
  },
  actions: {
    apply: enqueueActions(({ enqueue, context }, { step, stopped }: { step: Step; stopped?: string }) => {
      if (stopped !== undefined) enqueue.stopChild(stopped);
      const { patch, commands, started, facts } = step;
      enqueue.assign({ ...context, ...patch });
      for (const command of commands) enqueue.sendTo("taskSource", command);
      for (const fact of facts) enqueue.emit(fact);
      for (const task of started) enqueue.spawnChild("worker", { id: `worker:${task.id}`, input: { task } });
    }),
    stopWorkers: enqueueActions(({ enqueue, context }) => {
      for (const id of Object.keys(context.running)) enqueue.sendTo(`worker:${id}`, { type: "shutdown.requested" });
    }),
    lineUpTask: assign(({ context }, { task }: { task: OffloadTask }) => ({ line: lineUp(context.line, task) })),
    noteStored: enqueueActions(({ enqueue, context }, { cluster, name }: { cluster: string; name: string }) => {
      enqueue.assign({
        frontiers: { ...context.frontiers, [cluster]: withStored(frontierOf(context, cluster), name) },
      });
    }),
    noteListed: enqueueActions(
      ({ enqueue, context }, listing: { cluster: string; missing: string[]; held: string[] }) => {
        const moved = advance(
          context,
          listing.cluster,
          fromListing(frontierOf(context, listing.cluster), listing.missing, listing.held),
        );
        enqueue.assign(moved.patch);
        for (const fact of moved.facts) enqueue.emit(fact);
      },
    ),
    noteListing: assign(({ context }, { cluster }: { cluster: string }) => ({
      frontiers: { ...context.frontiers, [cluster]: listingBegun(frontierOf(context, cluster)) },
    })),
    noteRestored: assign(({ context }, { cluster, at }: { cluster: string; at: string }) => ({
      frontiers: { ...context.frontiers, [cluster]: { ...frontierOf(context, cluster), at } },
    })),
    /** The queue lost its streams: what waits is no longer in it; what runs is finished. */
    forgetWaiting: assign({ line: emptyLine }),
    startCanary: enqueueActions(({ enqueue, context }) => {
      const { patch, commands, started } = pump(context, oneOnly);
      enqueue.assign({ ...context, ...patch, canary: String(started[0]?.id ?? "") });
      for (const command of commands) enqueue.sendTo("taskSource", command);
      for (const task of started) enqueue.spawnChild("worker", { id: `worker:${task.id}`, input: { task } });
    }),
    countOutage: assign({ outages: ({ context }) => context.outages + 1, canary: "" }),
    emitPaused: emit(
      ({ context: { name, code, reason } }) => ({ type: "queue.paused", queue: name, code, reason }) as const,
    ),
    emitResumed: emit(
      ({ context: { name } }) => ({ type: "queue.resumed", queue: name, code: "", reason: "" }) as const,
    ),
  },
  guards: {
    isOutage: ({ context }, { id, verdict }: { id: string; verdict: TaskVerdict }) =>
      verdict.kind === "failed" && verdict.scope === "tier" && blameOf(context, id).count < BLAME_LIMIT,
    isSuccess: (_, { verdict }: { verdict: TaskVerdict }) => verdict.kind === "done",
    isProbe: ({ context }, { id }: { id: string }) => context.canary === "" || context.canary === id,
    isOutageOfProbe: ({ context }, { id, verdict }: { id: string; verdict: TaskVerdict }) =>
      (context.canary === "" || context.canary === id) && verdict.kind === "failed" && verdict.scope === "tier",
    hasWaiting: ({ context }) => context.line.turns.length > 0,
    hasNothingToProbe: ({ context }) => context.canary === "" && Object.keys(context.running).length === 0,
    isWorker: (_, { actorId }: { actorId: string }) => actorId.startsWith("worker:"),
    isIdle: ({ context }) => Object.keys(context.running).length === 0,
  },
  delays: {
    probe: ({ context: { limits, outages, spread } }) =>
      backoffMs({ firstMs: limits.probe.firstMs, factor: 2, limitMs: limits.probe.limitMs }, outages, spread),
  },
}).createMachine({
  id: "offloadQueue",
  context: ({ input }) => ({
    ...input,
    line: emptyLine,
    running: {},
    canary: "",
    outages: 0,
    successes: 0,
    blamed: {},
    frontiers: {},
    code: "",
    reason: "",
  }),
  initial: "open",
  states: {
    open: {
      invoke: { id: "taskSource", src: "taskSource", input: ({ context }) => ({ queue: context.name }) },
      initial: "pulling",
      on: {
        "shutdown.requested": ".draining",
        "wal.stored": { actions: { type: "noteStored", params: ({ event }) => event } },
        "cluster.listing": { actions: { type: "noteListing", params: ({ event }) => event } },
        "cluster.listed": { actions: { type: "noteListed", params: ({ event }) => event } },
        "frontier.restored": { actions: { type: "noteRestored", params: ({ event }) => event } },
        "tasks.forgotten": { actions: "forgetWaiting" },
      },
      states: {
        pulling: {
          meta: { description: "takes tasks and works on them" },
          entry: { type: "apply", params: ({ context }) => ({ step: pump(context, open) }) },
          on: {
            "task.received": {
              actions: { type: "apply", params: ({ context, event }) => received(context, event.task, open) },
            },
            "xstate.done.actor.*": [
              {
                guard: { type: "isOutage", params: ({ event }) => verdictOf(event) },
                target: "paused",
                actions: [{ type: "apply", params: ({ context, event }) => ended(context, event, shut) }, "emitPaused"],
              },
              {
                actions: [{ type: "apply", params: ({ context, event }) => ended(context, event, open) }],
              },
            ],
            "xstate.error.actor.*": {
              guard: { type: "isWorker", params: ({ event }) => event },
              actions: [{ type: "apply", params: ({ context, event }) => ended(context, event, open) }],
            },
          },
        },
        paused: {
          meta: { description: "tier 2 is unreachable: waits before it is tried again" },
          entry: "countOutage",
          after: {
            probe: [
              { guard: "hasWaiting", target: "probing" },
              { target: "pulling", actions: "emitResumed" },
            ],
          },
          on: {
            "task.received": { actions: { type: "lineUpTask", params: ({ event }) => event } },
            "xstate.done.actor.*": [
              {
                guard: { type: "isSuccess", params: ({ event }) => verdictOf(event) },
                target: "pulling",
                actions: [
                  { type: "apply", params: ({ context, event }) => ended(context, event, shut) },
                  "emitResumed",
                ],
              },
              {
                actions: [{ type: "apply", params: ({ context, event }) => ended(context, event, shut) }],
              },
            ],
            "xstate.error.actor.*": {
              guard: { type: "isWorker", params: ({ event }) => event },
              actions: [{ type: "apply", params: ({ context, event }) => ended(context, event, shut) }],
            },
          },
        },
        probing: {
          meta: { description: "one task tries whether tier 2 is back" },
          entry: "startCanary",
          always: { guard: "hasNothingToProbe", target: "pulling", actions: "emitResumed" },
          on: {
            "task.received": { actions: { type: "lineUpTask", params: ({ event }) => event } },
            "xstate.done.actor.*": [
              {
                guard: { type: "isSuccess", params: ({ event }) => verdictOf(event) },
                target: "pulling",
                actions: [
                  { type: "apply", params: ({ context, event }) => ended(context, event, shut) },
                  "emitResumed",
                ],
              },
              {
                guard: { type: "isOutageOfProbe", params: ({ event }) => verdictOf(event) },
                target: "paused",
                actions: [{ type: "apply", params: ({ context, event }) => ended(context, event, shut) }],
              },
              {
                // The task itself failed, which says nothing about tier 2: another one is tried.
                guard: { type: "isProbe", params: ({ event }) => verdictOf(event) },
                target: "probing",
                reenter: true,
                actions: [{ type: "apply", params: ({ context, event }) => ended(context, event, shut) }],
              },
              {
                actions: [{ type: "apply", params: ({ context, event }) => ended(context, event, shut) }],
              },
            ],
            "xstate.error.actor.*": {
              guard: { type: "isWorker", params: ({ event }) => event },
              target: "probing",
              reenter: true,
              actions: [{ type: "apply", params: ({ context, event }) => ended(context, event, shut) }],
            },
          },
        },
        draining: {
          meta: { description: "the running workers are told to stop" },
          entry: [{ type: "apply", params: ({ context }) => ({ step: pump(context, shut) }) }, "stopWorkers"],
          always: { guard: "isIdle", target: "#offloadQueue.closed" },
          on: {
            "shutdown.requested": {},
            "xstate.done.actor.*": {
              actions: [{ type: "apply", params: ({ context, event }) => ended(context, event, shut) }],
            },
            "xstate.error.actor.*": {
              guard: { type: "isWorker", params: ({ event }) => event },
              actions: [{ type: "apply", params: ({ context, event }) => ended(context, event, shut) }],
            },
          },
        },
      },
    },
    closed: { type: "final" },
  },
});
