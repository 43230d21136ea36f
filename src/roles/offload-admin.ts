// What the administration socket offers, over the offload role's parts.
import { dropDeadLetter, type FailedTask, listDeadLetters, retryDeadLetter } from "../actors/jetstream/dead-letters.ts";
import { unwrap } from "../domain/outcome.ts";
import type { RetentionRules } from "../domain/retention-policy.ts";
import type { StoredBackup, TierName } from "../domain/snapshots.ts";
import { KlioError } from "../errors.ts";
import type { ReconcileReport } from "../machines/reconciler.machine.ts";
import type { RetentionReport } from "../machines/retention.machine.ts";
import type { TaskKind } from "../wire/subject.ts";
import { isFailure, type OffloadParts, openedTier2 } from "./offload-parts.ts";
import type { Maintain } from "./offload-retention.ts";

export type ListedBackup = StoredBackup["metadata"];
type Counts = Record<TaskKind, number>;

/** Every handler rejects with a KlioError. */
export type AdminHandlers = {
  refresh(): Promise<void>;
  /** Both tiers merged by cluster and name; annotations say which tiers have it. */
  listBackups(): Promise<ListedBackup[]>;
  deleteBackup(cluster: string, backup: string, tiers: readonly TierName[]): Promise<void>;
  failed(kind: TaskKind, cluster?: string): Promise<FailedTask[]>;
  pending(): Promise<Counts>;
  retry(cluster?: string): Promise<Counts>;
  purge(cluster?: string): Promise<Counts>;
  reconcile(cluster?: string): Promise<ReconcileReport>;
  getRetention(cluster: string): Promise<{ tier1?: RetentionRules; tier2?: RetentionRules }>;
  setRetention(cluster: string, tier: TierName, rules: RetentionRules): Promise<void>;
  applyRetention(cluster: string, tier: TierName, dryRun: boolean): Promise<RetentionReport>;
};

const kinds: readonly TaskKind[] = ["wal", "backup"];

export function adminOf(
  parts: OffloadParts,
  maintain: Maintain,
  reconcile: (cluster?: string) => Promise<ReconcileReport>,
): AdminHandlers {
  const { queue, settings } = parts;

  const repositories = () => {
    const opened = openedTier2(parts);
    return isFailure(opened) ? [parts.repository] : [parts.repository, opened.repository];
  };
  const repositoryOf = (tier: TierName) => {
    if (tier === "tier1") return parts.repository;
    const opened = openedTier2(parts);
    if (isFailure(opened)) throw new KlioError(opened.code, opened.reason);
    return opened.repository;
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
    async refresh() {
      for (const repository of repositories()) unwrap(await repository.refreshServer());
    },
    async listBackups() {
      const merged = new Map<string, ListedBackup>();
      for (const repository of repositories())
        for (const { metadata } of unwrap(await repository.backups())) {
          const key = `${metadata.clusterName}/${metadata.name}`;
          const known = merged.get(key) ?? metadata;
          const annotations = { ...known.annotations, [`klio.io/${repository.tier}`]: "present" };
          merged.set(key, { ...known, annotations });
        }
      return [...merged.values()].toSorted((a, b) => a.startedAt - b.startedAt);
    },
    async deleteBackup(cluster, backup, tiers) {
      for (const tier of tiers) {
        const repository = repositoryOf(tier);
        const stored = unwrap(await repository.backups(cluster));
        const found = stored.find(({ metadata }) => metadata.name === backup);
        if (found === undefined)
          throw new KlioError("KLIO-BACKUP-UNKNOWN", `${tier} has no backup ${backup} of ${cluster}`);
        unwrap(await repository.delete(found.snapshots));
        parts.log.info("admin.backup.deleted", `backup ${backup} was deleted`, { cluster, backup, tier });
      }
    },
    failed: async (kind, cluster) => unwrap(await listDeadLetters(queue, kind, cluster)),
    pending: async () => unwrap(await queue.status()).pending,
    retry: (cluster) => eachFailed(cluster, async (task) => unwrap(await retryDeadLetter(queue, task))),
    purge: (cluster) =>
      eachFailed(cluster, async (task) => unwrap(await dropDeadLetter(queue, task.kind, task.sequence))),
    reconcile,
    async getRetention(cluster) {
      const { tier1Retention, tier2Retention } = await settings.read(cluster);
      return {
        ...(tier1Retention !== undefined && { tier1: tier1Retention }),
        ...(tier2Retention !== undefined && { tier2: tier2Retention }),
      };
    },
    setRetention: (cluster, tier, rules) =>
      settings.write(cluster, tier === "tier1" ? { tier1Retention: rules } : { tier2Retention: rules }),
    applyRetention: async (cluster, tier, dryRun) => unwrap(await maintain(cluster, tier, dryRun)),
  };
}
