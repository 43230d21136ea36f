// The repository of one tier with direct access to its storage, as the server uses it.
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { failure, failureOf, type Outcome, ok } from "../../domain/outcome.ts";
import { type CatalogueEntry, metadataEntry, orphansOf, snapshotInfo } from "../../domain/snapshot-catalogue.ts";
import type {
  ClusterAccess,
  CopyOptions,
  SnapshotInfo,
  SnapshotRepository,
  StoredBackup,
  TierName,
  VerifyOptions,
} from "../../domain/snapshots.ts";
import type { CommandResult } from "../process/run-command.ts";
import {
  type CatalogueScope,
  type MetadataCache,
  type Runner,
  readBackups,
  sourceOf,
  stillStored,
  within,
} from "./catalogue.ts";
import { failureOfCommand, type Peer } from "./classify.ts";
import { borrowConnection, brokenCopies, copySnapshots, isCopyOf } from "./copy-backup.ts";
import { type Kopia, kopiaEnvironment, runKopia } from "./kopia.ts";
import { type LabelledCatalogue, LabelledListing } from "./labelled-catalogue.ts";
import { type RepositoryUsers, repositoryUser } from "./repository-user.ts";
import { SharedListing } from "./shared-listing.ts";
import { type SnapshotStorage, storageEnvironment, storagePeer } from "./storage.ts";
import { type VerifyRun, verifySnapshots } from "./verify.ts";

/** Ids on one command line. */
const BATCH = 200;

/** A running repository server of this tier. */
export type Served = { url: string; fingerprint: string };

type Parts = {
  tier: TierName;
  readOnly: boolean;
  kopia: Kopia;
  storage: SnapshotStorage;
  passPhrase: string;
  /** Connection files: for our commands, without caches for verification and copies, and for the server. */
  configs: { direct: string; cold: string; served: string };
  stateDirectory: string;
  users: RepositoryUsers;
  /** Of the server's control interface; both random. */
  control: { user: string; password: string };
  /** Within this time the server has read its repository anew; while its storage is away it would try for hours. */
  refreshMs: number;
};

type RunOptions = {
  signal?: AbortSignal;
  onLine?: (stream: "stdout" | "stderr", line: string) => void;
  config?: "direct" | "cold";
  /** Besides what this repository's storage needs. */
  env?: Readonly<Record<string, string>>;
};

const firstStart = ({ snapshots }: StoredBackup) => Math.min(...snapshots.map(({ startTimeMs }) => startTimeMs));

export class KopiaRepository implements SnapshotRepository {
  readonly tier: TierName;
  readonly readOnly: boolean;
  private readonly parts: Parts;
  private readonly peer: Peer;
  private readonly metadata: MetadataCache = new Map();
  /** Sources of what is being copied here now. A copy has the times of its original, so its age says nothing. */
  private readonly arriving = new Set<string>();
  /** Clusters whose backups could not be read, with what was told of it. */
  private readonly unreadable = new Map<string, string>();
  private readonly watchers = new Set<() => void>();
  private readonly listing: SharedListing<Outcome<LabelledCatalogue>>;
  private served: Served | undefined;

  constructor(parts: Parts) {
    this.tier = parts.tier;
    this.readOnly = parts.readOnly;
    this.parts = parts;
    this.peer = storagePeer(parts.storage);
    const labelled = new LabelledListing(this.runner, parts.kopia.log);
    this.listing = new SharedListing(() => labelled.read());
  }

  /** What a server of this repository is started with; the caller passes on what it learned of the running one. */
  server(): {
    executable: string;
    configFile: string;
    usersFile: string;
    stateDirectory: string;
    env: Record<string, string>;
  } {
    const { kopia, passPhrase, storage, configs, users, control, stateDirectory } = this.parts;
    return {
      executable: kopia.executable,
      configFile: configs.served,
      usersFile: users.file,
      stateDirectory,
      env: {
        ...kopiaEnvironment(kopia, passPhrase),
        ...storageEnvironment(storage),
        KOPIA_SERVER_CONTROL_USER: control.user,
        KOPIA_SERVER_CONTROL_PASSWORD: control.password,
      },
    };
  }

