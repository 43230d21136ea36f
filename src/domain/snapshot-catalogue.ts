// Which snapshots make a backup: what a snapshot's description says, whole backups, and what nobody needs any more.
//   U1. A backup is whole when its metadata, its data directory, its control file and every tablespace that its metadata
//       name are stored, all under one place; snapshots of two runs are never joined, whatever their names.
//   U2. A tombstone hides the run it names from the list of backups and makes all its snapshots orphans.
//   U3. Without a tombstone, snapshots of a run that is not whole are orphans only when nothing was added to it for
//       `ORPHAN_AGE_MS`; those of a whole run never are.
import type { BackupMetadata } from "./backup-metadata.ts";
import type { SnapshotContent, SnapshotInfo, StoredBackup } from "./snapshots.ts";

/** What a snapshot says of itself; stored with it, and kept when it is copied to another repository. */
export type SnapshotDescription = {
  backup: string;
  content: SnapshotContent;
  /** Host that took the backup. */
  host: string;
  /** Tombstone: the place of the run that it ends. */
  of?: string;
  /** Metadata, when they are short enough; else they are read from the snapshot. */
  metadata?: BackupMetadata;
};

/**
 * `incomplete`: an interim state of a snapshot that is being taken, or what a cancelled one left. `contentId`: equal ids
 * mean equal content.
 */
export type CatalogueEntry = SnapshotInfo & {
  incomplete: boolean;
  contentId: string;
  description: SnapshotDescription;
};

/** A live upload shows an interim state at least every hour. */
export const ORPHAN_AGE_MS = 24 * 3_600_000;

/** The place of a run: its snapshots lie side by side below it. */
function placeOf(path: string): string {
  return path.slice(0, path.lastIndexOf("/"));
}

export type Run = {
  key: string;
  user: string;
  cluster: string;
  place: string;
  backup: string;
  entries: CatalogueEntry[];
};

const runKey = (user: string, cluster: string, place: string) => `${user}@${cluster}:${place}`;

/** Entries by run, in order of their first snapshot; tombstones are told apart. */
export function runsOf(entries: readonly CatalogueEntry[]): { runs: Run[]; tombstones: Map<string, CatalogueEntry[]> } {
  const runs = new Map<string, Run>();
  const tombstones = new Map<string, CatalogueEntry[]>();
  for (const entry of entries.toSorted((a, b) => a.startTimeMs - b.startTimeMs)) {
    const { user, cluster, backup, description } = entry;
    if (entry.content === "tombstone") {
      const key = runKey(user, cluster, description.of ?? "");
      tombstones.set(key, [...(tombstones.get(key) ?? []), entry]);
      continue;
    }
    const place = placeOf(entry.path);
    const key = runKey(user, cluster, place);
    const run = runs.get(key) ?? { key, user, cluster, place, backup, entries: [] };
    run.entries.push(entry);
    runs.set(key, run);
  }
  return { runs: [...runs.values()], tombstones };
}

/** The snapshot that holds the metadata of a run, if there is one. */
export function metadataEntry(run: Run): CatalogueEntry | undefined {
  return run.entries.find((entry) => entry.content === "metadata" && !entry.incomplete);
}

/** The whole backup of a run (U1); undefined when something is missing. `metadata`: as stored in its metadata snapshot. */
export function wholeBackup(run: Run, metadata: BackupMetadata): StoredBackup | undefined {
  const snapshots = run.entries.filter((entry) => !entry.incomplete);
  const has = (content: SnapshotContent, oid?: number) =>
    snapshots.some((one) => one.content === content && (oid === undefined || one.tablespaceOid === oid));
  const isWhole =
    has("metadata") &&
    has("pgdata") &&
    has("controldata") &&
    metadata.tablespaces.every(({ oid }) => has("tablespace", oid));
  return isWhole ? { metadata, snapshots: snapshots.map(snapshotInfo) } : undefined;
}

/** Without what only the catalogue knows. */
export function snapshotInfo(entry: CatalogueEntry): SnapshotInfo {
  const { incomplete: _incomplete, contentId: _contentId, description: _description, ...info } = entry;
  return info;
}

/** Snapshots that may go (U2, U3). `isWhole` tells of a run without a tombstone. */
export function orphansOf(
  entries: readonly CatalogueEntry[],
  isWhole: (run: Run) => boolean,
  nowMs: number,
): SnapshotInfo[] {
  const { runs, tombstones } = runsOf(entries);
  const dead = runs.filter((run) => {
    if (tombstones.has(run.key)) return true;
    const lastMs = Math.max(...run.entries.map((entry) => entry.endTimeMs));
    return !isWhole(run) && nowMs - lastMs > ORPHAN_AGE_MS;
  });
  // A whole run may keep what an interrupted upload of it left behind: nobody needs that.
  const leftovers = runs
    .filter((run) => !dead.includes(run) && isWhole(run))
    .flatMap((run) => run.entries.filter((entry) => entry.incomplete));
  return [...dead.flatMap((run) => run.entries), ...leftovers, ...[...tombstones.values()].flat()].map(snapshotInfo);
}
