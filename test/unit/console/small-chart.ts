// A machine in small for the console's tests: nesting, regions, a guard, a delay, an actor, a loop and a final state.
import { assign, fromPromise, setup } from "xstate";
import type { StateMeta } from "../../../src/telemetry/state-telemetry.ts";

export const small = setup({
  types: {
    input: {} as { cluster: string },
    context: {} as { cluster: string; bytes: number; reason: string; password: string; task: { code: string } },
    events: {} as
      | { type: "go"; bytes: number }
      | { type: "tick" }
      | { type: "left.done" }
      | { type: "stop" }
      | { type: "unheard" },
    meta: {} as StateMeta,
  },
  actors: { work: fromPromise(() => Promise.withResolvers<null>().promise) },
  actions: {
    keep: assign({ bytes: (_, bytes: number) => bytes }),
    count: assign({ bytes: ({ context }) => context.bytes + 1 }),
  },
  guards: { isLarge: (_, bytes: number) => bytes > 100 },
  delays: { patience: 1_000 },
}).createMachine({
  id: "small",
  context: ({ input: { cluster } }) => ({
    cluster,
    bytes: 0,
    reason: "",
    password: "hunter2",
    task: { code: "hunter2" },
  }),
  initial: "idle",
  on: { stop: ".stopped" },
  states: {
    idle: {
      meta: { description: "nothing to do" },
      on: {
        go: [
          {
            guard: { type: "isLarge", params: ({ event }) => event.bytes },
            target: "judging",
            actions: { type: "keep", params: ({ event }) => event.bytes },
          },
          { target: "judging" },
        ],
      },
    },
    judging: { always: "busy" },
    busy: {
      meta: { telemetry: { span: "work", tracer: "klio.backup" } },
      type: "parallel",
      invoke: { id: "work", src: "work", input: null, onDone: "idle" },
      after: { patience: "idle" },
      on: { tick: { actions: "count" } },
      onDone: "stopped",
      states: {
        left: { initial: "on", states: { on: { on: { "left.done": "off" } }, off: { type: "final" } } },
        right: { initial: "on", states: { on: {} } },
      },
    },
    stopped: { type: "final" },
  },
});