  setServed(served: Served): void {
    this.served = served;
  }

  /** Tells of each change that was made past the server, here or by a copy to this tier. Returns what ends that. */
  onChanged(watcher: () => void): () => void {
    this.watchers.add(watcher);
    return () => this.watchers.delete(watcher);
  }

  private run(
    args: readonly string[],
    { config = "direct", env, ...options }: RunOptions = {},
  ): Promise<CommandResult> {
    const { kopia, passPhrase, storage, configs } = this.parts;
    return runKopia(kopia, {
      args,
      configFile: configs[config],
      password: passPhrase,
      env: { ...env, ...storageEnvironment(storage) },
      ...options,
    });
  }

  private get runner(): Runner {
    return { peer: this.peer, run: (args, signal) => this.run(args, signal === undefined ? {} : { signal }) };
  }

  private async entries(scope: CatalogueScope): Promise<Outcome<CatalogueEntry[]>> {
    const listed = await this.listing.read();
    return listed.kind === "ok" ? within(ok(listed.value.entries), scope) : listed;
  }

  async list(): Promise<Outcome<SnapshotInfo[]>> {
    const entries = await this.entries({ incomplete: false });
    return entries.kind === "ok" ? ok(entries.value.map(snapshotInfo)) : entries;
  }

  async backups(cluster?: string): Promise<Outcome<StoredBackup[]>> {
    const entries = await this.entries({ incomplete: false, cluster });
    if (entries.kind !== "ok") return entries;
    if (cluster !== undefined) return readBackups(this.runner, entries.value, this.metadata);
    const found: StoredBackup[] = [];
    for (const [name, own] of Map.groupBy(entries.value, (entry) => entry.cluster)) {
      const backups = await readBackups(this.runner, own, this.metadata);
      if (backups.kind === "ok") found.push(...backups.value);
      else if (backups.code === "KLIO-REPOSITORY") this.tellUnreadable(name, backups.reason);
      else return backups;
    }
    return ok(found.toSorted((a, b) => firstStart(a) - firstStart(b)));
  }

  /** Once for each reason: the listing is repeated every minute. */
  private tellUnreadable(cluster: string, reason: string): void {
    if (this.unreadable.get(cluster) === reason) return;
    this.unreadable.set(cluster, reason);
    this.parts.kopia.log.warn("repository.cluster.unreadable", `the backups of ${cluster} are not listed: ${reason}`, {
      cluster,
      tier: this.tier,
    });
  }

  async orphans(cluster?: string): Promise<Outcome<SnapshotInfo[]>> {
    const entries = await this.entries({ incomplete: true, cluster });
    if (entries.kind !== "ok") return entries;
    const backups = await readBackups(this.runner, entries.value, this.metadata);
    if (backups.kind !== "ok") return backups;
    const whole = new Set(backups.value.flatMap(({ snapshots }) => snapshots.map(({ id }) => id)));
    const isWhole = (run: Parameters<typeof metadataEntry>[0]) => whole.has(metadataEntry(run)?.id ?? "");
    const orphans = orphansOf(entries.value, isWhole, Date.now());
    return ok(orphans.filter((one) => !this.arriving.has(sourceOf(one))));
  }

  verify(snapshots: readonly SnapshotInfo[], options: VerifyOptions): Promise<Outcome<{ corrupt: string[] }>> {
    const run: VerifyRun = (args, more) => this.run(args, { ...more, config: "cold" });
    const list = () => this.entries({ incomplete: false });
    return verifySnapshots({ run, list, peer: this.peer }, snapshots, options);
  }

