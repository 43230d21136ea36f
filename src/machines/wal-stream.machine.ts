// The WAL of one source cluster on its way to the server, from the connection to the last confirmed byte.
//   W1. WAL is asked for only after source, slot and server were asked where to begin, in this order, on every connection.
//   W2. All timeline histories that the server lacks are stored before WAL of the timeline they lead to is sent.
//   W3. A fatal failure blocks: nothing is sent, and the cause is looked at again every `blockedRecheckMs`, no sooner.
//   W4. The wait after the n-th failure in a row is `backoffMs(policy, n, spread)`; only a confirmed byte begins anew.
//   W5. After `shutdown.requested` while WAL flows, what was received is confirmed before the end, within `drainLimitMs`.
//   W6. A shipment that ends unconfirmed ends the connection, and all other shipments with it.
//   W7. A server without `Stream` is asked again at once, and from then on gets whole files by `Put`.
//   W8. WAL that PostgreSQL removed unsent is given up only where `gapPolicy` says so, at most once until a byte is confirmed,
//       and only after the server has recorded the gap; else it blocks.
import { assign, emit, enqueueActions, setup } from "xstate";
import { backoffMs } from "../domain/backoff.ts";
import type { Failure, Outcome } from "../domain/outcome.ts";
import type { StateMeta } from "../telemetry/state-telemetry.ts";
import { segmentShipment } from "./segment-shipment.machine.ts";
import { unprovided, unprovidedSource } from "./unprovided.ts";
import {
  endOf,
  type FailureFact,
  failureOf,
  identityOf,
  initialContext,
  mayRecordGap,
  type Negotiation,
  type RecordedGap,
  type ShipmentDone,
  type SlotPosition,
  type SourceIdentity,
  type StartPosition,
  type StreamInput,
  startedFact,
  startingAt,
  switchedFact,
  type WalStreamContext,
  type WalStreamEvent,
  type WalStreamFact,
  type WalStreamInput,
} from "./wal-stream-events.ts";

const failed = <T>(outcome: Outcome<T>) => ({ failure: outcome.kind === "ok" ? null : outcome });

