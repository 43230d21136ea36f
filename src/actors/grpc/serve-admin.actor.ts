// Administration over a unix socket that only the server's own user may open.
import { create, type DescMessage, type MessageInitShape, type MessageShape } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import type { ServerInterceptor } from "@grpc/grpc-js";
import { type BackupMetadata, formatBackupMetadata } from "../../domain/backup-metadata.ts";
import { requireClusterName } from "../../domain/cluster-name.ts";
import type { ServerReport } from "../../domain/cluster-status.ts";
import type { Log } from "../../domain/log.ts";
import { parseRetentionRules, type RetentionRules } from "../../domain/retention-policy.ts";
import type { TierName } from "../../domain/snapshots.ts";
import { KlioError } from "../../errors.ts";
import type { ReconcileReport } from "../../machines/reconciler.machine.ts";
import type { RetentionReport } from "../../machines/retention.machine.ts";
import * as pb from "../../proto/generated/klio/wal/v1/admin_pb.ts";
import { grpcDefinition } from "../../proto/grpc-service.ts";
import type { TaskKind } from "../../wire/subject.ts";
import type { FailedTask } from "../jetstream/dead-letters.ts";
import { unary } from "./handlers.ts";
import type { GrpcServer } from "./serve-grpc.ts";
import { serveLocal } from "./serve-local.ts";

type Counts = Record<TaskKind, number>;

/** What the socket offers. Every handler rejects with a KlioError, which the caller gets. */
export type AdminHandlers = {
  refresh(): Promise<void>;
  /** Both tiers merged by cluster and name; annotations say which tiers have it. */
  listBackups(): Promise<BackupMetadata[]>;
  deleteBackup(cluster: string, backup: string, tiers: readonly TierName[]): Promise<void>;
  /** `isKept`: from now on whatever the policy says; else no longer. */
  pinBackup(cluster: string, backup: string, tiers: readonly TierName[], isKept: boolean): Promise<void>;
  failed(kind: TaskKind, cluster?: string): Promise<FailedTask[]>;
  pending(): Promise<Counts>;
  retry(cluster?: string): Promise<Counts>;
  purge(cluster?: string): Promise<Counts>;
  reconcile(cluster?: string): Promise<ReconcileReport>;
  getRetention(cluster: string): Promise<{ tier1?: RetentionRules; tier2?: RetentionRules }>;
  setRetention(cluster: string, tier: TierName, rules: RetentionRules): Promise<void>;
  applyRetention(cluster: string, tier: TierName, dryRun: boolean): Promise<RetentionReport>;
  status(cluster?: string): Promise<ServerReport>;
};

const SERVICE = pb.Admin.typeName;
const json = (value: unknown) => new TextEncoder().encode(JSON.stringify(value));
const cut = (code: string, error: string) => (code === "" ? error : `${code}: ${error}`);

function tierOf(tier: pb.Tier): TierName {
  if (tier === pb.Tier.TIER_1) return "tier1";
  if (tier === pb.Tier.TIER_2) return "tier2";
  throw new KlioError("KLIO-USAGE", `no tier is named by ${tier}`, { hint: "name tier 1 or tier 2" });
}

function optionalCluster(name: string | undefined): string | undefined {
  return name === undefined || name === "" ? undefined : requireClusterName(name);
}