  async copyBackupTo(
    target: SnapshotRepository,
    backup: StoredBackup,
    options: CopyOptions = {},
  ): Promise<Outcome<{ bytes: number }>> {
    if (!(target instanceof KopiaRepository))
      return failure("KLIO-REPOSITORY", `cannot copy to a repository of another kind on ${target.tier}`);
    if (target.readOnly) return failure("KLIO-READ-ONLY", `${target.tier} is read-only`);
    const sources = backup.snapshots.map(sourceOf);
    for (const one of sources) target.arriving.add(one);
    try {
      return await this.copyTo(target, backup, options);
    } finally {
      for (const one of sources) target.arriving.delete(one);
    }
  }

  private async copyTo(
    target: KopiaRepository,
    backup: StoredBackup,
    options: CopyOptions,
  ): Promise<Outcome<{ bytes: number }>> {
    // What is there already is not copied again.
    const swept = await target.removeBroken(backup);
    if (swept.kind !== "ok") return swept;
    const trusted = await this.refuseMislabelled(target, backup);
    if (trusted.kind !== "ok") return trusted;
    const source = await borrowConnection(this.parts.configs.cold, this.parts.passPhrase);
    try {
      const copied = await copySnapshots(
        (args, more) => target.run(args, { ...more, env: storageEnvironment(this.parts.storage) }),
        target.peer,
        source.configFile,
        backup,
        options,
      );
      // Also one that was stored while the copy began.
      const still = await this.refuseMislabelled(target, backup);
      if (still.kind !== "ok") return still;
      if (copied.kind !== "ok") return copied;
      const removed = await target.removeBroken(backup);
      if (removed.kind !== "ok") return removed;
      if (removed.value > 0)
        return failure(
          "KLIO-BACKUP-FAILED",
          `the copy of backup ${backup.metadata.name} lacked files, and was removed`,
        );
      const refreshed = await target.refreshServer();
      return refreshed.kind === "ok" ? copied : refreshed;
    } finally {
      await source.remove();
    }
  }

  /**
   * The program copies what is labelled with the backup's places, and stores the copy for whom it says that it is of: one that
   * names another cluster would be that cluster's on the target. What came there so is removed.
   */
  private async refuseMislabelled(target: KopiaRepository, backup: StoredBackup): Promise<Outcome<void>> {
    const listed = await this.listing.read();
    if (listed.kind !== "ok") return listed;
    const owners = new Set(backup.snapshots.map(({ user, cluster }) => `${user}@${cluster}`));
    const lies = listed.value.mislabelled.filter(({ owner }) => owners.has(owner));
    if (lies[0] === undefined) return ok(undefined);
    const there = await target.entries({ incomplete: true });
    if (there.kind !== "ok") return there;
    const copies = there.value.filter((entry) => lies.some(({ says }) => isCopyOf(entry, says)));
    const deleted = copies.length === 0 ? ok(undefined) : await target.delete(copies);
    if (deleted.kind !== "ok") return deleted;
    return failure(
      "KLIO-BACKUP-FAILED",
      `backup ${backup.metadata.name} is not copied: ${lies[0].owner} stored snapshot ${lies[0].says.id}, which says that it is of another source`,
    );
  }

  /** How many copies of the backup's snapshots held something else and went, the metadata first. */
  private async removeBroken(backup: StoredBackup): Promise<Outcome<number>> {
    const entries = await this.entries({ incomplete: true });
    if (entries.kind !== "ok") return entries;
    const broken = brokenCopies(entries.value, backup.snapshots).map(snapshotInfo);
    if (broken.length === 0) return ok(0);
    const { name } = backup.metadata;
    this.parts.kopia.log.warn("repository.copy.broken", `a copy of backup ${name} lacks files; it is made anew`, {
      name,
    });
    const deleted = await this.delete(broken);
    return deleted.kind === "ok" ? ok(broken.length) : deleted;
  }