export const walStream = setup({
  types: {
    input: {} as WalStreamInput,
    context: {} as WalStreamContext,
    events: {} as WalStreamEvent,
    emitted: {} as WalStreamFact,
    meta: {} as StateMeta,
  },
  actors: {
    holdSource: unprovidedSource<{ type: "shutdown.requested" }, { slot: string }>("holdSource"),
    identifySystem: unprovided<Outcome<SourceIdentity>, null>("identifySystem"),
    recordGap: unprovided<Outcome<RecordedGap>, { slot: string } & SourceIdentity>("recordGap"),
    secureSlot: unprovided<Outcome<SlotPosition>, { slot: string }>("secureSlot"),
    negotiateStart: unprovided<Outcome<StartPosition>, Negotiation>("negotiateStart"),
    fetchHistory: unprovided<Outcome<null>, { timeline: number }>("fetchHistory"),
    streamWal: unprovidedSource<{ type: "shutdown.requested" }, StreamInput>("streamWal"),
    segmentShipment,
  },
  actions: {
    keepIdentity: assign((_, outcome: Outcome<SourceIdentity>) => (outcome.kind === "ok" ? outcome.value : {})),
    keepSlot: assign((_, outcome: Outcome<SlotPosition>) =>
      outcome.kind === "ok" ? { restartLsn: outcome.value.restartLsn } : {},
    ),
    keepStart: assign(({ context }, outcome: Outcome<StartPosition>) =>
      outcome.kind === "ok" ? startingAt(outcome.value, context.timeline) : {},
    ),
    keepSwitch: assign(({ context }, { timeline, startLsn }: { timeline: number; startLsn: string }) =>
      startingAt({ timeline, startLsn, abandonedBytes: 0 }, Math.max(timeline, context.timeline)),
    ),
    demandGap: assign({ isGapDue: true }),
    keepGap: assign({ isGapDue: false, isGapRecorded: true }),
    forgetGap: assign({ isGapDue: false }),
    nextHistory: assign(({ context }) => ({
      historyTimeline: context.histories[0] ?? 0,
      histories: context.histories.slice(1),
    })),
    keepProgress: assign((_, { flushedLsn }: { flushedLsn: string }) => ({
      flushedLsn,
      attempt: 0,
      code: "",
      reason: "",
      isGapRecorded: false,
    })),
    keepFailure: assign(({ context }, { failure }: { failure: Failure | null }) => ({
      attempt: context.attempt + 1,
      isFatal: failure?.kind === "fatal",
      code: failure?.code ?? "",
      reason: failure?.reason ?? "",
    })),
    usePut: assign({ method: "put" }),
    shipSegment: enqueueActions(({ enqueue, context }, { name, fromOffset }: { name: string; fromOffset: number }) => {
      const { cluster, segmentBytes, method, sendToTier2, confirmLimitMs } = context;
      const input = { cluster, name, segmentBytes, fromOffset, method, sendToTier2, confirmLimitMs };
      enqueue.spawnChild("segmentShipment", { id: `segmentShipment:${name}`, input });
      enqueue.assign({ shipments: [...context.shipments, `segmentShipment:${name}`] });
    }),
    forgetShipment: enqueueActions(({ enqueue, context }, { actorId }: { actorId: string }) => {
      enqueue.stopChild(actorId);
      enqueue.assign({ shipments: context.shipments.filter((id) => id !== actorId) });
    }),
    stopShipments: enqueueActions(({ enqueue, context }) => {
      for (const id of context.shipments) enqueue.stopChild(id);
      enqueue.assign({ shipments: [] });
    }),
    askToDrain: enqueueActions(({ enqueue }) => {
      enqueue.sendTo("streamWal", { type: "shutdown.requested" });
    }),
    emitStarted: emit(({ context }) => startedFact(context)),
    emitSwitched: emit(({ context }) => switchedFact(context)),
    emitGap: emit(({ context: { cluster, code, reason } }, outcome: Outcome<RecordedGap>): WalStreamFact => {
      const gap = outcome.kind === "ok" ? outcome.value : { walName: "", slotDropped: false };
      return { type: "stream.gap", cluster, code, reason, ...gap };
    }),
    emitFailure: emit(({ context: { cluster, code, reason, attempt } }, { type }: { type: FailureFact["type"] }) => {
      return { type, cluster, code, reason, attempt } satisfies FailureFact;
    }),
    emitPlain: emit(
      ({ context: { cluster } }, { type }: { type: "stream.degraded" | "stream.stopped" }) =>
        ({ type, cluster }) satisfies WalStreamFact,
    ),
  },
  guards: {
    isOk: (_, outcome: Outcome<unknown>) => outcome.kind === "ok",
    isFatal: ({ context }) => context.isFatal,
    mayRecordGap: ({ context }) => mayRecordGap(context),
    isNothingRecorded: (_, outcome: Outcome<RecordedGap>) => outcome.kind === "ok" && outcome.value.walName === "",
    isOkWithGapDue: ({ context }, outcome: Outcome<unknown>) => outcome.kind === "ok" && context.isGapDue,
    hasHistory: ({ context }) => context.histories.length > 0,
    isStoredAndMore: ({ context }, outcome: Outcome<null>) => outcome.kind === "ok" && context.histories.length > 0,
    isShipment: (_, done: ShipmentDone) => endOf(done) !== undefined,
    isUnconfirmed: (_, done: ShipmentDone) => failureOf(done).failure !== null,
    isUnimplemented: (_, done: ShipmentDone) => endOf(done)?.kind === "unimplemented",
  },
  delays: {
    /** The spread is given by the composition root, which has the randomness. */
    backoff: ({ context }) => backoffMs(context.backoff, Math.max(1, context.attempt), 1),
    blockedRecheck: ({ context }) => context.blockedRecheckMs,
    drainLimit: ({ context }) => context.drainLimitMs,
  },
}).createMachine({
  id: "walStream",
  context: ({ input }) => initialContext(input),
  initial: "attached",
  states: {
    attached: {
      invoke: { id: "holdSource", src: "holdSource", input: ({ context }) => ({ slot: context.slot }) },
      initial: "connecting",
      on: {
        "source.lost": [
          { target: "#walStream.failing", actions: { type: "keepFailure", params: ({ event }) => event } },
        ],
        "shutdown.requested": "stopped",
      },
      states: {
        connecting: {
          meta: { description: "replication connection to the source, which must have the wanted role" },
          on: { "source.connected": "identifying" },
        },
        identifying: {
          meta: { description: "system identifier, timeline and its history, end of WAL, segment size" },
          invoke: {
            id: "identifySystem",
            src: "identifySystem",
            input: null,
            onDone: [
              {
                guard: { type: "isOkWithGapDue", params: ({ event }) => event.output },
                target: "recordingGap",
                actions: { type: "keepIdentity", params: ({ event }) => event.output },
              },
              {
                guard: { type: "isOk", params: ({ event }) => event.output },
                target: "securingSlot",
                actions: { type: "keepIdentity", params: ({ event }) => event.output },
              },
              {
                target: "#walStream.failing",
                actions: { type: "keepFailure", params: ({ event }) => failed(event.output) },
              },
            ],
          },
        },
        recordingGap: {
          meta: { description: "the server records what PostgreSQL removed unsent; a slot that is lost is dropped" },
          invoke: {
            id: "recordGap",
            src: "recordGap",
            input: ({ context }) => ({ slot: context.slot, ...identityOf(context) }),
            onDone: [
              {
                guard: { type: "isNothingRecorded", params: ({ event }) => event.output },
                target: "securingSlot",
                actions: "forgetGap",
              },
              {
                guard: { type: "isOk", params: ({ event }) => event.output },
                target: "securingSlot",
                actions: ["keepGap", { type: "emitGap", params: ({ event }) => event.output }],
              },
              {
                target: "#walStream.failing",
                actions: { type: "keepFailure", params: ({ event }) => failed(event.output) },
              },
            ],
          },
        },
        securingSlot: {
          meta: { description: "the slot is read, and made with its WAL reserved when it is missing" },
          invoke: {
            id: "secureSlot",
            src: "secureSlot",
            input: ({ context }) => ({ slot: context.slot }),
            onDone: [
              {
                guard: { type: "isOk", params: ({ event }) => event.output },
                target: "negotiating",
                actions: { type: "keepSlot", params: ({ event }) => event.output },
              },
              {
                target: "#walStream.failing",
                actions: { type: "keepFailure", params: ({ event }) => failed(event.output) },
              },
            ],
          },
        },
        negotiating: {
          meta: { description: "the server says behind which byte it wants to go on" },
          invoke: {
            id: "negotiateStart",
            src: "negotiateStart",
            input: ({ context }) => ({ ...identityOf(context), restartLsn: context.restartLsn }),
            onDone: [
              {
                guard: { type: "isOk", params: ({ event }) => event.output },
                target: "collectingHistories",
                actions: { type: "keepStart", params: ({ event }) => event.output },
              },
              {
                target: "#walStream.failing",
                actions: { type: "keepFailure", params: ({ event }) => failed(event.output) },
              },
            ],
          },
        },
        collectingHistories: {
          meta: { description: "which timeline histories come before the stream" },
          always: [{ guard: "hasHistory", target: "fetchingHistory", actions: "nextHistory" }, { target: "streaming" }],
        },
        fetchingHistory: {
          meta: {
            description: "one timeline history from the source to the server, unless it is there",
            telemetry: {
              span: "download_history_file",
              tracer: "klio.wal_client",
              attributes: { timeline: "historyTimeline" },
            },
          },
          invoke: {
            id: "fetchHistory",
            src: "fetchHistory",
            input: ({ context }) => ({ timeline: context.historyTimeline }),
            onDone: [
              {
                guard: { type: "isStoredAndMore", params: ({ event }) => event.output },
                target: "fetchingHistory",
                reenter: true,
                actions: "nextHistory",
              },
              { guard: { type: "isOk", params: ({ event }) => event.output }, target: "streaming" },
              {
                target: "#walStream.failing",
                actions: { type: "keepFailure", params: ({ event }) => failed(event.output) },
              },
            ],
          },
        },
        streaming: {
          entry: "emitStarted",
          exit: "stopShipments",
          invoke: {
            id: "streamWal",
            src: "streamWal",
            input: ({ context: { streamTimeline, startLsn, flushLsn, segmentBytes, slot, method } }) => ({
              timeline: streamTimeline,
              startLsn,
              flushLsn,
              segmentBytes,
              slot,
              method,
            }),
          },
          initial: "flowing",
          on: {
            "segment.opened": { actions: { type: "shipSegment", params: ({ event }) => event } },
            "stream.progressed": { actions: { type: "keepProgress", params: ({ event }) => event } },
            "stream.ended": [
              { target: "#walStream.failing", actions: { type: "keepFailure", params: ({ event }) => event } },
            ],
            "xstate.done.actor.*": [
              {
                guard: { type: "isUnimplemented", params: ({ event }) => event },
                target: "#walStream.attached",
                reenter: true,
                actions: [
                  { type: "forgetShipment", params: ({ event }) => event },
                  "usePut",
                  { type: "emitPlain", params: { type: "stream.degraded" } },
                ],
              },
              {
                guard: { type: "isUnconfirmed", params: ({ event }) => event },
                target: "#walStream.failing",
                actions: [
                  { type: "forgetShipment", params: ({ event }) => event },
                  { type: "keepFailure", params: ({ event }) => failureOf(event) },
                ],
              },
              {
                guard: { type: "isShipment", params: ({ event }) => event },
                actions: { type: "forgetShipment", params: ({ event }) => event },
              },
            ],
          },
          states: {
            flowing: {
              meta: { description: "WAL flows from the source to the server" },
              on: {
                "stream.switched": {
                  target: "#walStream.attached.switchingTimeline",
                  actions: { type: "keepSwitch", params: ({ event }) => event },
                },
                "shutdown.requested": { target: "draining", actions: "askToDrain" },
              },
            },
            draining: {
              meta: { description: "nothing more is read; what was received is confirmed" },
              after: { drainLimit: "#walStream.stopped" },
              on: {
                "stream.drained": "#walStream.stopped",
                "stream.switched": "#walStream.stopped",
                "stream.ended": "#walStream.stopped",
                "source.lost": "#walStream.stopped",
                "xstate.done.actor.*": {
                  guard: { type: "isShipment", params: ({ event }) => event },
                  actions: { type: "forgetShipment", params: ({ event }) => event },
                },
              },
            },
          },
        },
        switchingTimeline: {
          meta: { description: "the source was promoted: its identity is read anew" },
          entry: "emitSwitched",
          invoke: {
            id: "identifyAgain",
            src: "identifySystem",
            input: null,
            onDone: [
              {
                guard: { type: "isOk", params: ({ event }) => event.output },
                target: "collectingHistories",
                actions: { type: "keepIdentity", params: ({ event }) => event.output },
              },
              {
                target: "#walStream.failing",
                actions: { type: "keepFailure", params: ({ event }) => failed(event.output) },
              },
            ],
          },
        },
      },
    },
    failing: {
      meta: { description: "a person, or time?" },
      always: [
        { guard: "mayRecordGap", target: "attached", actions: "demandGap" },
        { guard: "isFatal", target: "blocked" },
        { target: "backingOff" },
      ],
    },
    backingOff: {
      meta: { description: "connection lost; waiting before the next attempt" },
      entry: { type: "emitFailure", params: { type: "stream.interrupted" } },
      after: { backoff: "attached" },
      on: { "shutdown.requested": "stopped" },
    },
    blocked: {
      meta: { description: "a person is needed; the cause is looked at again from time to time" },
      entry: { type: "emitFailure", params: { type: "stream.blocked" } },
      after: { blockedRecheck: "attached" },
      on: { "shutdown.requested": "stopped" },
    },
    stopped: { type: "final", entry: { type: "emitPlain", params: { type: "stream.stopped" } } },
  },
});
