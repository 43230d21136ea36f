// What the administration socket offers, over the offload role's parts.
import type { AdminHandlers } from "../actors/grpc/serve-admin.actor.ts";
import { dropDeadLetter, type FailedTask, listDeadLetters, retryDeadLetter } from "../actors/jetstream/dead-letters.ts";
import type { ServerReport } from "../domain/cluster-status.ts";
import { unwrap } from "../domain/outcome.ts";
import {
  type SnapshotInfo,
  type SnapshotRepository,
  type StoredBackup,
  type TierName,
  USER_PIN,
} from "../domain/snapshots.ts";
import { KlioError } from "../errors.ts";
import type { ReconcileReport } from "../machines/reconciler.machine.ts";
import type { TaskKind } from "../wire/subject.ts";
import { isFailure, type OffloadParts, openedTier2 } from "./offload-parts.ts";
import type { Maintain } from "./offload-retention.ts";

type ListedBackup = StoredBackup["metadata"];
type Counts = Record<TaskKind, number>;

const kinds: readonly TaskKind[] = ["wal", "backup"];

export function adminOf(
  parts: OffloadParts,
  maintain: Maintain,
  reconcile: (cluster?: string) => Promise<ReconcileReport>,
  status: (cluster?: string) => Promise<ServerReport>,
): AdminHandlers {
  const { queue, settings } = parts;

  const openRepositories = () => {
    const opened = openedTier2(parts);
    return isFailure(opened) ? [parts.repository] : [parts.repository, opened.repository];
  };
  const repositoryOf = (tier: TierName) => {
    if (tier === "tier1") return parts.repository;
    const opened = openedTier2(parts);
    if (isFailure(opened)) throw new KlioError(opened.code, opened.reason);
    return opened.repository;
  };
  const storedOn = async (tier: TierName, cluster: string, backup: string) => {
    const repository = repositoryOf(tier);
    const stored = unwrap(await repository.backups(cluster));
    const found = stored.find(({ metadata }) => metadata.name === backup);
    if (found === undefined)
      throw new KlioError("KLIO-BACKUP-UNKNOWN", `${tier} has no backup ${backup} of ${cluster}`);
    return { tier, repository, snapshots: found.snapshots };
  };
  /** On each of the tiers, or a rejection: what is refused on one has changed nothing on another. The farther one first. */
  const storedOnAll = async (tiers: readonly TierName[], cluster: string, backup: string) => {
    const found: Awaited<ReturnType<typeof storedOn>>[] = [];
    for (const tier of tiers) found.unshift(await storedOn(tier, cluster, backup));
    return found;
  };
  /** A mistyped name would be compared with nothing, or kept as a cluster of which nothing can be recovered. */
  const requireKnown = async (cluster: string) => {
    if ((await parts.store.clusters()).includes(cluster)) return;
    const opened = openedTier2(parts);
    if (isFailure(opened) && parts.tier2.isWanted) throw new KlioError(opened.code, opened.reason); // it may be known there
    if (!isFailure(opened) && (await opened.reader.clusters()).includes(cluster)) return;
    throw new KlioError("KLIO-CLUSTER-UNKNOWN", `nothing is stored of a cluster ${cluster}`);
  };
  const eachFailed = async (
    cluster: string | undefined,
    act: (task: FailedTask) => Promise<unknown>,
  ): Promise<Counts> => {
    const counts: Counts = { wal: 0, backup: 0 };
    for (const kind of kinds)
      for (const task of unwrap(await listDeadLetters(queue, kind, cluster))) {
        await act(task);
        counts[kind] += 1;
      }
    return counts;
  };

  return {
    refresh: () => refreshAll(openRepositories()),
    // A tier that is not open yet is refused, not left out.
    listBackups: async () =>
      mergedBackups(parts.tier2.isWanted ? [parts.repository, repositoryOf("tier2")] : [parts.repository]),
    async deleteBackup(cluster, backup, tiers) {
      for (const { tier, repository, snapshots } of await storedOnAll(tiers, cluster, backup)) {
        unwrap(await repository.delete(snapshots));
        parts.log.info("admin.backup.deleted", `backup ${backup} was deleted`, { cluster, backup, tier });
      }
    },
    async pinBackup(cluster, backup, tiers, isKept) {
      for (const { tier, repository, snapshots } of await storedOnAll(tiers, cluster, backup)) {
        const isPinned = ({ pins }: SnapshotInfo) => pins.includes(USER_PIN);
        const changing = snapshots.filter((one) => isPinned(one) !== isKept);
        if (changing.length === 0) continue;
        unwrap(await (isKept ? repository.pin(changing, USER_PIN) : repository.unpin(changing, USER_PIN)));
        const text = isKept ? `backup ${backup} is kept from now on` : `backup ${backup} is kept no longer`;
        parts.log.info("admin.backup.pinned", text, { cluster, backup, tier });
      }
    },
    failed: async (kind, cluster) => unwrap(await listDeadLetters(queue, kind, cluster)),
    pending: async () => unwrap(await queue.status()).pending,
    retry: (cluster) => eachFailed(cluster, async (task) => unwrap(await retryDeadLetter(queue, task))),
    purge: (cluster) =>
      eachFailed(cluster, async (task) => unwrap(await dropDeadLetter(queue, task.kind, task.sequence))),
    async reconcile(cluster) {
      if (cluster !== undefined) await requireKnown(cluster);
      return reconcile(cluster);
    },
    async getRetention(cluster) {
      const { tier1Retention, tier2Retention } = await settings.read(cluster);
      return {
        ...(tier1Retention !== undefined && { tier1: tier1Retention }),
        ...(tier2Retention !== undefined && { tier2: tier2Retention }),
      };
    },
    async setRetention(cluster, tier, rules) {
      await requireKnown(cluster);
      await settings.write(cluster, tier === "tier1" ? { tier1Retention: rules } : { tier2Retention: rules });
    },
    applyRetention: async (cluster, tier, dryRun) => unwrap(await maintain(cluster, tier, dryRun)),
    status,
  };
}

