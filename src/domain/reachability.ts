// Can a recovery from a backup reach its target with what is stored? The answer names what is missing.
//   A time is reached only when a transaction ended after it: PostgreSQL compares with nothing else, and stops its recovery
//   with an error at the end of WAL that has none.
import type { BackupMetadata } from "./backup-metadata.ts";
import { formatLsn, type Lsn, lsn, parseLsn } from "./lsn.ts";
import type { WalInventory, WalReach } from "./recoverable-range.ts";
import { endLsnOf, formatTargetTime, type RecoveryTarget, startLsnOf } from "./recovery-target.ts";
import { segmentOnHistory, type TimelineHistory } from "./timeline.ts";

/** WAL that was given up on purpose, as recorded: names of the last file before and the first file after it. */
export type WalGap = { start: string; end: string; atMs: number };
export type ReachQuestion = {
  backup: BackupMetadata;
  target: RecoveryTarget;
  history: TimelineHistory;
  inventory: WalInventory;
  gaps: readonly WalGap[];
};
export type ReachFindings = {
  /** End of the bytes in the unfinished file at the end of the run, when it was asked for. */
  tailEnd?: Lsn;
  /** Latest end of a transaction in the run, microseconds since 1970, when it was looked for and there is one. */
  lastEndUs?: number;
};

/** Position that complete files alone must pass, or the length of the unfinished one decides. */
export function mustPass({ backup, target }: Pick<ReachQuestion, "backup" | "target">): Lsn {
  return target.kind === "lsn" ? lsn(parseLsn(target.lsn) + 1n) : endLsnOf(backup);
}

/** Segments of the run from its end to the backup's start, latest first, with their names: where to look for the last end. */
export function* segmentsBackward(
  { backup, history }: Pick<ReachQuestion, "backup" | "history">,
  reach: WalReach,
): Generator<string> {
  const size = BigInt(backup.segmentSize);
  if (reach.tail !== undefined) yield reach.tail.name;
  for (let position = reach.endLsn - size; position + size > startLsnOf(backup); position -= size)
    yield segmentOnHistory(history, lsn(position), backup.segmentSize);
}

const stem = (name: string) => name.slice(8, 24);

function hole(question: ReachQuestion, reach: WalReach): string {
  const { missing, beyond, tail } = reach;
  const gap = question.gaps.find(({ start, end }) => stem(start) <= stem(missing) && stem(missing) < stem(end));
  const state =
    tail === undefined ? `${missing} is not stored` : `${missing} is stored up to a part only (${tail.name})`;
  const behind = beyond === undefined ? "" : `, though ${beyond} behind it is`;
  const told =
    gap === undefined
      ? ""
      : `; a gap from ${gap.start} to ${gap.end} was accepted at ${formatTargetTime(gap.atMs * 1000)}`;
  return state + behind + told;
}

/** What stands in the way, one line each; empty when the target can be reached. */
export function obstacles(question: ReachQuestion, reach: WalReach, findings: ReachFindings): string[] {
  const { backup, target } = question;
  const end = findings.tailEnd ?? reach.endLsn;
  const lacking = hole(question, reach);
  if (end < endLsnOf(backup))
    return [`${lacking}: backup ${backup.name} needs all WAL from its start to ${formatLsn(endLsnOf(backup))}`];
  switch (target.kind) {
    case "lsn":
      return end > parseLsn(target.lsn)
        ? []
        : [`${lacking}: the stored WAL ends at ${formatLsn(end)}, the target is ${target.lsn}`];
    case "time": {
      const { lastEndUs } = findings;
      if (lastEndUs !== undefined && lastEndUs > target.atUs) return [];
      const last =
        lastEndUs === undefined
          ? "no transaction ended"
          : `the last transaction ended at ${formatTargetTime(lastEndUs)}`;
      return [
        `${lacking}: in the WAL up to ${formatLsn(end)} ${last}, not after the target ${formatTargetTime(target.atUs)}`,
      ];
    }
    case "latest":
      return reach.beyond === undefined
        ? []
        : [`${lacking}: the recovery would end at ${formatLsn(end)}; name a target up to there to accept that`];
    default:
      return target satisfies never;
  }
}
