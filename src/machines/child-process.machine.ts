// A long-lived child process (nats-server, a Kopia server): started, watched, started again when it ends.
//   C1. An unexpected end leads to a new start after a wait of `firstMs * 2 ** (n - 1)`, at most `limitMs`, n counting
//       the ends since the child was last ready for `stableMs`.
//   C2. `failed` is entered only when the child cannot be started at all (a fatal outcome); it is never restarted then.
//   C3. After `shutdown.requested` no further child is started.
import { assign, emit, setup } from "xstate";
import type { StateMeta } from "../telemetry/state-telemetry.ts";
import { unprovidedSource } from "./unprovided.ts";

export type ChildInput = { name: string; firstMs: number; limitMs: number; stableMs: number };
export type ChildEvent =
  | { type: "child.ready"; pid: number }
  | { type: "child.ended"; reason: string }
  | { type: "child.refused"; reason: string }
  | { type: "child.stopped" }
  | { type: "shutdown.requested" };
export type ChildFact = { type: "child.restarted" | "child.failed" | "child.ready"; name: string; reason: string };

export const childProcess = setup({
  types: {
    input: {} as ChildInput,
    context: {} as ChildInput & { ends: number; pid: number; reason: string },
    events: {} as ChildEvent,
    emitted: {} as ChildFact,
    meta: {} as StateMeta,
  },
  actors: { runChild: unprovidedSource<{ type: "shutdown.requested" }, { name: string }>("runChild") },
  actions: {
    keepPid: assign({ pid: (_, { pid }: { pid: number }) => pid }),
    countEnd: assign({
      ends: ({ context }) => context.ends + 1,
      pid: 0,
      reason: (_, { reason }: { reason: string }) => reason,
    }),
    keepReason: assign({ reason: (_, { reason }: { reason: string }) => reason }),
    forgetEnds: assign({ ends: 0 }),
    emitFact: emit(({ context: { name, reason } }, { type }: Pick<ChildFact, "type">) => ({ type, name, reason })),
  },
  delays: {
    backoff: ({ context }) => Math.min(context.limitMs, context.firstMs * 2 ** Math.max(0, context.ends - 1)),
    stable: ({ context }) => context.stableMs,
  },
}).createMachine({
  id: "childProcess",
  context: ({ input }) => ({ ...input, ends: 0, pid: 0, reason: "" }),
  initial: "running",
  states: {
    running: {
      invoke: { id: "runChild", src: "runChild", input: ({ context }) => ({ name: context.name }) },
      initial: "starting",
      on: {
        "child.ended": {
          target: "restarting",
          actions: { type: "countEnd", params: ({ event }) => ({ reason: event.reason }) },
        },
        "child.refused": {
          target: "failed",
          actions: { type: "keepReason", params: ({ event }) => ({ reason: event.reason }) },
        },
        "shutdown.requested": "#childProcess.stopped",
      },
      states: {
        starting: {
          meta: { description: "the program was started and is not ready yet" },
          on: {
            "child.ready": {
              target: "ready",
              actions: [
                { type: "keepPid", params: ({ event }) => ({ pid: event.pid }) },
                { type: "emitFact", params: { type: "child.ready" } },
              ],
            },
          },
        },
        ready: {
          meta: { description: "serving" },
          after: { stable: { actions: "forgetEnds" } },
        },
      },
    },
    restarting: {
      meta: { description: "waiting before the next start" },
      entry: { type: "emitFact", params: { type: "child.restarted" } },
      after: { backoff: "running" },
      on: { "shutdown.requested": "stopped" },
    },
    failed: { type: "final", entry: { type: "emitFact", params: { type: "child.failed" } } },
    stopped: { type: "final" },
  },
});
