// One WAL file that a client sends to the server, from its first block to its final name.
//   I1. `wal.stored` is emitted only after the file was sealed: all its bytes, its name and its directory are durable.
//   I2. A file is sealed only when all its bytes have come.
//   I3. Bytes that stay unfinished are told by `wal.interrupted`, whatever ended them, so that they reach tier 2, too.
//   I4. A stop lets what has come become durable, and confirmed, before the file is left.
import { assign, emit, setup } from "xstate";
import type { FactOf } from "../domain/facts.ts";
import type { Failure } from "../domain/outcome.ts";
import type { StateMeta } from "../telemetry/state-telemetry.ts";
import { unprovided } from "./unprovided.ts";

export type WalIngestInput = {
  /** Names the call among those of this process. */
  call: string;
  cluster: string;
  /** Without `.partial`. */
  name: string;
  /** Of the client's span, or empty. */
  traceparent: string;
};
/** `rawBytes`: durable ones of the file. `sendToTier2`: as the client said last. */
type Received = { kind: "ok"; isWhole: boolean; rawBytes: number; sendToTier2: boolean };
/** A failure may leave bytes behind that are durable. */
type ReceiveFailure = Failure & { rawBytes: number; sendToTier2: boolean };
export type ReceiveOutcome = Received | ReceiveFailure;
export type SealOutcome = { kind: "ok" } | Failure;

export type WalInterrupted = {
  type: "wal.interrupted";
  cluster: string;
  /** As stored, with `.partial`. */
  name: string;
  rawBytes: number;
  sendToTier2: boolean;
  traceparent?: string;
};
export type WalIngestOutput =
  | { kind: "stored" | "partial" | "stopped"; rawBytes: number }
  | (Failure & { rawBytes: number });

type Context = WalIngestInput & {
  rawBytes: number;
  sendToTier2: boolean;
  ending: "stored" | "partial" | "stopped" | Failure;
  reason: string;
};

const stop: Context["ending"] = "stopped";
const callInput = ({ context: { call } }: { context: Context }) => ({ call });
const isOk = (outcome: { kind: string }) => outcome.kind === "ok";

