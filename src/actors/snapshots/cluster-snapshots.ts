// The snapshots of one cluster, as its own user over the network: may add and read, never change or delete.
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { type Failure, failure, failureOf, type Outcome, ok } from "../../domain/outcome.ts";
import { runsOf, type SnapshotDescription, snapshotInfo } from "../../domain/snapshot-catalogue.ts";
import type {
  ClusterSnapshots,
  CreateOptions,
  RestoreOptions,
  SnapshotInfo,
  SnapshotSource,
  StoredBackup,
  TierName,
  VerifyOptions,
} from "../../domain/snapshots.ts";
import type { CommandResult } from "../process/run-command.ts";
import { type MetadataCache, type Runner, readBackups, readOwnCatalogue, stillStored } from "./catalogue.ts";
import { failureOfCommand } from "./classify.ts";
import { formatDescription } from "./description.ts";
import { type Kopia, runKopia } from "./kopia.ts";
import { type LinkDirectory, makeLinkDirectory } from "./link-directory.ts";
import { catalogueEntry, manifestFault, parseManifests } from "./manifest.ts";
import { parseProgress } from "./progress.ts";
import { syncDirectories, syncEntry } from "./sync-tree.ts";
import { type VerifyRun, verifySnapshots } from "./verify.ts";

type Parts = {
  tier: TierName;
  user: string;
  cluster: string;
  kopia: Kopia;
  configFile: string;
  password: string;
  /** Name of this host, told in each snapshot. */
  host: string;
  temporaryDirectory: string;
  remove: () => Promise<void>;
};
type RunOptions = { signal?: AbortSignal; onLine?: (stream: "stdout" | "stderr", line: string) => void };

const PROGRESS = ["--progress", "--progress-update-interval=1s"];

export class KopiaClusterSnapshots implements ClusterSnapshots {
  readonly tier: TierName;
  readonly user: string;
  readonly cluster: string;
  private readonly parts: Parts;
  private readonly metadata: MetadataCache = new Map();
  private readonly places = new Map<string, LinkDirectory>();

  constructor(parts: Parts) {
    this.parts = parts;
    this.tier = parts.tier;
    this.user = parts.user;
    this.cluster = parts.cluster;
  }

  private run(args: readonly string[], options: RunOptions = {}): Promise<CommandResult> {
    const { kopia, configFile, password } = this.parts;
    return runKopia(kopia, { args, configFile, password, ...options });
  }

  private get runner(): Runner {
    return { peer: "server", run: (args, signal) => this.run(args, signal === undefined ? {} : { signal }) };
  }

  async list(): Promise<Outcome<SnapshotInfo[]>> {
    const entries = await readOwnCatalogue(this.runner, this.cluster);
    return entries.kind === "ok" ? ok(entries.value.map(snapshotInfo)) : entries;
  }

  async backups(): Promise<Outcome<StoredBackup[]>> {
    const entries = await readOwnCatalogue(this.runner, this.cluster);
    return entries.kind === "ok" ? readBackups(this.runner, entries.value, this.metadata) : entries;
  }

  async create(
    backup: string,
    sources: readonly SnapshotSource[],
    options: CreateOptions = {},
  ): Promise<Outcome<SnapshotInfo[]>> {
    const { content } = sources[0] ?? { content: "pgdata" };
    if (sources.some((source) => source.content !== content))
      return failure("KLIO-BACKUP-FAILED", "one call takes sources of one content only");
    const place = await this.placeFor(backup);
    const paths: string[] = [];
    for (const source of sources) paths.push(await place.link(source));
    return this.snapshot(paths, { backup, content, host: this.parts.host }, options);
  }

  /** One command; every source must have become a whole snapshot. */
  private async snapshot(
    paths: readonly string[],
    description: SnapshotDescription,
    { pin, metadata, signal, onProgress }: CreateOptions,
  ): Promise<Outcome<SnapshotInfo[]>> {
    const what = `cannot store ${description.content} of backup ${description.backup}`;
    const text = formatDescription({ ...description, ...(metadata !== undefined && { metadata }) });
    const result = await this.run(
      [
        "snapshot",
        "create",
        "--json",
        `--description=${text}`,
        ...(pin === undefined ? [] : [`--pin=${pin}`]),
        "--no-send-snapshot-report",
        ...PROGRESS,
        ...paths,
      ],
      {
        ...(signal !== undefined && { signal }),
        onLine: (stream, line) => {
          const progress = stream === "stderr" ? parseProgress(line) : undefined;
          if (progress !== undefined) onProgress?.(progress);
        },
      },
    );
    if (result.aborted || result.code !== 0) return failureOfCommand(result, "server", what);
    try {
      const manifests = parseManifests(result.stdout);
      if (manifests.length !== paths.length)
        return failure("KLIO-BACKUP-FAILED", `${what}: ${manifests.length} of ${paths.length} sources were stored`);
      const fault = manifests.map(manifestFault).find((one) => one !== undefined);
      if (fault !== undefined) return failure("KLIO-BACKUP-FAILED", `${what}: ${fault}`);
      const entries = manifests.map(catalogueEntry).filter((entry) => entry !== undefined);
      return ok(entries.map(snapshotInfo));
    } catch (error) {
      return failureOf(error);
    }
  }

