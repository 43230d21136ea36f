// Who the source is: system identifier, timeline and its history, end of WAL, segment size.
import { fromPromise } from "xstate";
import { type Lsn, parseLsn } from "../../domain/lsn.ts";
import { failure, failureOf, type Outcome, ok } from "../../domain/outcome.ts";
import { firstTimeline, parseTimelineHistory } from "../../domain/timeline.ts";
import { isSegmentSize } from "../../domain/wal-segment.ts";
import { KlioError } from "../../errors.ts";
import type { SourceIdentity } from "../../machines/wal-stream-events.ts";
import type { Row } from "./ask-source.ts";
import type { SourceHold } from "./hold-source.actor.ts";
import type { SourceSession } from "./source-session.ts";

const BYTES: Readonly<Record<string, number>> = { "": 1, B: 1, kB: 1 << 10, MB: 1 << 20, GB: 1 << 30 };
const MILLISECONDS: Readonly<Record<string, number>> = {
  "": 1,
  us: 0.001,
  ms: 1,
  s: 1_000,
  min: 60_000,
  h: 3_600_000,
  d: 86_400_000,
};

/** A setting as SHOW prints it ("16MB", "1min", "0"); undefined when it is no number with a unit of the table. */
export function parseSetting(text: string, units: Readonly<Record<string, number>>): number | undefined {
  const match = /^(\d+)\s*([A-Za-z]*)$/.exec(text.trim());
  const unit = Object.entries(units).find(([name]) => name.toLowerCase() === match?.[2]?.toLowerCase())?.[1];
  return match?.[1] === undefined || unit === undefined ? undefined : Number(match[1]) * unit;
}

const text = (row: Row | undefined, column: string) => String(row?.[column] ?? "");

/** The content of a history file of the source. KLIO-WAL-GAP when it has none any more. */
export async function readHistory(session: SourceSession, timeline: number): Promise<Outcome<string>> {
  const rows = await session.command(`TIMELINE_HISTORY ${timeline}`);
  return rows.kind === "ok" ? ok(text(rows.value[0], "content")) : rows;
}

/** Where its WAL ends now. */
export async function sourceEnd(session: SourceSession): Promise<Outcome<Lsn>> {
  const rows = await session.command("IDENTIFY_SYSTEM");
  return rows.kind === "ok" ? ok(parseLsn(text(rows.value[0], "xlogpos"))) : rows;
}

async function ask(hold: SourceHold<{ close(): void }>): Promise<Outcome<SourceIdentity>> {
  const { session } = hold;
  const rows: Row[] = [];
  for (const command of [
    "IDENTIFY_SYSTEM",
    "SHOW wal_segment_size",
    "SHOW wal_sender_timeout",
    "SHOW in_hot_standby",
  ]) {
    const answer = await session.command(command);
    if (answer.kind !== "ok") return answer;
    rows.push(answer.value[0] ?? {});
  }
  const [system, segment, timeout, standby] = rows;
  const segmentBytes = parseSetting(text(segment, "wal_segment_size"), BYTES) ?? 0;
  const timeline = Number(text(system, "timeline"));
  const flushLsn = text(system, "xlogpos");
  if (!isSegmentSize(segmentBytes) || !(timeline > 0))
    return failure("KLIO-SOURCE-UNSUPPORTED", `the source has WAL segments of ${text(segment, "wal_segment_size")}`);
  parseLsn(flushLsn);
  hold.senderTimeoutMs = parseSetting(text(timeout, "wal_sender_timeout"), MILLISECONDS) ?? 0;
  hold.history = firstTimeline;
  if (timeline > 1) {
    const history = await readHistory(session, timeline);
    if (history.kind !== "ok") return history;
    hold.history = parseTimelineHistory(timeline, history.value);
  }
  const isStandby = text(standby, "in_hot_standby") === "on";
  return ok({ systemId: text(system, "systemid"), timeline, flushLsn, segmentBytes, isStandby });
}

/** Keeps the history in `hold`. Rejects for bugs only. */
export async function identify(hold: SourceHold<{ close(): void }>): Promise<Outcome<SourceIdentity>> {
  try {
    return await ask(hold);
  } catch (error) {
    if (error instanceof KlioError && error.code === "KLIO-USAGE")
      return failure("KLIO-SOURCE-DOWN", `the source's answer is not understood: ${error.message}`);
    return failureOf(error);
  }
}

/** Actor logic of walStream. */
export function identifySystem(hold: SourceHold<{ close(): void }>) {
  return fromPromise<Outcome<SourceIdentity>, null>(() => identify(hold));
}