  async delete(snapshots: readonly SnapshotInfo[]): Promise<Outcome<void>> {
    // First what makes a backup, last what says that it is not wanted: however far this comes, nothing half is listed.
    const rank = ({ content }: SnapshotInfo) => (content === "metadata" ? 0 : content === "tombstone" ? 2 : 1);
    const inOrder = snapshots.toSorted((a, b) => rank(a) - rank(b));
    return this.change(inOrder, "delete", (ids) => ["snapshot", "delete", "--delete", ...ids]);
  }

  unpin(snapshots: readonly SnapshotInfo[], pin: string): Promise<Outcome<void>> {
    return this.change(snapshots, "unpin", (ids) => ["snapshot", "pin", `--remove=${pin}`, ...ids]);
  }

  pin(snapshots: readonly SnapshotInfo[], pin: string): Promise<Outcome<void>> {
    return this.change(snapshots, "pin", (ids) => ["snapshot", "pin", `--add=${pin}`, ...ids]);
  }

  /** Changes those snapshots that are still stored, under the ids that they have now. */
  private async change(
    snapshots: readonly SnapshotInfo[],
    verb: "delete" | "pin" | "unpin",
    argsOf: (ids: readonly string[]) => string[],
  ): Promise<Outcome<void>> {
    if (this.readOnly) return failure("KLIO-READ-ONLY", `cannot ${verb} snapshots: ${this.tier} is read-only`);
    const entries = await this.entries({ incomplete: true });
    if (entries.kind !== "ok") return entries;
    const ids = stillStored(entries.value, snapshots).map(({ id }) => id);
    for (let at = 0; at < ids.length; at += BATCH) {
      const result = await this.run(argsOf(ids.slice(at, at + BATCH)));
      if (result.code !== 0) return failureOfCommand(result, this.peer, `cannot ${verb} snapshots`);
    }
    return ids.length === 0 ? ok(undefined) : this.refreshServer();
  }

  refreshServer(): Promise<Outcome<void>> {
    for (const tell of this.watchers) tell();
    return this.tellServer();
  }

  /** Makes the server read its users and the repository anew. */
  private async tellServer(): Promise<Outcome<void>> {
    if (this.served === undefined) return ok(undefined);
    const { kopia, control, passPhrase, stateDirectory, refreshMs } = this.parts;
    const result = await runKopia(kopia, {
      args: [
        "server",
        "refresh",
        `--address=${this.served.url}`,
        `--server-cert-fingerprint=${this.served.fingerprint}`,
      ],
      configFile: join(stateDirectory, "control.config"),
      password: passPhrase,
      env: { KOPIA_SERVER_USERNAME: control.user, KOPIA_SERVER_PASSWORD: control.password },
      signal: AbortSignal.timeout(refreshMs),
    });
    if (result.aborted)
      return failure(
        "KLIO-REPOSITORY-DOWN",
        `the ${this.tier} server did not read its repository anew within ${refreshMs / 1_000} s: is its storage away?`,
      );
    return result.code === 0
      ? ok(undefined)
      : failureOfCommand(result, "server", `cannot refresh the ${this.tier} server`);
  }

  async clusterAccess(user: string, cluster: string): Promise<Outcome<ClusterAccess>> {
    const { users } = this.parts;
    if (this.served === undefined)
      return failure("KLIO-REPOSITORY-DOWN", `the repository server of ${this.tier} does not run`);
    const { fingerprint } = this.served;
    try {
      const name = repositoryUser(user, cluster);
      const { password, isNew } = await users.password(name);
      if (isNew) {
        const refreshed = await this.tellServer();
        if (refreshed.kind !== "ok") {
          users.forget(name);
          return refreshed;
        }
      }
      return ok({ user: name, password, fingerprint });
    } catch (error) {
      return failureOf(error);
    }
  }

  /** Removes the connection files. */
  async [Symbol.asyncDispose](): Promise<void> {
    for (const file of Object.values(this.parts.configs))
      for (const suffix of ["", ".mlock"]) await rm(`${file}${suffix}`, { force: true });
  }
}
