// Reads the catalogue of a repository: the same for direct access and for a cluster's user over the network.
import { type BackupMetadata, parseBackupMetadata } from "../../domain/backup-metadata.ts";
import { failure, failureOf, type Outcome, ok } from "../../domain/outcome.ts";
import { type CatalogueEntry, metadataEntry, type Run, runsOf, wholeBackup } from "../../domain/snapshot-catalogue.ts";
import type { SnapshotInfo, StoredBackup } from "../../domain/snapshots.ts";
import type { CommandResult } from "../process/run-command.ts";
import { failureOfCommand, type Peer } from "./classify.ts";
import { catalogueEntry, parseManifests } from "./manifest.ts";

/** Runs one command on the repository. */
export type Runner = {
  peer: Peer;
  run(args: readonly string[], signal?: AbortSignal): Promise<CommandResult>;
};

/** File of a metadata snapshot that holds the metadata. */
const METADATA_FILE = "metadata.json";
/** Reads at once, when metadata did not fit into the description. */
const READERS = 4;

export type CatalogueScope = { incomplete: boolean; cluster?: string | undefined };

/** Those of the entries that are asked for. */
export function within(
  listed: Outcome<CatalogueEntry[]>,
  { incomplete, cluster }: CatalogueScope,
): Outcome<CatalogueEntry[]> {
  if (listed.kind !== "ok") return listed;
  const isAsked = (entry: CatalogueEntry) =>
    (cluster === undefined || entry.cluster === cluster) && (incomplete || !entry.incomplete);
  return ok(listed.value.filter(isAsked));
}

/** All entries of Klio, oldest first, as they tell of themselves. */
export async function listEntries(runner: Runner, incomplete: boolean): Promise<Outcome<CatalogueEntry[]>> {
  const result = await runner.run(["snapshot", "list", "--all", "--json", ...(incomplete ? ["--incomplete"] : [])]);
  if (result.code !== 0) return failureOfCommand(result, runner.peer, "cannot list snapshots");
  try {
    const entries = parseManifests(result.stdout)
      .map(catalogueEntry)
      .filter((entry) => entry !== undefined);
    return ok(entries.toSorted((a, b) => a.startTimeMs - b.startTimeMs));
  } catch (error) {
    return failureOf(error);
  }
}

/** What the server lets a cluster's user see is that user's own; what says that it is another cluster's is left out. */
export async function readOwnCatalogue(
  runner: Runner,
  cluster: string,
  incomplete = false,
): Promise<Outcome<CatalogueEntry[]>> {
  return within(await listEntries(runner, incomplete), { incomplete, cluster });
}

/** As the program writes it. No two backups have one. */
export const sourceOf = ({ user, cluster, path }: Pick<SnapshotInfo, "user" | "cluster" | "path">) =>
  `${user}@${cluster}:${path}`;

/** Of a snapshot and of its copies, whatever their ids. */
export const lastingKey = (one: SnapshotInfo) => `${sourceOf(one)} ${one.startTimeMs}`;

/** Those of the snapshots that are still stored, under the ids that they have now: taking a pin off gives them new ones. */
export function stillStored(entries: readonly CatalogueEntry[], snapshots: readonly SnapshotInfo[]): SnapshotInfo[] {
  const current = new Map(entries.map((entry) => [lastingKey(entry), entry.id]));
  const ids = new Set(entries.map(({ id }) => id));
  return snapshots.flatMap((one) => {
    const id = ids.has(one.id) ? one.id : current.get(lastingKey(one));
    return id === undefined ? [] : [{ ...one, id }];
  });
}

/** Metadata that were read from snapshots, by the snapshot's content; they never change. */
export type MetadataCache = Map<string, BackupMetadata>;

/** The metadata of a run: from the description, the cache, or the snapshot itself. */
async function metadataOf(
  runner: Runner,
  entry: CatalogueEntry,
  cache: MetadataCache,
): Promise<Outcome<BackupMetadata>> {
  if (entry.description.metadata !== undefined) return ok(entry.description.metadata);
  const known = cache.get(entry.contentId);
  if (known !== undefined) return ok(known);
  const shown = await runner.run(["show", `${entry.contentId}/${METADATA_FILE}`]);
  if (shown.code !== 0) return failureOfCommand(shown, runner.peer, `cannot read the metadata of ${entry.backup}`);
  const metadata = parseBackupMetadata(shown.stdout);
  cache.set(entry.contentId, metadata);
  return ok(metadata);
}

/** Whole backups among the entries, oldest first. A backup whose metadata cannot be read fails the whole call. */
export async function readBackups(
  runner: Runner,
  entries: readonly CatalogueEntry[],
  cache: MetadataCache,
): Promise<Outcome<StoredBackup[]>> {
  const { runs, tombstones } = runsOf(entries);
  const alive = runs.filter((run) => !tombstones.has(run.key));
  const backups: (StoredBackup | undefined)[] = [];
  const queue = alive.entries();
  let failed: Exclude<Outcome<never>, { kind: "ok" }> | undefined;
  const read = async () => {
    for (const [index, run] of queue) {
      const outcome = await readBackup(runner, run, cache);
      if (outcome.kind === "ok") backups[index] = outcome.value;
      else failed ??= outcome;
    }
  };
  await Promise.all(Array.from({ length: READERS }, read));
  return failed ?? ok(backups.filter((backup) => backup !== undefined));
}

async function readBackup(runner: Runner, run: Run, cache: MetadataCache): Promise<Outcome<StoredBackup | undefined>> {
  const entry = metadataEntry(run);
  if (entry === undefined) return ok(undefined);
  try {
    const metadata = await metadataOf(runner, entry, cache);
    if (metadata.kind !== "ok") return metadata;
    // They are the client's own words; whose the backup is, the server knows.
    return ok(wholeBackup(run, { ...metadata.value, clusterName: run.cluster }));
  } catch (error) {
    const { code, reason } = failureOf(error);
    return failure(code, `metadata of backup ${run.backup} of ${run.cluster}: ${reason}`);
  }
}
