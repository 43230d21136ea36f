// What a sidecar remembers of its backups from one process to the next, so that its metrics tell the truth after a restart.
// Times are epoch seconds.
import type { BackupMetadata } from "./backup-metadata.ts";

export type BackupTimes = {
  /** A backup that began and was not seen to end. */
  running?: { name: string; startedAt: number };
  latestStart?: number;
  latestCompletion?: number;
  latestFailure?: number;
  /** Seconds. */
  latestDuration?: number;
  /** The backup of `latestCompletion` could not be verified; absent also when that is not known. */
  unverified?: true;
};
export type BackupEndKind = "completed" | "failed" | "cancelled";

export function backupBegun(times: BackupTimes, name: string, now: number): BackupTimes {
  return { ...times, running: { name, startedAt: now }, latestStart: now };
}

/** `unverified` says something of a completed backup only. */
export function backupEnded(
  { running, ...times }: BackupTimes,
  end: BackupEndKind,
  now: number,
  unverified = false,
): BackupTimes {
  const ended: BackupTimes = {
    ...times,
    ...(running !== undefined && { latestDuration: Math.max(0, now - running.startedAt) }),
    ...(end === "failed" && { latestFailure: now }),
  };
  return end === "completed" ? completedAt(ended, now, unverified) : ended;
}

function completedAt({ unverified: _, ...times }: BackupTimes, at: number, unverified: boolean): BackupTimes {
  return { ...times, latestCompletion: at, ...(unverified && { unverified }) };
}

/** What a process finds at its start: a backup that still seems to run was interrupted, and counts as failed. */
export function afterRestart(times: BackupTimes, now: number): { times: BackupTimes; interrupted: string | undefined } {
  if (times.running === undefined) return { times, interrupted: undefined };
  const { name } = times.running;
  return { times: backupEnded(times, "failed", now), interrupted: name };
}

/** The stored backups know what a lost memory does not: later times win, and a duration goes with its completion. */
export function withStoredBackups(
  times: BackupTimes,
  backups: readonly Pick<BackupMetadata, "startedAt" | "stoppedAt">[],
): BackupTimes {
  const newest = backups.toSorted((a, b) => a.stoppedAt - b.stoppedAt).at(-1);
  if (newest === undefined || newest.stoppedAt <= (times.latestCompletion ?? 0)) return times;
  const isLatest = newest.startedAt >= (times.latestStart ?? 0);
  return {
    ...completedAt(times, newest.stoppedAt, false),
    latestStart: Math.max(times.latestStart ?? 0, newest.startedAt),
    ...(isLatest && { latestDuration: newest.stoppedAt - newest.startedAt }),
  };
}

/** Text of a file as `parseBackupTimes` reads it. */
export function formatBackupTimes(times: BackupTimes): string {
  return `${JSON.stringify(times)}\n`;
}

/** Anything that is no such text counts as nothing known. */
export function parseBackupTimes(text: string): BackupTimes {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return {}; // cut short, or not ours
  }
  if (typeof value !== "object" || value === null) return {};
  const { running, ...rest } = value as Record<string, unknown>;
  const times: BackupTimes = {};
  for (const key of ["latestStart", "latestCompletion", "latestFailure", "latestDuration"] as const) {
    const seconds = rest[key];
    if (typeof seconds === "number" && Number.isFinite(seconds)) times[key] = seconds;
  }
  if (rest.unverified === true) times.unverified = true;
  const { name, startedAt } = (running ?? {}) as Record<string, unknown>;
  if (typeof name === "string" && typeof startedAt === "number") times.running = { name, startedAt };
  return times;
}
