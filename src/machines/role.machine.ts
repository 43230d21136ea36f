// The life of a process: open its parts, serve, close them in order.
//   L1. `shutdown.requested` in any state before `stopped` leads to `stopped` through `draining`, once.
//   L2. A failed start is drained like a served one: what was opened is closed, and the failure is the output.
//   L3. Draining takes at most `drainLimitMs`; what is not closed by then is left behind and told as `drained: false`.
//   L4. A part that fails for good ends the role with that failure; it is never served around.
import { assign, setup } from "xstate";
import type { Failure, Outcome } from "../domain/outcome.ts";
import type { StateMeta } from "../telemetry/state-telemetry.ts";
import { unprovided } from "./unprovided.ts";

export type RoleInput = { name: string; drainLimitMs: number };
export type RoleOutput = { failure: Failure | null; drained: boolean };

export const role = setup({
  types: {
    input: {} as RoleInput,
    context: {} as RoleInput & RoleOutput,
    events: {} as { type: "shutdown.requested" },
    output: {} as RoleOutput,
    meta: {} as StateMeta,
  },
  actors: {
    openParts: unprovided<Outcome<null>, null>("openParts"),
    watchParts: unprovided<Failure, null>("watchParts"),
    closeParts: unprovided<null, null>("closeParts"),
  },
  actions: {
    keepFailure: assign({ failure: (_, end: Outcome<null>) => (end.kind === "ok" ? null : end) }),
    tellDrained: assign({ drained: true }),
  },
  guards: { isOpen: (_, outcome: Outcome<null>) => outcome.kind === "ok" },
  delays: { drainLimit: ({ context }) => context.drainLimitMs },
}).createMachine({
  id: "role",
  context: ({ input }) => ({ ...input, failure: null, drained: false }),
  initial: "starting",
  output: ({ context: { failure, drained } }) => ({ failure, drained }),
  states: {
    starting: {
      meta: { description: "parts are opened in their order; nothing is served before all of them are" },
      invoke: {
        id: "openParts",
        src: "openParts",
        input: null,
        onDone: [
          { guard: { type: "isOpen", params: ({ event }) => event.output }, target: "serving" },
          { target: "draining", actions: { type: "keepFailure", params: ({ event }) => event.output } },
        ],
      },
      on: { "shutdown.requested": "draining" },
    },
    serving: {
      meta: { description: "all parts are open" },
      invoke: {
        id: "watchParts",
        src: "watchParts",
        input: null,
        onDone: { target: "draining", actions: { type: "keepFailure", params: ({ event }) => event.output } },
      },
      on: { "shutdown.requested": "draining" },
    },
    draining: {
      meta: { description: "parts are closed in reverse order; work in hand is finished first" },
      invoke: {
        id: "closeParts",
        src: "closeParts",
        input: null,
        onDone: { target: "stopped", actions: "tellDrained" },
      },
      after: { drainLimit: "stopped" },
    },
    stopped: { type: "final" },
  },
});
