// One WAL file that the server hands out, to a restore or to whoever may read it.
//   GW1. `served` is entered only when all of the file was taken.
//   GW2. A file that is not there is no failure: a recovery asks on until there is no further one.
import { assign, setup } from "xstate";
import type { TierName } from "../domain/snapshots.ts";
import type { StateMeta } from "../telemetry/state-telemetry.ts";

export type WalServingInput = {
  cluster: string;
  name: string;
  tier: TierName;
  /** Of the client's span, or empty. */
  traceparent: string;
};
export type WalServingEvent =
  | { type: "file.served" | "file.missing" | "shutdown.requested" }
  | { type: "reading.failed"; reason: string };

export const walServing = setup({
  types: {
    input: {} as WalServingInput,
    context: {} as WalServingInput & { reason: string },
    events: {} as WalServingEvent,
    meta: {} as StateMeta,
  },
  actions: { keepReason: assign((_, { reason }: { reason: string }) => ({ reason })) },
}).createMachine({
  id: "walServing",
  context: ({ input }) => ({ ...input, reason: "" }),
  meta: {
    telemetry: {
      span: "get_wal",
      tracer: "klio.wal_server",
      parentFrom: "traceparent",
      attributes: { cluster_name: "cluster", wal_name: "name", tier: "tier" },
    },
  },
  initial: "serving",
  states: {
    serving: {
      meta: { description: "the file is looked up, read, and taken by the caller" },
      on: {
        "file.served": "served",
        "file.missing": "missing",
        "reading.failed": {
          target: "failed",
          actions: { type: "keepReason", params: ({ event }) => ({ reason: event.reason }) },
        },
        "shutdown.requested": "withdrawn",
      },
    },
    served: { type: "final", meta: { telemetry: { outcome: "ok" } } }, // GW1
    missing: {
      type: "final",
      meta: { description: "the tier does not have it", telemetry: { event: "wal.missing", outcome: "ok" } }, // GW2
    },
    failed: { type: "final", meta: { telemetry: { outcome: "error", reason: "reason" } } },
    withdrawn: {
      type: "final",
      meta: { description: "the caller took no more", telemetry: { outcome: "cancelled" } },
    },
  },
});
