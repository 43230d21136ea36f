// What walStream is told, keeps and tells: its input, events, context and facts. LSNs are text.
import type { BackoffPolicy } from "../domain/backoff.ts";
import type { Failure } from "../domain/outcome.ts";
import type { ShipMethod, ShipmentEnd } from "./segment-shipment.machine.ts";

export type WalStreamInput = {
  cluster: string;
  slot: string;
  sendToTier2: boolean;
  backoff: BackoffPolicy;
  blockedRecheckMs: number;
  drainLimitMs: number;
  confirmLimitMs: number;
};
/** LSNs as text. `timeline`: the source's own, newest one. */
export type SourceIdentity = {
  systemId: string;
  timeline: number;
  flushLsn: string;
  segmentBytes: number;
  isStandby: boolean;
};
/** `restartLsn`: empty when the slot keeps nothing yet. */
export type SlotPosition = { restartLsn: string; created: boolean };
export type StartPosition = { timeline: number; startLsn: string; abandonedBytes: number };
export type Negotiation = SourceIdentity & { restartLsn: string };
export type StreamInput = {
  timeline: number;
  startLsn: string;
  segmentBytes: number;
  slot: string;
  method: ShipMethod;
};

export type WalStreamEvent =
  | { type: "source.connected" }
  | { type: "source.lost"; failure: Failure }
  | { type: "segment.opened"; name: string; fromOffset: number }
  /** Bytes were confirmed; told now and then, not for each. */
  | { type: "stream.progressed"; flushedLsn: string }
  /** The source left the timeline; everything of it is confirmed. `startLsn`: start of the first segment of the next one. */
  | { type: "stream.switched"; timeline: number; startLsn: string }
  | { type: "stream.ended"; failure: Failure }
  | { type: "stream.drained" }
  | { type: "shutdown.requested" }
  | {
      type: `xstate.done.actor.segmentShipment:${string}`;
      actorId: string;
      output: { name: string; end: ShipmentEnd };
    };

export type WalStreamContext = WalStreamInput &
  SourceIdentity & {
    /** Failures since a byte was confirmed last. */
    attempt: number;
    /** The last failure; empty while all is well. */
    isFatal: boolean;
    code: string;
    reason: string;
    restartLsn: string;
    /** Where the stream begins, and what is confirmed of it. */
    streamTimeline: number;
    startLsn: string;
    flushedLsn: string;
    abandonedBytes: number;
    /** Timelines whose history is still to be stored, and the one that is being stored. */
    histories: number[];
    historyTimeline: number;
    method: ShipMethod;
    shipments: string[];
  };

export type WalStreamFact =
  | { type: "stream.started"; cluster: string; timeline: number; startLsn: string; abandonedBytes: number }
  | { type: "stream.switched"; cluster: string; timeline: number; startLsn: string }
  | { type: "stream.interrupted" | "stream.blocked"; cluster: string; code: string; reason: string; attempt: number }
  | { type: "stream.degraded" | "stream.stopped"; cluster: string };

export type ShipmentDone = Extract<WalStreamEvent, { actorId: string }>;

/** How a shipment ended; undefined for the end of any other actor. */
export function endOf({ actorId, output }: ShipmentDone): ShipmentEnd | undefined {
  return actorId.startsWith("segmentShipment:") ? output.end : undefined;
}

export function failureOf(done: ShipmentDone): { failure: Failure | null } {
  const end = endOf(done);
  return { failure: end?.kind === "retryable" || end?.kind === "fatal" ? end : null };
}