  private async placeFor(backup: string): Promise<LinkDirectory> {
    const known = this.places.get(backup);
    if (known !== undefined) return known;
    const made = await makeLinkDirectory(this.parts.temporaryDirectory, backup);
    this.places.set(backup, made);
    return made;
  }

  async abandon(backup: string): Promise<Outcome<void>> {
    const entries = await readOwnCatalogue(this.runner, this.cluster, true);
    if (entries.kind !== "ok") return entries;
    const { runs, tombstones } = runsOf(entries.value.filter((entry) => entry.backup === backup));
    const buried = new Set([...tombstones.values()].flat().map((stone) => stone.description.of));
    // A run of this process may have stored nothing that is listed yet, and still end up with a late interim state.
    const places = new Set([
      ...runs.map((run) => run.place),
      ...[...this.places].filter(([name]) => name === backup).map(([, place]) => place.path),
    ]);
    for (const place of places) {
      if (buried.has(place)) continue;
      const failed = await this.bury(backup, place);
      if (failed !== undefined) return failed;
    }
    // A later run under this name gets a place of its own.
    await this.places.get(backup)?.remove();
    this.places.delete(backup);
    return ok(undefined);
  }

  private async bury(backup: string, place: string): Promise<Failure | undefined> {
    const directory = await mkdtemp(join(this.parts.temporaryDirectory, "klio-tombstone-"));
    try {
      const stone = join(directory, "tombstone");
      await mkdir(stone);
      await writeFile(join(stone, "backup"), `${backup}\n${place}\n`);
      const description = { backup, content: "tombstone", host: this.parts.host, of: place } as const;
      const made = await this.snapshot([stone], description, {});
      return made.kind === "ok" ? undefined : made;
    } finally {
      await rm(directory, { recursive: true, force: true });
    }
  }

  async restore(
    snapshot: SnapshotInfo,
    destination: string,
    options: RestoreOptions = {},
  ): Promise<Outcome<{ bytes: number; files: number }>> {
    let result = await this.restoreId(snapshot.id, destination, options);
    // An id that is not found may have been replaced since it was listed; nothing was written then.
    if (!result.aborted && /not found/.test(result.stderr)) {
      const entries = await readOwnCatalogue(this.runner, this.cluster);
      if (entries.kind !== "ok") return entries;
      const [current] = stillStored(entries.value, [snapshot]);
      if (current !== undefined && current.id !== snapshot.id)
        result = await this.restoreId(current.id, destination, options);
    }
    const what = `cannot restore ${snapshot.content} of backup ${snapshot.backup}`;
    if (result.aborted || result.code !== 0) return failureOfCommand(result, "server", what);
    // The program fsyncs files, not the directories that name them.
    await (snapshot.content === "controldata" ? syncEntry(destination) : syncDirectories(destination));
    return ok({ bytes: snapshot.bytes, files: snapshot.files });
  }

  private restoreId(
    id: string,
    destination: string,
    { parallel = 8, signal, onProgress }: RestoreOptions,
  ): Promise<CommandResult> {
    return this.run(
      [
        "restore",
        `--parallel=${parallel}`,
        "--flush-files",
        "--no-overwrite-directories",
        ...PROGRESS,
        id,
        destination,
      ],
      {
        ...(signal !== undefined && { signal }),
        onLine: (_, line) => {
          const progress = parseProgress(line);
          if (progress !== undefined) onProgress?.(progress);
        },
      },
    );
  }

  verify(snapshots: readonly SnapshotInfo[], options: VerifyOptions): Promise<Outcome<{ corrupt: string[] }>> {
    const run: VerifyRun = (args, more) => this.run(args, more);
    const list = () => readOwnCatalogue(this.runner, this.cluster);
    return verifySnapshots({ run, list, peer: "server" }, snapshots, options);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const place of this.places.values()) await place.remove();
    await this.parts.remove();
  }
}