function implementation(handlers: AdminHandlers, log: Log) {
  const method = <I extends DescMessage, O extends DescMessage>(
    desc: { name: string; input: I; output: O },
    answer: (request: MessageShape<I>) => Promise<MessageInitShape<O>>,
  ) =>
    unary<MessageShape<I>, MessageShape<O>>(desc.name, log, async (request) =>
      create(desc.output, await answer(request)),
    );
  const { method: m } = pb.Admin;
  return {
    Refresh: method(m.refresh, async () => {
      await handlers.refresh();
      return {};
    }),
    ListBackups: method(m.listBackups, async () => {
      const items = (await handlers.listBackups()).map((metadata) => formatBackupMetadata(metadata));
      return { backupManifests: new TextEncoder().encode(`[${items.join(",")}]`) };
    }),
    QueueListFailedBackups: method(m.queueListFailedBackups, async ({ clusterName }) => ({
      backups: (await handlers.failed("backup", optionalCluster(clusterName))).map((task) => ({
        clusterName: task.cluster,
        lastAttemptTime: timestampFromMs(task.lastAttemptMs),
        error: cut(task.code, task.error),
        attempts: task.attempts,
      })),
    })),
    QueueListFailedWALs: method(m.queueListFailedWALs, async ({ clusterName }) => ({
      wals: (await handlers.failed("wal", optionalCluster(clusterName))).map((task) => ({
        clusterName: task.cluster,
        walName: task.name,
        sequence: BigInt(task.sequence),
        lastAttemptTime: timestampFromMs(task.lastAttemptMs),
        error: cut(task.code, task.error),
        attempts: task.attempts,
      })),
    })),
    QueueStatus: method(m.queueStatus, async () => {
      const { wal, backup } = await handlers.pending();
      return { pendingBackups: BigInt(backup), pendingWals: BigInt(wal) };
    }),
    DeleteBackup: method(m.deleteBackup, async ({ backupName, tiers, clusterName }) => {
      if (backupName === "" || tiers.length === 0)
        throw new KlioError("KLIO-USAGE", "a deletion names the backup, its cluster, and at least one tier");
      await handlers.deleteBackup(requireClusterName(clusterName), backupName, tiers.map(tierOf));
      return {};
    }),
    PinBackup: method(m.pinBackup, async ({ backupName, tiers, clusterName, unpin }) => {
      if (backupName === "" || tiers.length === 0)
        throw new KlioError("KLIO-USAGE", "a pin names the backup, its cluster, and at least one tier");
      await handlers.pinBackup(requireClusterName(clusterName), backupName, tiers.map(tierOf), !unpin);
      return {};
    }),
    QueueRetry: method(m.queueRetry, async ({ clusterName }) => {
      const { wal, backup } = await handlers.retry(optionalCluster(clusterName));
      return { retriedWals: wal, retriedBackups: backup };
    }),
    QueuePurge: method(m.queuePurge, async ({ clusterName }) => {
      const { wal, backup } = await handlers.purge(optionalCluster(clusterName));
      return { purgedWals: wal, purgedBackups: backup };
    }),
    Reconcile: method(m.reconcile, async ({ clusterName }) => ({
      report: json(await handlers.reconcile(optionalCluster(clusterName))),
    })),
    GetRetention: method(m.getRetention, async ({ clusterName }) => {
      const { tier1, tier2 } = await handlers.getRetention(requireClusterName(clusterName));
      const text = (rules: RetentionRules | undefined) => (rules === undefined ? "" : JSON.stringify(rules));
      return { tier1Policy: text(tier1), tier2Policy: text(tier2) };
    }),
    SetRetention: method(m.setRetention, async ({ clusterName, tier, policy }) => {
      const rules = parseRetentionRules(policy);
      if (rules === undefined) throw new KlioError("KLIO-USAGE", "no retention policy was given");
      await handlers.setRetention(requireClusterName(clusterName), tierOf(tier), rules);
      return {};
    }),
    Status: method(m.status, async ({ clusterName }) => ({
      report: json(await handlers.status(optionalCluster(clusterName))),
    })),
    ApplyRetention: method(m.applyRetention, async ({ clusterName, tier, dryRun }) => ({
      report: json(await handlers.applyRetention(requireClusterName(clusterName), tierOf(tier), dryRun)),
    })),
  };
}

/** Listens on `socketPath` (mode 0600). Rejects with KLIO-PORT-BUSY or KLIO-CONFIG. The caller closes it. */
export function serveAdmin(options: {
  socketPath: string;
  handlers: AdminHandlers;
  interceptors: ServerInterceptor[];
  log: Log;
}): Promise<GrpcServer> {
  const { socketPath, handlers, interceptors, log } = options;
  const definition = grpcDefinition(pb.Admin);
  return serveLocal({
    socketPath,
    services: [{ name: SERVICE, definition, implementation: implementation(handlers, log) }],
    interceptors,
    log,
  });
}
