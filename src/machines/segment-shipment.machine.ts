// One WAL segment on its way from the source to the server. The bytes do not come by here: the actor carries them.
//   H1. `shipped` is entered only when the server confirmed the whole segment, `parted` only when it confirmed all bytes of
//       a segment that the source left unfinished (end of a timeline, drain).
//   H2. A server that does not answer within `confirmLimitMs` after the last byte makes it `interrupted`.
//   H3. It ends with exactly one output, whatever the actor tells afterwards.
import { assign, setup } from "xstate";
import type { Failure } from "../domain/outcome.ts";
import type { StateMeta } from "../telemetry/state-telemetry.ts";
import { unprovidedSource } from "./unprovided.ts";

export type ShipMethod = "stream" | "put";
export type ShipmentInput = {
  cluster: string;
  name: string;
  segmentBytes: number;
  /** Raw offset of the first byte that is sent. */
  fromOffset: number;
  method: ShipMethod;
  sendToTier2: boolean;
  confirmLimitMs: number;
};
/** `unimplemented`: the server is an older one and knows `Put` only; nothing was stored. */
export type ShipmentEnd = { kind: "shipped" | "parted" | "unimplemented" } | Failure;
export type ShipmentEvent =
  | { type: "shipment.begun" }
  | { type: "shipment.finished" }
  | { type: "shipment.ended"; end: ShipmentEnd }
  | { type: "shutdown.requested" };

const unanswered: Failure = {
  kind: "retryable",
  code: "KLIO-SERVER-DOWN",
  reason: "the server did not confirm the segment in time",
};
const cancelled: Failure = { kind: "retryable", code: "KLIO-CANCELLED", reason: "the segment's upload was stopped" };

export const segmentShipment = setup({
  types: {
    input: {} as ShipmentInput,
    context: {} as ShipmentInput & { end: ShipmentEnd; reason: string },
    events: {} as ShipmentEvent,
    output: {} as { name: string; end: ShipmentEnd },
    meta: {} as StateMeta,
  },
  actors: {
    shipSegment: unprovidedSource<{ type: "shutdown.requested" }, ShipmentInput>("shipSegment"),
  },
  actions: {
    keepEnd: assign((_, { end }: { end: ShipmentEnd }) => ({ end, reason: "reason" in end ? end.reason : "" })),
  },
  guards: {
    isShipped: (_, { end }: { end: ShipmentEnd }) => end.kind === "shipped",
    isParted: (_, { end }: { end: ShipmentEnd }) => end.kind === "parted",
    isRefused: (_, { end }: { end: ShipmentEnd }) => end.kind === "fatal",
  },
  delays: { confirmLimit: ({ context }) => context.confirmLimitMs },
}).createMachine({
  id: "segmentShipment",
  context: ({ input }) => ({ ...input, end: cancelled, reason: "" }),
  meta: {
    telemetry: {
      span: "manage_wal_stream",
      tracer: "klio.wal_client",
      newTrace: true,
      attributes: { cluster_name: "cluster", wal_name: "name" },
    },
  },
  initial: "active",
  output: ({ context: { name, end } }) => ({ name, end }),
  states: {
    active: {
      initial: "opening",
      invoke: { id: "shipSegment", src: "shipSegment", input: ({ context: { end, reason, ...input } }) => input },
      on: {
        "shipment.ended": [
          {
            guard: { type: "isShipped", params: ({ event }) => event },
            target: "shipped",
            actions: { type: "keepEnd", params: ({ event }) => event },
          },
          {
            guard: { type: "isParted", params: ({ event }) => event },
            target: "parted",
            actions: { type: "keepEnd", params: ({ event }) => event },
          },
          {
            guard: { type: "isRefused", params: ({ event }) => event },
            target: "refused",
            actions: { type: "keepEnd", params: ({ event }) => event },
          },
          { target: "interrupted", actions: { type: "keepEnd", params: ({ event }) => event } },
        ],
        "shutdown.requested": { target: "interrupted", actions: { type: "keepEnd", params: { end: cancelled } } },
      },
      states: {
        opening: {
          meta: { description: "the call is made; no byte was sent yet" },
          on: { "shipment.begun": "shipping", "shipment.finished": "confirming" },
        },
        shipping: {
          meta: { description: "blocks go out as they come from the source" },
          on: { "shipment.finished": "confirming" },
        },
        confirming: {
          meta: { description: "all bytes are sent; the server has yet to confirm the last of them" },
          after: {
            confirmLimit: {
              target: "#segmentShipment.interrupted",
              actions: { type: "keepEnd", params: { end: unanswered } },
            },
          },
        },
      },
    },
    shipped: {
      type: "final",
      meta: { description: "complete and durable on the server", telemetry: { outcome: "ok" } },
    },
    parted: {
      type: "final",
      meta: { description: "unfinished, and durable as far as it goes", telemetry: { outcome: "ok" } },
    },
    interrupted: {
      type: "final",
      meta: { description: "sent again after the next connection", telemetry: { event: "interrupted" } },
    },
    refused: {
      type: "final",
      meta: {
        description: "the server will not have these bytes",
        telemetry: { outcome: "error", reason: "reason" },
      },
    },
  },
});
