// The IO of one restore, behind its machine: what was opened, read and chosen so far.
import { join, resolve } from "node:path";
import { connectWal, type WalClient } from "../actors/grpc/wal-client.ts";
import {
  checkDestinations,
  claimDestinations,
  clearDestinations,
  contentIn,
  freeBytes,
  unpackContent,
} from "../actors/restore/destination.ts";
import { type RecoveryFiles, sealDestination, writeRecoveryFiles } from "../actors/restore/recovery-files.ts";
import { readWalCatalogue, type WalCatalogue } from "../actors/restore/wal-catalogue.ts";
import type { BackupMetadata } from "../domain/backup-metadata.ts";
import { type Lsn, lsn } from "../domain/lsn.ts";
import { type Failure, failure, failureOf, type Outcome, ok } from "../domain/outcome.ts";
import { mustPass, obstacles, type ReachFindings, segmentsBackward } from "../domain/reachability.ts";
import { newestTimeline, type WalReach, walReach } from "../domain/recoverable-range.ts";
import type { RecoverySettings } from "../domain/recovery-settings.ts";
import { chooseBackup, startLsnOf } from "../domain/recovery-target.ts";
import type { ClusterSnapshots, SnapshotContent, SnapshotInfo, StoredBackup, TierName } from "../domain/snapshots.ts";
import type { TimelineHistory } from "../domain/timeline.ts";
import type {
  ChooseAnswer,
  FetchAnswer,
  ReachAnswer,
  RestoreOutput,
  TierAndBackup,
} from "../machines/restore.machine.ts";
import type { RestoreOptions, RestorePhase, RestorePlan, RestoreResult } from "./restore.ts";
import { type AskedTier, walTiers } from "./wal-fetch.ts";

/** A measure that is not taken is no harm. */
const REPORT_MS = 5_000;

type Chosen = { stored: StoredBackup; snapshots: ClusterSnapshots; history: TimelineHistory; tier: TierName };