async function refreshAll(repositories: readonly SnapshotRepository[]): Promise<void> {
  for (const repository of repositories) unwrap(await repository.refreshServer());
}

async function mergedBackups(repositories: readonly SnapshotRepository[]): Promise<ListedBackup[]> {
  const merged = new Map<string, ListedBackup>();
  for (const repository of repositories)
    for (const { metadata } of unwrap(await repository.backups())) {
      const key = `${metadata.clusterName}/${metadata.name}`;
      const known = merged.get(key) ?? metadata;
      const annotations = { ...known.annotations, [`klio.io/${repository.tier}`]: "present" };
      merged.set(key, { ...known, annotations });
    }
  return [...merged.values()].toSorted((a, b) => a.startedAt - b.startedAt);
}

/** Of a server that only reads tier 2: it looks and refreshes, and changes nothing. */
export function readOnlyAdmin(
  repository: SnapshotRepository,
  status: (cluster?: string) => Promise<ServerReport>,
): AdminHandlers {
  const refuse = async () => {
    throw new KlioError("KLIO-READ-ONLY", "this server only reads tier 2");
  };
  const noQueue = async () => {
    throw new KlioError("KLIO-QUEUE-DOWN", "this server has no queue", { hint: "ask the server that has tier 1" });
  };
  return {
    refresh: () => refreshAll([repository]),
    listBackups: () => mergedBackups([repository]),
    deleteBackup: refuse,
    pinBackup: refuse,
    failed: noQueue,
    pending: noQueue,
    retry: noQueue,
    purge: noQueue,
    reconcile: refuse,
    getRetention: async () => ({}),
    setRetention: refuse,
    applyRetention: refuse,
    status,
  };
}
