// What a server says about a cluster: how exposed it is, where it can be recovered to, how long that takes, which backups
// there are. The keys are those of `klio status --json`; null stands for what is not known, never for nothing.
import type { BackupMetadata } from "./backup-metadata.ts";
import { formatLsn } from "./lsn.ts";
import { type RecoverableInterval, recoverableIntervals, walInventory } from "./recoverable-range.ts";
import { startLsnOf } from "./recovery-target.ts";
import type { StoredBackup, TierName } from "./snapshots.ts";
import type { TimelineHistory } from "./timeline.ts";
import type { StoredWal } from "./wal-reader.ts";

/** How fast the files of a backup were read: by a restore, or by a verification. Times are epoch seconds. */
export type ReadMeasure = { backup: string; bytes: number; seconds: number; at: number };
export type ReadPurpose = "restore" | "verification";
export type ReadMeasures = Partial<Record<ReadPurpose, ReadMeasure>>;

/** `heard_seconds`: since the sidecar said last where the source's WAL ends; it is silent after a few reports. */
export type ExposureReport = { seconds: number; bytes: number; heard_seconds: number; silent: boolean };

/** Positions that a recovery reaches without a hole. Times are RFC 3339. */
type IntervalReport = {
  timeline: number;
  from_lsn: string;
  from_time: string;
  to_lsn: string;
  /** When the last file of the interval was stored, by the clock of its store. */
  stored_time: string;
  /** The unfinished file that continues it; empty: none. */
  partial: string;
  backups: string[];
};

/** Of the newest backup. `restore_seconds`: of its files; null: nothing was measured. `basis`: how it is estimated. */
type RecoveryReport = {
  backup: string;
  size: number;
  restore_seconds: number | null;
  basis: string;
  /** To be replayed up to the end of the interval; null: it reaches no interval. How fast PostgreSQL replays is not known. */
  wal_size: number | null;
};

type BackupReport = {
  name: string;
  completed_time: string;
  age_seconds: number;
  size: number;
  /** When its files were read back last; null: not since this server keeps account. */
  verified_time: string | null;
};

export type TierReport = {
  /** Why the rest cannot be told; empty: all of it is. */
  error: string;
  exposure: ExposureReport | null;
  recoverable: IntervalReport[];
  backup_count: number;
  latest_backup: BackupReport | null;
  recovery: RecoveryReport | null;
};

/** What the last comparison of the tiers found, before anything was repaired; see `klio.tiers.divergence`. */
export type DivergenceReport = {
  compared_time: string;
  missing: number;
  stale: number;
  different: number;
  foreign: number;
};

export type ClusterReport = {
  cluster: string;
  /** A tier that the server does not have is absent. */
  tiers: Partial<Record<TierName, TierReport>>;
  gaps: { start: string; end: string; time: string }[];
  divergence: DivergenceReport | null;
};

/** `error`: why the queue cannot be asked; the counts are then null. */
export type QueueReport = {
  error: string;
  pending_wals: number | null;
  pending_backups: number | null;
  failed_wals: number | null;
  failed_backups: number | null;
  /** Why tier 2 takes nothing now; empty: it does. */
  paused: string;
};
export type ServerReport = { clusters: ClusterReport[]; queue: QueueReport | null };

export const timeText = (epochSeconds: number): string =>
  new Date(Math.floor(epochSeconds) * 1000).toISOString().replace(".000Z", "Z");

const sizeOf = ({ snapshots }: StoredBackup): number => snapshots.reduce((sum, { bytes }) => sum + bytes, 0);

export type TierFindings = {
  files: readonly StoredWal[];
  backups: readonly StoredBackup[];
  /** Of the newest timeline. */
  history: TimelineHistory;
  measures: ReadMeasures;
  exposure: ExposureReport | null;
  /** Epoch seconds. */
  now: number;
};

export function tierReport({ files, backups, history, measures, exposure, now }: TierFindings): TierReport {
  const metadata = backups.map((backup) => backup.metadata);
  const intervals = recoverableIntervals(history, metadata, walInventory(files));
  const latest = backups.toSorted((a, b) => a.metadata.stoppedAt - b.metadata.stoppedAt).at(-1);
  const storedAt = new Map(files.map(({ name, mtimeMs }) => [name, mtimeMs / 1000]));
  return {
    error: "",
    exposure,
    recoverable: intervals.map((one) => intervalReport(one, metadata, storedAt)),
    backup_count: backups.length,
    latest_backup:
      latest === undefined
        ? null
        : {
            name: latest.metadata.name,
            completed_time: timeText(latest.metadata.stoppedAt),
            age_seconds: Math.max(0, Math.round(now - latest.metadata.stoppedAt)),
            size: sizeOf(latest),
            verified_time: verifiedTime(latest.metadata.name, measures),
          },
    recovery: latest === undefined ? null : recoveryReport(latest, intervals, measures),
  };
}

/** A restore that ended well has read every byte, too. */
function verifiedTime(backup: string, { verification, restore }: ReadMeasures): string | null {
  const times = [verification, restore].flatMap((one) => (one?.backup === backup ? [one.at] : []));
  return times.length === 0 ? null : timeText(Math.max(...times));
}

function intervalReport(
  interval: RecoverableInterval,
  metadata: readonly BackupMetadata[],
  storedAt: ReadonlyMap<string, number>,
): IntervalReport {
  const { timeline, fromLsn, toLsn, tail, backups, fromTime, last } = interval;
  const ended = metadata.find(({ name }) => name === backups.at(-1))?.stoppedAt ?? fromTime;
  const known = [tail, last].flatMap(
    (name) => storedAt.get(name?.toUpperCase().replace("PARTIAL", "partial") ?? "") ?? [],
  );
  return {
    timeline,
    from_lsn: formatLsn(fromLsn),
    from_time: timeText(fromTime),
    to_lsn: formatLsn(toLsn),
    stored_time: timeText(known.length === 0 ? ended : Math.max(...known)),
    partial: tail ?? "",
    backups,
  };
}

function recoveryReport(
  latest: StoredBackup,
  intervals: readonly RecoverableInterval[],
  measures: ReadMeasures,
): RecoveryReport {
  const { name } = latest.metadata;
  const size = sizeOf(latest);
  const own = intervals.find(({ backups }) => backups.includes(name));
  const purpose: ReadPurpose = measures.restore === undefined ? "verification" : "restore";
  const measure = measures[purpose];
  const isMeasured = measure !== undefined && measure.seconds > 0 && measure.bytes > 0;
  return {
    backup: name,
    size,
    restore_seconds: isMeasured ? size / (measure.bytes / measure.seconds) : null,
    basis: isMeasured
      ? `${purpose} of ${measure.backup} at ${timeText(measure.at)}: ${measure.bytes} bytes in ${measure.seconds.toFixed(1)} s`
      : "no restore and no verification was measured yet",
    wal_size: own === undefined ? null : Number(own.toLsn - startLsnOf(latest.metadata)),
  };
}

/** Of a tier that cannot be read now. */
export function silentTier(error: string, exposure: ExposureReport | null): TierReport {
  return { error, exposure, recoverable: [], backup_count: 0, latest_backup: null, recovery: null };
}
