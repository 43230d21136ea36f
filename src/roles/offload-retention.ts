// Retention wired: the retention machine over one tier's backups and WAL, one run per cluster and tier at a time.
import { type Actor, fromPromise, toPromise } from "xstate";
import { listDeadLetters } from "../actors/jetstream/dead-letters.ts";
import { listNames } from "../actors/spool/wal-directory.ts";
import type { BackupMetadata } from "../domain/backup-metadata.ts";
import { pruneBound } from "../domain/frontier.ts";
import { walKey } from "../domain/object-key.ts";
import { type Failure, failure, type Outcome, ok } from "../domain/outcome.ts";
import { type AgedBackup, decideRetention } from "../domain/retention-policy.ts";
import type { SnapshotRepository, StoredBackup, TierName } from "../domain/snapshots.ts";
import { decideWalPruning, hasItsWal } from "../domain/wal-retention.ts";
import {
  type ExpiryPlan,
  type ExpiryResult,
  type PruneResult,
  type RetentionInput,
  type RetentionReport,
  retention,
} from "../machines/retention.machine.ts";
import { guarded, isFailure, keyedMutex, needsOfTier2, type OffloadParts, openedTier2 } from "./offload-parts.ts";

export type Maintain = (cluster: string, tier: TierName, dryRun: boolean) => Promise<Outcome<RetentionReport>>;
export type Maintenance = {
  maintain: Maintain;
  /** Begins nothing further, and resolves when the step in hand has ended: what it works on is closed afterwards. */
  stop(): Promise<void>;
};

const isPinned = ({ snapshots }: Pick<StoredBackup, "snapshots">) => snapshots.some(({ pins }) => pins.length > 0);

function agedBackup({ metadata, snapshots }: StoredBackup, names: ReadonlySet<string>): AgedBackup {
  return {
    name: metadata.name,
    startedAtMs: metadata.startedAt * 1000,
    stoppedAtMs: metadata.stoppedAt * 1000,
    isPinned: isPinned({ snapshots }),
    hasWal: hasItsWal(metadata, names),
  };
}

