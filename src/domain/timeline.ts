// Timelines: the history of one, and which WAL belongs to it. A history is a line of ranges of positions, each on one
// timeline, oldest first, without holes; the last one is open.
import { KlioError } from "../errors.ts";
import { formatLsn, type Lsn, lsn, parseLsn } from "./lsn.ts";
import { historyName, segmentAt } from "./wal-segment.ts";

/** An ancestor, and the position at which its child took over. */
type TimelineSwitch = { timeline: number; endLsn: Lsn; reason: string };
export type TimelineHistory = { timeline: number; ancestors: readonly TimelineSwitch[] };
/** Bytes `from` (included) to `to` (excluded, undefined: open) were written on `timeline`. */
export type TimelineRange = { timeline: number; from: Lsn; to: Lsn | undefined };

/** The history of a cluster that was never promoted. */
export const firstTimeline: TimelineHistory = { timeline: 1, ancestors: [] };

const damaged = (timeline: number, line: string, why: string) =>
  new KlioError("KLIO-WAL-DAMAGED", `${historyName(timeline)}: ${why}: ${JSON.stringify(line)}`);

/** Parses a history file as PostgreSQL does; throws KLIO-WAL-DAMAGED where it would refuse, too. */
export function parseTimelineHistory(timeline: number, text: string): TimelineHistory {
  const ancestors: TimelineSwitch[] = [];
  for (const line of text.split("\n")) {
    const content = line.trim();
    if (content === "" || content.startsWith("#")) continue;
    const match = /^(\d{1,10})\s+([0-9A-Fa-f]{1,8}\/[0-9A-Fa-f]{1,8})(?:\s+(.*))?$/.exec(content);
    if (match?.[1] === undefined || match[2] === undefined) throw damaged(timeline, line, "not a line of a history");
    const entry = { timeline: Number(match[1]), endLsn: parseLsn(match[2]), reason: match[3] ?? "" };
    const last = ancestors.at(-1);
    if (entry.timeline <= (last?.timeline ?? 0) || entry.timeline >= timeline)
      throw damaged(timeline, line, "timelines must ascend and be below the file's own");
    if (last !== undefined && entry.endLsn < last.endLsn) throw damaged(timeline, line, "positions must not descend");
    ancestors.push(entry);
  }
  return { timeline, ancestors };
}

/** The text of a history file. */
export function formatTimelineHistory(history: TimelineHistory): string {
  return history.ancestors
    .map(({ timeline, endLsn, reason }) => `${timeline}\t${formatLsn(endLsn)}${reason === "" ? "" : `\t${reason}`}\n`)
    .join("");
}

export function timelineRanges(history: TimelineHistory): TimelineRange[] {
  const ranges: TimelineRange[] = [];
  let from = lsn(0);
  for (const { timeline, endLsn } of history.ancestors) {
    ranges.push({ timeline, from, to: endLsn });
    from = endLsn;
  }
  ranges.push({ timeline: history.timeline, from, to: undefined });
  return ranges;
}

/** Is all WAL of `timeline` that lies before `end` part of this history? (A backup that ends there can follow it.) */
export function isOnHistory(history: TimelineHistory, timeline: number, end: Lsn): boolean {
  const range = timelineRanges(history).find((one) => one.timeline === timeline);
  return range !== undefined && end > range.from && (range.to === undefined || end <= range.to);
}

/**
 * Files that hold the segment in which `position` lies, in the order in which a recovery along this history asks for
 * them: the newest timeline that had begun by the segment's end first. A later file also holds the bytes of its
 * ancestors in that segment; an earlier one is good only up to `goodTo`, where the history left its timeline.
 */
export function segmentFiles(
  history: TimelineHistory,
  position: Lsn,
  segmentBytes: number,
): { name: string; goodTo: Lsn | undefined }[] {
  const size = BigInt(segmentBytes);
  const segment = position / size;
  return timelineRanges(history)
    .filter(({ from, to }) => from / size <= segment && (to === undefined || to > segment * size))
    .map(({ timeline, to }) => ({ name: segmentAt(timeline, position, segmentBytes), goodTo: to }))
    .reverse();
}

/** The first of `segmentFiles`. */
export function segmentOnHistory(history: TimelineHistory, position: Lsn, segmentBytes: number): string {
  const size = BigInt(segmentBytes);
  const range = timelineRanges(history).findLast(({ from }) => from / size <= position / size);
  return segmentAt(range?.timeline ?? history.timeline, position, segmentBytes);
}
