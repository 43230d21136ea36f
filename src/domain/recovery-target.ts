// Where a recovery shall end, and which backup it starts from.
//   A time needs its zone: the clock of the person, of this machine and of the database server may stand in three zones.
import { KlioError } from "../errors.ts";
import type { BackupMetadata } from "./backup-metadata.ts";
import { formatLsn, type Lsn, lsn, parseLsn } from "./lsn.ts";
import { isOnHistory, type TimelineHistory } from "./timeline.ts";

/** `atUs`: microseconds since 1970, as PostgreSQL counts. `lsn`: text form. */
export type RecoveryTarget = { kind: "latest" } | { kind: "time"; atUs: number } | { kind: "lsn"; lsn: string };

const TIME =
  /^(\d{4})-(\d\d)-(\d\d)[T ](\d\d):(\d\d)(?::(\d\d)(?:[.,](\d{1,9}))?)?\s*(Z|z|UTC|GMT|[+-]\d\d(?::?\d\d)?)?$/;
const HINT = "write it as 2026-01-31T23:59:59Z, 2026-01-31 23:59:59.5+01:00, or as seconds since 1970";

function offsetMinutes(zone: string): number {
  const match = /^([+-])(\d\d):?(\d\d)?$/.exec(zone);
  if (match === null) return 0;
  const minutes = Number(match[2]) * 60 + Number(match[3] ?? 0);
  return match[1] === "-" ? -minutes : minutes;
}

/** Microseconds since 1970 of an ISO 8601 time with a zone or of seconds since 1970 (fractions allowed). Throws KLIO-USAGE. */
export function parseTargetTime(text: string): number {
  const trimmed = text.trim();
  const wrong = (why: string) => new KlioError("KLIO-USAGE", `${why}: ${JSON.stringify(text)}`, { hint: HINT });
  const epoch = /^(\d{1,11})(?:\.(\d{1,6})\d*)?$/.exec(trimmed);
  if (epoch !== null) return Number(epoch[1]) * 1e6 + Number((epoch[2] ?? "").padEnd(6, "0"));
  const match = TIME.exec(trimmed);
  if (match === null) throw wrong("not a point in time");
  const [, year, month, day, hour, minute, second = "0", fraction = "", zone] = match;
  if (zone === undefined) throw wrong("a point in time needs its time zone");
  const fields = [year, month, day, hour, minute, second].map(Number) as [
    number,
    number,
    number,
    number,
    number,
    number,
  ];
  const [y, mo, d, h, mi, s] = fields;
  const date = new Date(Date.UTC(y, mo - 1, d, h, mi, s));
  const exists = date.getUTCMonth() === mo - 1 && date.getUTCDate() === d && h < 24 && mi < 60 && s < 60;
  const offset = offsetMinutes(zone);
  if (!exists || Math.abs(offset) >= 16 * 60) throw wrong("there is no such point in time");
  const atUs = (date.getTime() - offset * 60_000) * 1000 + Number(fraction.padEnd(6, "0").slice(0, 6));
  if (atUs < 0) throw wrong("a point in time before 1970");
  return atUs;
}

/** As PostgreSQL reads it, in UTC: "2026-01-31 23:59:59.123456+00". */
export function formatTargetTime(atUs: number): string {
  const whole = new Date(Math.floor(atUs / 1000)).toISOString().slice(0, 19).replace("T", " ");
  const fraction = String(atUs % 1_000_000).padStart(6, "0");
  return `${whole}${fraction === "000000" ? "" : `.${fraction}`}+00`;
}

/** At most one of the two. Throws KLIO-USAGE. */
export function parseTarget(options: { time?: string | undefined; lsn?: string | undefined }): RecoveryTarget {
  if (options.time !== undefined && options.lsn !== undefined)
    throw new KlioError("KLIO-USAGE", "a time and an LSN cannot both be the target", { hint: "give one of them" });
  if (options.time !== undefined) return { kind: "time", atUs: parseTargetTime(options.time) };
  if (options.lsn !== undefined) return { kind: "lsn", lsn: formatLsn(parseLsn(options.lsn)) };
  return { kind: "latest" };
}

export function targetText(target: RecoveryTarget): string {
  if (target.kind === "time") return formatTargetTime(target.atUs);
  return target.kind === "lsn" ? target.lsn : "the end of the stored WAL";
}

/**
 * First microsecond at which the backup had surely ended. Whole seconds may have been cut off, so the second after it
 * counts: PostgreSQL does not stop before the end of the backup it starts from.
 */
export function usableFromUs(backup: Pick<BackupMetadata, "stoppedAt">): number {
  return Math.round((Number.isInteger(backup.stoppedAt) ? backup.stoppedAt + 1 : backup.stoppedAt) * 1e6);
}

export function endLsnOf(backup: Pick<BackupMetadata, "endLsn">): Lsn {
  return lsn(BigInt(backup.endLsn));
}

export function startLsnOf(backup: Pick<BackupMetadata, "startLsn">): Lsn {
  return lsn(BigInt(backup.startLsn));
}

/** Why a recovery to the target cannot start from this backup; undefined when it can, as far as the backup goes. */
export function whyUnsuitable(
  backup: BackupMetadata,
  target: RecoveryTarget,
  history: TimelineHistory,
): string | undefined {
  const end = endLsnOf(backup);
  if (!isOnHistory(history, backup.tli, end))
    return `backup ${backup.name} ends at ${formatLsn(end)} on timeline ${backup.tli}, which is not in the history of timeline ${history.timeline}`;
  if (target.kind === "lsn" && end > parseLsn(target.lsn))
    return `backup ${backup.name} ends at ${formatLsn(end)}, after the target ${target.lsn}`;
  if (target.kind === "time" && usableFromUs(backup) > target.atUs)
    return `backup ${backup.name} ended at ${formatTargetTime(Math.round(backup.stoppedAt * 1e6))}, not before the target ${formatTargetTime(target.atUs)}`;
  return undefined;
}

export type BackupChoice = { kind: "chosen"; backup: BackupMetadata } | { kind: "none"; reasons: string[] };

/** The suitable backup with the highest position: it leaves the least WAL to replay. `name`: this one or none. */
export function chooseBackup(
  backups: readonly BackupMetadata[],
  target: RecoveryTarget,
  history: TimelineHistory,
  name?: string,
): BackupChoice {
  const named = name === undefined ? backups : backups.filter((backup) => backup.name === name);
  if (named.length === 0)
    return { kind: "none", reasons: [name === undefined ? "no backup is stored" : `backup ${name} is not stored`] };
  let best: BackupMetadata | undefined;
  const reasons: string[] = [];
  for (const backup of named) {
    const reason = whyUnsuitable(backup, target, history);
    if (reason !== undefined) reasons.push(reason);
    else if (best === undefined || isLater(backup, best)) best = backup;
  }
  return best === undefined ? { kind: "none", reasons } : { kind: "chosen", backup: best };
}

function isLater(a: BackupMetadata, b: BackupMetadata): boolean {
  const [left, right] = [startLsnOf(a), startLsnOf(b)];
  return left === right ? a.startedAt > b.startedAt : left > right;
}
