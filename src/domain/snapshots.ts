// The seam between Klio and the program that makes and keeps snapshots. Nothing here knows which program that is: ids and
// paths are opaque, failures are outcomes. Implemented by actors/snapshots/.
import type { BackupMetadata } from "./backup-metadata.ts";
import type { Outcome } from "./outcome.ts";

export type TierName = "tier1" | "tier2";
/** "tombstone": says that a backup is not wanted any more; never part of a whole backup. */
export type SnapshotContent = "tablespace" | "pgdata" | "controldata" | "metadata" | "tombstone";

/** The pin by which a person keeps a backup, whatever the policy says. */
export const USER_PIN = "klio.io/kept";
/** The pin of a snapshot that tier 2 still lacks. */
export const TIER2_PIN = "klio.io/tier2";

export type SnapshotInfo = {
  id: string;
  user: string;
  cluster: string;
  /** Where the snapshot was taken from: a place of this one backup, never the data directory itself. */
  path: string;
  /** Name of the backup it belongs to. */
  backup: string;
  content: SnapshotContent;
  /** With content "tablespace" only. */
  tablespaceOid?: number;
  startTimeMs: number;
  endTimeMs: number;
  /** As read from the source, before compression and deduplication. */
  bytes: number;
  files: number;
  directories: number;
  pins: string[];
};

/** A whole backup: its metadata are stored, and every snapshot that they need. */
export type StoredBackup = { metadata: BackupMetadata; snapshots: SnapshotInfo[] };

/** `estimatedBytes` is 0 while unknown. */
export type SnapshotProgress = { processedBytes: number; uploadedBytes: number; estimatedBytes: number };

export type VerifyOptions = {
  /** Share of the files whose bytes are read, 0 … 100; the structure is always checked. */
  percent: number;
  signal?: AbortSignal;
  onProgress?: (progress: SnapshotProgress) => void;
};

export type CopyOptions = { signal?: AbortSignal; onProgress?: (progress: SnapshotProgress) => void };

/** What a cluster's user needs to reach the repository server. The password is good until the server process ends. */
export type ClusterAccess = {
  /** `user@cluster`. */
  user: string;
  password: string;
  /** SHA-256 of the server certificate's DER, lower-case hex. */
  fingerprint: string;
};

/**
 * The repository of one tier, on the server, with direct access to its storage. No method rejects but with a bug. Methods
 * that write answer KLIO-READ-ONLY when the repository was opened read-only. May be called concurrently.
 */
export interface SnapshotRepository extends AsyncDisposable {
  readonly tier: TierName;
  readonly readOnly: boolean;
  /** All snapshots of Klio backups, of all clusters, whole or not, oldest first. */
  list(): Promise<Outcome<SnapshotInfo[]>>;
  /** Whole backups, oldest first. Of all clusters: one whose metadata cannot be read is left out, and told in the log. */
  backups(cluster?: string): Promise<Outcome<StoredBackup[]>>;
  /**
   * Snapshots that no whole backup needs and that no running backup or copy can own: of failed, cancelled and deleted backups at
   * once, of killed ones after a day.
   */
  orphans(cluster?: string): Promise<Outcome<SnapshotInfo[]>>;
  /** Reads with cold caches. `corrupt`: what is damaged, one line each; empty when nothing is. */
  verify(snapshots: readonly SnapshotInfo[], options: VerifyOptions): Promise<Outcome<{ corrupt: string[] }>>;
  /** Copies what `target` lacks of this backup; safe to repeat. `bytes`: of the source, before deduplication. */
  copyBackupTo(
    target: SnapshotRepository,
    backup: StoredBackup,
    options?: CopyOptions,
  ): Promise<Outcome<{ bytes: number }>>;
  /** What is gone already counts as deleted. Followed by `refreshServer`. */
  delete(snapshots: readonly SnapshotInfo[]): Promise<Outcome<void>>;
  /** The snapshots get new ids by this. Followed by `refreshServer`. */
  unpin(snapshots: readonly SnapshotInfo[], pin: string): Promise<Outcome<void>>;
  /** Pinned snapshots stay, whatever the policy says; they get new ids by this, too. Followed by `refreshServer`. */
  pin(snapshots: readonly SnapshotInfo[], pin: string): Promise<Outcome<void>>;
  /** Makes this tier's repository server see what was written past it. Does nothing when none is running. */
  refreshServer(): Promise<Outcome<void>>;
  /** Lets `user@cluster` in; the same answer until the process ends. */
  clusterAccess(user: string, cluster: string): Promise<Outcome<ClusterAccess>>;
}

export type SnapshotSource = {
  content: SnapshotContent;
  tablespaceOid?: number;
  /** Absolute path of a directory or of a single file. */
  path: string;
};

export type CreateOptions = {
  pin?: string;
  /** Stored with the metadata snapshot, so that a listing has them without reading further. */
  metadata?: BackupMetadata;
  /** What an aborted call leaves behind is no backup; `abandon` it. */
  signal?: AbortSignal;
  onProgress?: (progress: SnapshotProgress) => void;
};

export type RestoreOptions = {
  parallel?: number;
  signal?: AbortSignal;
  onProgress?: (progress: SnapshotProgress) => void;
};

/**
 * The snapshots of one cluster on one tier, over the network as that cluster's user. No method rejects but with a bug.
 * Disposing removes its temporary files.
 */
export interface ClusterSnapshots extends AsyncDisposable {
  readonly tier: TierName;
  readonly user: string;
  readonly cluster: string;
  list(): Promise<Outcome<SnapshotInfo[]>>;
  /** Whole backups, oldest first. */
  backups(): Promise<Outcome<StoredBackup[]>>;
  /**
   * Stores the sources, in this order, reading every byte. ok only when all of them are stored whole; files that vanish
   * while being read are no failure.
   */
  create(backup: string, sources: readonly SnapshotSource[], options?: CreateOptions): Promise<Outcome<SnapshotInfo[]>>;
  /** Says that a backup is not wanted: it is no longer listed, and the server removes it at its next maintenance. */
  abandon(backup: string): Promise<Outcome<void>>;
  /**
   * Restores into `destination` (a directory that is empty or does not exist; for a single file: its new path). Files and
   * directories are fsynced.
   */
  restore(
    snapshot: SnapshotInfo,
    destination: string,
    options?: RestoreOptions,
  ): Promise<Outcome<{ bytes: number; files: number }>>;
  verify(snapshots: readonly SnapshotInfo[], options: VerifyOptions): Promise<Outcome<{ corrupt: string[] }>>;
}