/** The caller disposes it. */
export function openRestoreSession(options: RestoreOptions) {
  const { config, target, signal, log } = options;
  const destination = resolve(options.destination);
  const wal = walTiers(config, options.tier);
  const clients = new Map<TierName, Promise<WalClient>>();
  const opened = new Map<TierName, ClusterSnapshots>();
  let catalogue: WalCatalogue | undefined;
  let chosen: Chosen | undefined;
  let plan: RestorePlan | undefined;
  let claimed: string[] = [];
  /** A fetch that was told to stop may still be writing. */
  let fetching: Promise<unknown> = Promise.resolve();

  const clientOf = (tier: TierName): Promise<WalClient> => {
    const known = clients.get(tier);
    if (known !== undefined) return known;
    const { serverCertPath = "", clientCertPath = "", clientKeyPath = "" } = config.wal ?? {};
    const address = wal.find((one) => one.tier === tier)?.address ?? "";
    const made = connectWal({
      address,
      tls: { serverCertPath, clientCertPath, clientKeyPath },
      clusterName: config.clusterName,
      telemetry: options.telemetry,
      log,
    });
    clients.set(tier, made);
    return made;
  };
  const readCatalogue = async (): Promise<Outcome<WalCatalogue>> => {
    if (catalogue !== undefined) return ok(catalogue);
    const sources = await Promise.all(wal.map(async ({ tier }) => ({ tier, client: await clientOf(tier) })));
    const read = await readWalCatalogue(sources, signal);
    if (read.kind !== "ok") return read;
    for (const { tier, failure: why } of read.value.silent)
      log.warn("restore.wal.silent", `WAL of ${tier} is not considered: ${why.reason}`, { tier, code: why.code });
    catalogue = read.value;
    return read;
  };
  const snapshotsOf = async (tier: TierName): Promise<Outcome<ClusterSnapshots>> => {
    const known = opened.get(tier);
    if (known !== undefined) return ok(known);
    const made = await options.openSnapshots(tier, await clientOf(tier));
    if (made.kind === "ok") opened.set(tier, made.value);
    return made;
  };
  const requireChosen = (): Chosen => {
    if (chosen === undefined) throw new Error("no backup was chosen");
    return chosen;
  };

  /** Paths of the backup's tablespaces now, by oid. */
  const tablespacePaths = (backup: BackupMetadata): Map<number, string> =>
    new Map(backup.tablespaces.map(({ name, oid, path }) => [oid, options.tablespaces.get(name) ?? path]));

  const filesOf = (): RecoveryFiles => {
    const { stored, history } = requireChosen();
    const settings: RecoverySettings | undefined =
      options.restoreCommand === undefined
        ? undefined
        : { restoreCommand: options.restoreCommand(walTierOf()), timeline: history.timeline, target };
    const backup = stored.metadata;
    return { destination, backup, tablespaces: tablespacePaths(backup), ...(settings !== undefined && { settings }) };
  };
  /** The tiers whose WAL was found to suffice, and no other: one that was silent would make the recovery stop. */
  const walTierOf = (): AskedTier => {
    const [first, second] = catalogue?.tiers ?? [];
    return second === undefined && first !== undefined ? first : options.tier;
  };

  async function answer<T>(work: () => Promise<T>): Promise<T | Failure> {
    try {
      return await work();
    } catch (error) {
      return failureOf(error);
    }
  }

  async function choose({ tier, backup: pinned }: TierAndBackup): Promise<ChooseAnswer> {
    const snapshots = await snapshotsOf(tier);
    if (snapshots.kind !== "ok") return snapshots;
    const backups = await snapshots.value.backups();
    if (backups.kind !== "ok") return backups;
    const known = await readCatalogue();
    if (known.kind !== "ok") return known;
    const timeline = options.targetTimeline ?? newestTimeline(known.value.inventory);
    const history = await known.value.history(timeline);
    if (history.kind !== "ok")
      return history.code === "KLIO-WAL-MISSING" ? { kind: "none", reasons: [history.reason] } : history;
    const name = pinned === "" ? options.backupId : pinned;
    const choice = chooseBackup(
      backups.value.map(({ metadata }) => metadata),
      target,
      history.value,
      name,
    );
    if (choice.kind === "none") return choice;
    const { systemId } = known.value;
    if (systemId !== undefined && choice.backup.systemId && choice.backup.systemId !== systemId)
      return {
        kind: "none",
        reasons: [
          `backup ${choice.backup.name} is of database system ${choice.backup.systemId}, the stored WAL is of ${systemId}`,
        ],
      };
    const stored = backups.value.find(({ metadata }) => metadata === choice.backup);
    if (stored === undefined) throw new Error("a chosen backup comes from the list");
    chosen = { stored, snapshots: snapshots.value, history: history.value, tier };
    return { kind: "chosen", backup: choice.backup.name };
  }

  async function checkReachable({ tier }: TierAndBackup): Promise<ReachAnswer> {
    const { stored, history } = requireChosen();
    const backup = stored.metadata;
    const known = await readCatalogue();
    if (known.kind !== "ok") return known;
    const names = backup.tablespaces.map(({ name }) => name);
    const unknown = [...options.tablespaces.keys()].filter((name) => !names.includes(name));
    if (unknown.length > 0)
      return {
        kind: "unreachable",
        missing: unknown.map(
          (name) => `backup ${backup.name} has no tablespace ${name} (it has ${names.join(", ") || "none"})`,
        ),
      };
    const paths = tablespacePaths(backup);
    const free = checkDestinations([destination, ...paths.values()]);
    if (free.kind !== "ok") return free;

    const question = { backup, target, history, inventory: known.value.inventory, gaps: known.value.gaps };
    const reach = walReach(history, startLsnOf(backup), backup.segmentSize, known.value.inventory);
    const found = await findOut(known.value, question, reach);
    if (found.kind !== "ok") return found;
    const missing = obstacles(question, reach, found.value);
    if (missing.length > 0) return { kind: "unreachable", missing };
    const bytes = stored.snapshots.reduce((sum, one) => sum + one.bytes, 0);
    plan = {
      backup: backup.name,
      tier,
      destination,
      tablespaces: Object.fromEntries(backup.tablespaces.map(({ name, oid, path }) => [name, paths.get(oid) ?? path])),
      bytes,
      timeline: history.timeline,
      target,
      walTiers: known.value.tiers,
      firstWal: backup.startWal,
      lastWal: reach.tail?.name ?? reach.last ?? backup.startWal,
    };
    const space = await freeBytes(destination);
    if (space < bytes)
      log.warn("restore.space", `${destination} has ${space} bytes free, the backup needs ${bytes}`, { bytes });
    options.onPlan?.(plan);
    return { kind: "reachable" };
  }

  /** Content that is not told by names: read only when it decides. */
  async function findOut(
    known: WalCatalogue,
    question: { backup: BackupMetadata; history: TimelineHistory },
    reach: WalReach,
  ): Promise<Outcome<ReachFindings>> {
    const findings: ReachFindings = {};
    const { tail } = reach;
    const tailLimit = tail?.goodTo === undefined ? undefined : Number(tail.goodTo - reach.endLsn);
    if (tail !== undefined && mustPass({ backup: question.backup, target }) > reach.endLsn) {
      const measured = await known.measure(tail.name);
      if (measured.kind !== "ok") return measured;
      if (measured.value !== undefined) findings.tailEnd = endOf(reach.endLsn, measured.value.bytes, tail.goodTo);
    }
    if (target.kind !== "time") return ok(findings);
    for (const name of segmentsBackward(question, reach)) {
      const measured = await known.measure(name, name === tail?.name ? tailLimit : undefined);
      if (measured.kind !== "ok") return measured;
      if (measured.value?.lastEndUs === undefined) continue;
      findings.lastEndUs = measured.value.lastEndUs;
      break;
    }
    return ok(findings);
  }

  const snapshotOf = (content: SnapshotContent, oid?: number): SnapshotInfo | undefined =>
    requireChosen().stored.snapshots.find((one) => one.content === content && one.tablespaceOid === oid);

  async function fetchOne(
    phase: RestorePhase,
    snapshot: SnapshotInfo | undefined,
    what: string,
    to: string,
    stop: AbortSignal,
  ): Promise<FetchAnswer> {
    if (snapshot === undefined)
      return failure("KLIO-BACKUP-CORRUPT", `backup ${requireChosen().stored.metadata.name} lacks its ${what}`);
    const running = requireChosen().snapshots.restore(snapshot, to, {
      signal: stop,
      onProgress: ({ processedBytes }) =>
        options.onProgress?.({ phase, bytes: processedBytes, totalBytes: snapshot.bytes }),
    });
    fetching = running;
    return running;
  }

  async function fetchTree(
    phase: RestorePhase,
    snapshot: SnapshotInfo | undefined,
    what: string,
    to: string,
    stop: AbortSignal,
  ): Promise<FetchAnswer> {
    const fetched = await fetchOne(phase, snapshot, what, contentIn(to), stop);
    if (fetched.kind !== "ok") return fetched;
    const unpacked = await unpackContent(to);
    return unpacked.kind === "ok" ? fetched : unpacked;
  }

  async function fetchTablespaces(_: TierAndBackup, stop: AbortSignal): Promise<FetchAnswer> {
    const { stored } = requireChosen();
    const paths = tablespacePaths(stored.metadata);
    claimed = [destination, ...paths.values()];
    const claim = await claimDestinations(claimed);
    if (claim.kind !== "ok") return claim;
    const sum = { bytes: 0, files: 0 };
    for (const { name, oid, path } of stored.metadata.tablespaces) {
      const to = paths.get(oid) ?? path;
      const fetched = await fetchTree("tablespaces", snapshotOf("tablespace", oid), `tablespace ${name}`, to, stop);
      if (fetched.kind !== "ok") return fetched;
      sum.bytes += fetched.value.bytes;
      sum.files += fetched.value.files;
    }
    return ok(sum);
  }

  async function fetchControlFile(_: TierAndBackup, stop: AbortSignal): Promise<FetchAnswer> {
    // From the control file on PostgreSQL could start: whatever it must find is there before.
    const written = await writeRecoveryFiles(filesOf());
    if (written.kind !== "ok") return written;
    const to = join(destination, "global", "pg_control");
    return fetchOne("controlFile", snapshotOf("controldata"), "control file", to, stop);
  }

  return {
    choose: (input: TierAndBackup) => answer(() => choose(input)),
    checkReachable: (input: TierAndBackup) => answer(() => checkReachable(input)),
    fetchTablespaces,
    fetchData: (_: TierAndBackup, stop: AbortSignal) =>
      fetchTree("data", snapshotOf("pgdata"), "data directory", destination, stop),
    fetchControlFile,
    finish: () => sealDestination(filesOf()),
    async clear(): Promise<Outcome<null>> {
      await fetching;
      return clearDestinations(claimed);
    },
    result(output: RestoreOutput, seconds: number): RestoreResult {
      if (plan === undefined) throw new Error("a restore without a plan");
      const { settings } = filesOf();
      return {
        ...plan,
        tier: output.tier,
        bytes: output.bytes,
        files: output.files,
        seconds,
        ...(settings !== undefined && { restoreCommand: settings.restoreCommand }),
      };
    },
    /** Tells tier 1's server how long it took: the measure of the next restore. */
    async report({ backup, tier, bytes, seconds }: RestoreResult): Promise<void> {
      if (!wal.some((one) => one.tier === "tier1")) return;
      const client = await clientOf("tier1");
      const told = await client.reportRead(
        { tier, purpose: "restore", backup, bytes, seconds },
        { timeoutMs: REPORT_MS },
      );
      if (told.kind !== "ok") log.debug("restore.read", `the server does not keep the measure: ${told.reason}`);
    },
    async [Symbol.asyncDispose]() {
      for (const snapshots of opened.values()) await snapshots[Symbol.asyncDispose]();
      for (const client of await Promise.allSettled(clients.values()))
        if (client.status === "fulfilled") client.value.close();
    },
  };
}

function endOf(start: Lsn, bytes: number, goodTo: Lsn | undefined): Lsn {
  const end = lsn(start + BigInt(bytes));
  return goodTo !== undefined && goodTo < end ? goodTo : end;
}