export const walIngest = setup({
  types: {
    input: {} as WalIngestInput,
    context: {} as Context,
    events: {} as { type: "shutdown.requested" },
    emitted: {} as FactOf<"wal.stored"> | WalInterrupted,
    output: {} as WalIngestOutput,
    meta: {} as StateMeta,
  },
  actors: {
    receiveWal: unprovided<ReceiveOutcome, { call: string }>("receiveWal"),
    sealWal: unprovided<SealOutcome, { call: string }>("sealWal"),
    drainWal: unprovided<ReceiveOutcome, { call: string }>("drainWal"),
  },
  actions: {
    keepReceived: assign((_, { rawBytes, sendToTier2 }: ReceiveOutcome) => ({ rawBytes, sendToTier2 })),
    endAs: assign((_, { ending }: { ending: Context["ending"] }) => ({
      ending,
      reason: typeof ending === "string" ? "" : `${ending.code}: ${ending.reason}`,
    })),
    keepFailure: assign((_, outcome: ReceiveOutcome | SealOutcome) =>
      outcome.kind === "ok"
        ? {}
        : {
            ending: { kind: outcome.kind, code: outcome.code, reason: outcome.reason },
            reason: `${outcome.code}: ${outcome.reason}`,
          },
    ),
    emitStored: emit(({ context: { cluster, name, rawBytes, sendToTier2, traceparent } }) => ({
      type: "wal.stored" as const,
      cluster,
      name,
      rawBytes,
      sendToTier2,
      ...(traceparent !== "" && { traceparent }),
    })),
    emitInterrupted: emit(({ context: { cluster, name, rawBytes, sendToTier2, traceparent } }) => ({
      type: "wal.interrupted" as const,
      cluster,
      name: `${name}.partial`,
      rawBytes,
      sendToTier2,
      ...(traceparent !== "" && { traceparent }),
    })),
  },
  guards: {
    isWhole: (_, outcome: ReceiveOutcome) => outcome.kind === "ok" && outcome.isWhole, // I2
    isEarly: (_, outcome: ReceiveOutcome) => isOk(outcome),
    isSealed: (_, outcome: SealOutcome) => isOk(outcome),
    hasBytes: ({ context }) => context.rawBytes > 0,
    hasFailed: ({ context }) => typeof context.ending !== "string",
    isRefusal: ({ context }) => typeof context.ending !== "string" && context.ending.kind === "fatal",
  },
}).createMachine({
  id: "walIngest",
  context: ({ input }) => ({ ...input, rawBytes: 0, sendToTier2: false, ending: stop, reason: "" }),
  meta: {
    telemetry: {
      span: "put_wal",
      tracer: "klio.wal_server",
      parentFrom: "traceparent",
      attributes: { cluster_name: "cluster", wal_name: "name" },
    },
  },
  initial: "receiving",
  output: ({ context: { ending, rawBytes } }): WalIngestOutput =>
    typeof ending === "string" ? { kind: ending, rawBytes } : { ...ending, rawBytes },
  states: {
    receiving: {
      meta: { description: "blocks are checked, sealed, written and confirmed as they come" },
      on: { "shutdown.requested": "draining" },
      invoke: {
        id: "receiveWal",
        src: "receiveWal",
        input: callInput,
        onDone: [
          {
            guard: { type: "isWhole", params: ({ event }) => event.output },
            target: "sealing",
            actions: { type: "keepReceived", params: ({ event }) => event.output },
          },
          {
            guard: { type: "isEarly", params: ({ event }) => event.output },
            target: "leaving",
            actions: [
              { type: "keepReceived", params: ({ event }) => event.output },
              { type: "endAs", params: { ending: "partial" } },
            ],
          },
          {
            target: "leaving",
            actions: [
              { type: "keepReceived", params: ({ event }) => event.output },
              { type: "keepFailure", params: ({ event }) => event.output },
            ],
          },
        ],
      },
    },
    draining: {
      meta: { description: "the server stops: what has come becomes durable and is confirmed" }, // I4
      invoke: {
        id: "drainWal",
        src: "drainWal",
        input: callInput,
        onDone: [
          {
            guard: { type: "isWhole", params: ({ event }) => event.output },
            target: "sealing",
            actions: { type: "keepReceived", params: ({ event }) => event.output },
          },
          {
            target: "leaving",
            actions: [
              { type: "keepReceived", params: ({ event }) => event.output },
              { type: "keepFailure", params: ({ event }) => event.output },
            ],
          },
        ],
      },
    },
    sealing: {
      meta: { description: "footer, final name and directory become durable" },
      invoke: {
        id: "sealWal",
        src: "sealWal",
        input: callInput,
        onDone: [
          {
            guard: { type: "isSealed", params: ({ event }) => event.output },
            target: "stored",
            actions: { type: "endAs", params: { ending: "stored" } },
          },
          { target: "leaving", actions: { type: "keepFailure", params: ({ event }) => event.output } },
        ],
      },
    },
    leaving: {
      always: [{ guard: "hasBytes", target: "judging", actions: "emitInterrupted" }, { target: "judging" }], // I3
    },
    judging: {
      always: [
        { guard: "isRefusal", target: "refused" },
        { guard: "hasFailed", target: "failed" },
        { guard: "hasBytes", target: "partial" },
        { target: "empty" },
      ],
    },
    stored: { type: "final", meta: { telemetry: { outcome: "ok" } }, entry: "emitStored" }, // I1
    partial: { type: "final", meta: { description: "left unfinished", telemetry: { outcome: "cancelled" } } },
    empty: { type: "final", meta: { description: "left before a byte came", telemetry: { outcome: "cancelled" } } },
    refused: {
      type: "final",
      meta: { description: "only the sender can help", telemetry: { outcome: "error", reason: "reason" } },
    },
    failed: {
      type: "final",
      meta: { description: "the sender tries again", telemetry: { outcome: "error", reason: "reason" } },
    },
  },
});