/** Also the pin of a backup that tier 2 still lacks holds it: nothing leaves tier 1 before it reached tier 2. */
export function retentionOf(parts: OffloadParts): Maintenance {
  const { settings, log } = parts;
  const inTurn = keyedMutex();

  const repositoryOf = (tier: TierName): SnapshotRepository | Failure => {
    if (tier === "tier1") return parts.repository;
    const opened = openedTier2(parts);
    return isFailure(opened) ? opened : opened.repository;
  };

  /** Whole backups, and the snapshots of none, as one listing has them. */
  async function contentOf({ cluster, tier }: RetentionInput) {
    const repository = repositoryOf(tier);
    if (isFailure(repository)) return repository;
    const [stored, orphans] = await Promise.all([repository.backups(cluster), repository.orphans(cluster)]);
    if (stored.kind !== "ok") return stored;
    if (orphans.kind !== "ok") return orphans;
    return ok({ repository, backups: stored.value, orphans: orphans.value });
  }

  async function walNames({ cluster, tier }: Pick<RetentionInput, "cluster" | "tier">): Promise<Outcome<string[]>> {
    if (tier === "tier1") return ok(await listNames(parts.walDirectory, cluster));
    const opened = openedTier2(parts);
    return isFailure(opened) ? opened : ok((await opened.reader.list(cluster)).map(({ name }) => name));
  }

  async function decide(input: RetentionInput): Promise<Outcome<ExpiryPlan>> {
    const content = await contentOf(input);
    if (content.kind !== "ok") return content;
    const known = await settings.read(input.cluster);
    const rules = input.tier === "tier1" ? known.tier1Retention : known.tier2Retention;
    const names = await walNames(input);
    if (names.kind !== "ok") return names;
    const present = new Set(names.value);
    const backups = content.value.backups.map((backup) => agedBackup(backup, present));
    const { kept, expired } =
      rules === undefined
        ? { kept: Object.fromEntries(backups.map(({ name }) => [name, ["no policy"]])), expired: [] }
        : decideRetention(backups, rules, Date.now());
    return ok({ kept, expired, orphans: content.value.orphans.length });
  }

  async function expire(input: RetentionInput & { names: string[] }): Promise<Outcome<ExpiryResult>> {
    const { cluster, tier, names } = input;
    const content = await contentOf(input);
    if (content.kind !== "ok") return content;
    const { repository, backups, orphans } = content.value;
    // A person may have pinned one since it was decided about.
    const going = backups.filter((backup) => names.includes(backup.metadata.name) && !isPinned(backup));
    const snapshots = [...going.flatMap((backup) => backup.snapshots), ...orphans];
    if (snapshots.length > 0) {
      const deleted = await repository.delete(snapshots);
      if (deleted.kind !== "ok") return deleted;
    }
    for (const { metadata } of going)
      log.info("retention.expired", `backup ${metadata.name} expired`, { cluster, tier, backup: metadata.name });
    if (orphans.length > 0)
      log.info("retention.orphans", `${orphans.length} snapshots of no backup were removed`, { cluster, tier });
    return ok({ backups: going.map(({ metadata }) => metadata.name), orphans: orphans.length });
  }

  /** What tier 1 must keep because tier 2 should have it and has not. */
  async function boundsOf(cluster: string): Promise<Outcome<string[]>> {
    if (!parts.tier2.isWanted || (await settings.read(cluster)).sendToTier2 === false) return ok([]);
    const dead = await listDeadLetters(parts.queue, "wal", cluster);
    if (dead.kind !== "ok") return dead;
    const names = dead.value.map(({ name }) => name).filter((name) => /^[0-9A-F]{24}/.test(name));
    return ok([pruneBound(parts.frontierOf(cluster)), ...names]);
  }

  async function needsOfTier1(cluster: string): Promise<Outcome<BackupMetadata[]>> {
    const stored = await parts.repository.backups(cluster);
    return stored.kind === "ok" ? ok(stored.value.map(({ metadata }) => metadata)) : stored;
  }

  async function prune({
    cluster,
    tier,
    dryRun,
    without,
  }: RetentionInput & { without: string[] }): Promise<Outcome<PruneResult>> {
    const opened = tier === "tier2" ? openedTier2(parts) : undefined;
    if (opened !== undefined && isFailure(opened)) return opened;
    const needs = await (opened === undefined ? needsOfTier1(cluster) : needsOfTier2(parts, opened, cluster));
    if (needs.kind !== "ok") return needs;
    const backups = needs.value.filter(({ name }) => !without.includes(name));
    const bounds = tier === "tier1" ? await boundsOf(cluster) : ok<string[]>([]);
    if (bounds.kind !== "ok") return bounds;
    const names = await walNames({ cluster, tier });
    if (names.kind !== "ok") return names;
    const decision = decideWalPruning({ names: names.value, backups, bounds: bounds.value });
    if (decision.heldBy !== "") log.debug("retention.held", `no WAL goes: ${decision.heldBy}`, { cluster, tier });
    let files = decision.names.length;
    if (!dryRun && files > 0) {
      if (opened === undefined) files = await parts.store.remove(cluster, decision.names);
      else {
        const removed = await opened.objects.remove(
          decision.names.map((name) => walKey(parts.tier2.prefix, cluster, name)),
        );
        if (removed.kind !== "ok") return removed;
      }
      log.info("retention.pruned", `${files} WAL files before ${decision.first} went`, {
        cluster,
        tier,
      });
    }
    return ok({ files, first: decision.first, heldBy: decision.heldBy });
  }

  const running = new Set<Actor<typeof retention>>();
  const inHand = new Set<Promise<unknown>>();
  let hasStopped = false;
  const step = <T>(work: () => Promise<Outcome<T>>): Promise<Outcome<T>> => {
    const run = guarded(work);
    inHand.add(run);
    const forget = () => void inHand.delete(run);
    run.then(forget, forget); // the machine is told
    return run;
  };
  const machine = retention.provide({
    actors: {
      decideExpiry: fromPromise<Outcome<ExpiryPlan>, RetentionInput>(({ input }) => step(() => decide(input))),
      expireBackups: fromPromise<Outcome<ExpiryResult>, RetentionInput & { names: string[] }>(({ input }) =>
        step(() => expire(input)),
      ),
      pruneWal: fromPromise<Outcome<PruneResult>, RetentionInput & { without: string[] }>(({ input }) =>
        step(() => prune(input)),
      ),
    },
  });
  return {
    maintain: (cluster, tier, dryRun) =>
      inTurn(`${tier}/${cluster}`, async () => {
        if (hasStopped) return failure("KLIO-CANCELLED", "the server is stopping");
        const input = { cluster, tier, dryRun };
        const actor: Actor<typeof retention> = parts.telemetry.start(machine, {
          id: `retention/${tier}/${cluster}`,
          input,
        });
        running.add(actor);
        try {
          return await toPromise(actor);
        } finally {
          running.delete(actor);
        }
      }),
    async stop() {
      hasStopped = true;
      for (const actor of running) actor.send({ type: "shutdown.requested" });
      await Promise.allSettled(inHand);
    },
  };
}
