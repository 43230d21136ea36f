// Where a replication stream begins: from what the server holds, what PostgreSQL has, and the line of its timelines.

import { formatLsn, type Lsn, lsn } from "./lsn.ts";
import type { Failure } from "./outcome.ts";
import { failure } from "./outcome.ts";
import type { TimelineHistory } from "./timeline.ts";
import { parseWalName, segmentStart } from "./wal-segment.ts";

/** Bytes are compared with what is stored from the start of the page before the server's last byte on. */
const PAGE_BYTES = 8192;

export type StartQuestion = {
  /** The server's answer: file (perhaps with `.partial`), and its durable raw bytes. */
  walName: string;
  resumeOffset: number;
  segmentBytes: number;
  /** History of the source's own timeline. */
  history: TimelineHistory;
  /** End of WAL that the source can send. */
  flushLsn: Lsn;
  /** The source is a standby, which may lag behind a primary that was streamed before. */
  isStandby: boolean;
};

export type StreamStart = {
  timeline: number;
  /** First byte to send. */
  startLsn: Lsn;
  /** Bytes that the server holds on a timeline beyond the point where this source left it. */
  abandonedBytes: number;
};

/**
 * The start, or why there is none: KLIO-TIMELINE (the server's timeline is none of this source's), KLIO-SERVER-AHEAD (a
 * primary that lacks what was stored), KLIO-SOURCE-DOWN (a standby that lags), KLIO-SERVER-DOWN (an answer that is none).
 * A server that holds more of an ancestor than this source has goes on with the child: nothing of the child's line is
 * missing then, and what was stored of the other stays.
 */
export function decideStart(question: StartQuestion): { kind: "ok"; value: StreamStart } | Failure {
  const { segmentBytes, history, flushLsn } = question;
  const name = question.walName.replace(/\.partial$/, "");
  if (parseWalName(name)?.kind !== "segment" || question.resumeOffset > segmentBytes)
    return failure("KLIO-SERVER-DOWN", `the server asked for WAL from ${question.walName}+${question.resumeOffset}`);
  const segment = segmentStart(name, segmentBytes);
  let timeline = parseWalName(name)?.timeline ?? 0;
  let held = lsn(segment + BigInt(question.resumeOffset));
  let start = lsn(segment + BigInt(overlapStart(question.resumeOffset)));
  let abandonedBytes = 0;
  while (timeline !== history.timeline) {
    const at = history.ancestors.findIndex((one) => one.timeline === timeline);
    const ancestor = history.ancestors[at];
    if (ancestor === undefined)
      return failure(
        "KLIO-TIMELINE",
        `the server holds ${name} of timeline ${timeline}, which is not in the history of timeline ${history.timeline}`,
      );
    if (held < ancestor.endLsn) return { kind: "ok", value: { timeline, startLsn: start, abandonedBytes } };
    abandonedBytes += Number(held - ancestor.endLsn);
    timeline = history.ancestors[at + 1]?.timeline ?? history.timeline;
    held = start = lsn(ancestor.endLsn - (ancestor.endLsn % BigInt(segmentBytes)));
  }
  if (held > flushLsn) {
    const text = `the server holds WAL up to ${formatLsn(held)} of timeline ${timeline}, the source has ${formatLsn(flushLsn)}`;
    return question.isStandby
      ? failure("KLIO-SOURCE-DOWN", `the standby lags: ${text}`)
      : failure("KLIO-SERVER-AHEAD", text);
  }
  return { kind: "ok", value: { timeline, startLsn: start, abandonedBytes } };
}

/** A stored tail that differs (a source that went back and came again) is so noticed, and never written on. */
function overlapStart(resumeOffset: number): number {
  return resumeOffset === 0 ? 0 : Math.floor((resumeOffset - 1) / PAGE_BYTES) * PAGE_BYTES;
}
