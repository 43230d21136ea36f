// What walStream is told, keeps and tells: its input, events, context and facts. LSNs are text.
import type { BackoffPolicy } from "../domain/backoff.ts";
import type { Failure } from "../domain/outcome.ts";
import type { ShipMethod, ShipmentEnd } from "./segment-shipment.machine.ts";

/** What becomes of WAL that PostgreSQL removed before the server had it: a person decides, or the gap is recorded at once. */
type GapPolicy = "block" | "record";

export type WalStreamInput = {
  cluster: string;
  slot: string;
  sendToTier2: boolean;
  gapPolicy: GapPolicy;
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
/** `walName`: the segment with which the stream goes on; empty: nothing was recorded, a new slot may keep what is needed. */
export type RecordedGap = { walName: string; slotDropped: boolean };
export type StartPosition = { timeline: number; startLsn: string; abandonedBytes: number };
export type Negotiation = SourceIdentity & { restartLsn: string };
export type StreamInput = {
  timeline: number;
  startLsn: string;
  /** End of WAL of the source when it was asked. */
  flushLsn: string;
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
    /** The next connection begins with the recording of a gap. */
    isGapDue: boolean;
    /** One was recorded since a byte was confirmed last. */
    isGapRecorded: boolean;
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
  | { type: "stream.gap"; cluster: string; code: string; reason: string; walName: string; slotDropped: boolean }
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

/** Failures behind which the server lacks WAL that PostgreSQL has no more. */
const GAPS: readonly string[] = ["KLIO-WAL-GAP", "KLIO-SLOT-LOST"];

/** The last failure is a gap that the policy records, and that no record has answered yet. */
export function mayRecordGap({ gapPolicy, isFatal, code, isGapDue, isGapRecorded }: WalStreamContext): boolean {
  return gapPolicy === "record" && isFatal && GAPS.includes(code) && !isGapDue && !isGapRecorded;
}

/** Histories of all timelines but the first one; the server is asked which of them it holds. */
function historiesUpTo(timeline: number): number[] {
  return Array.from({ length: Math.max(0, timeline - 1) }, (_, i) => i + 2);
}

export function initialContext(input: WalStreamInput): WalStreamContext {
  return {
    ...input,
    systemId: "",
    timeline: 0,
    flushLsn: "0/0",
    segmentBytes: 0,
    isStandby: false,
    attempt: 0,
    isFatal: false,
    code: "",
    reason: "",
    isGapDue: false,
    isGapRecorded: false,
    restartLsn: "",
    streamTimeline: 0,
    startLsn: "0/0",
    flushedLsn: "0/0",
    abandonedBytes: 0,
    histories: [],
    historyTimeline: 0,
    method: "stream",
    shipments: [],
  };
}

export function identityOf(context: WalStreamContext): SourceIdentity {
  const { systemId, timeline, flushLsn, segmentBytes, isStandby } = context;
  return { systemId, timeline, flushLsn, segmentBytes, isStandby };
}

/** What a stream keeps of where it begins. `timeline`: the newest one that is known. */
export function startingAt(start: StartPosition, timeline: number): Partial<WalStreamContext> {
  return {
    streamTimeline: start.timeline,
    startLsn: start.startLsn,
    flushedLsn: start.startLsn,
    abandonedBytes: start.abandonedBytes,
    histories: historiesUpTo(timeline),
  };
}

export type FailureFact = Told<"stream.interrupted" | "stream.blocked">;
type Told<T extends WalStreamFact["type"]> = Extract<WalStreamFact, { type: T }>;

export function startedFact(context: WalStreamContext): Told<"stream.started"> {
  const { cluster, streamTimeline: timeline, startLsn, abandonedBytes } = context;
  return { type: "stream.started", cluster, timeline, startLsn, abandonedBytes };
}

export function switchedFact(context: WalStreamContext): Told<"stream.switched"> {
  const { cluster, streamTimeline: timeline, startLsn } = context;
  return { type: "stream.switched", cluster, timeline, startLsn };
}
