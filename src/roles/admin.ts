// Administration of a running server, for the commands: one session on its socket.
import { type MessageShape, toJson } from "@bufbuild/protobuf";
import { timestampMs } from "@bufbuild/protobuf/wkt";
import { adminMethods, connectAdmin } from "../actors/grpc/admin-client.ts";
import type { ServerReport } from "../domain/cluster-status.ts";
import type { RetentionRules } from "../domain/retention-policy.ts";
import type { TierName } from "../domain/snapshots.ts";
import type { ReconcileReport } from "../machines/reconciler.machine.ts";
import type { RetentionReport } from "../machines/retention.machine.ts";
import { Tier } from "../proto/generated/klio/wal/v1/admin_pb.ts";

type FailedRow = {
  sequence: string;
  cluster: string;
  name: string;
  lastAttempt: string;
  attempts: string;
  error: string;
};
/** `document`: as published, protobuf's JSON with defaults. */
export type FailedList = { rows: FailedRow[]; document: unknown };
export type { ReconcileReport, RetentionReport, RetentionRules, TierName };

/** A comparison of hundreds of clusters, or a deletion of many snapshots. */
const LONG_MS = 3_600_000;
const tiers = { tier1: Tier.TIER_1, tier2: Tier.TIER_2 } as const;
const rfc3339 = (time: Parameters<typeof timestampMs>[0] | undefined) =>
  time === undefined ? "" : new Date(timestampMs(time)).toISOString().replace(/\.\d+Z$/, "Z");
const reportOf = <T>(report: Uint8Array): T => JSON.parse(new TextDecoder().decode(report)) as T;
const named = (cluster: string | undefined) => (cluster === undefined ? {} : { clusterName: cluster });

type FailedWals = MessageShape<typeof adminMethods.queueListFailedWALs.output>;
type FailedBackups = MessageShape<typeof adminMethods.queueListFailedBackups.output>;

function walRows({ wals }: FailedWals): FailedRow[] {
  return wals.map(({ sequence, clusterName, walName, lastAttemptTime, attempts, error }) => ({
    sequence: String(sequence),
    cluster: clusterName,
    name: walName,
    lastAttempt: rfc3339(lastAttemptTime),
    attempts: String(attempts),
    error,
  }));
}

function backupRows({ backups }: FailedBackups): FailedRow[] {
  return backups.map(({ clusterName, lastAttemptTime, attempts, error }) => ({
    sequence: "",
    cluster: clusterName,
    name: "",
    lastAttempt: rfc3339(lastAttemptTime),
    attempts: String(attempts),
    error,
  }));
}

function sessionOf(client: ReturnType<typeof connectAdmin>) {
  const long = { timeoutMs: LONG_MS };
  return {
    async queueStatus() {
      const { pendingBackups, pendingWals } = await client.call(adminMethods.queueStatus, {});
      return { pendingBackups: Number(pendingBackups), pendingWals: Number(pendingWals) };
    },
    async failedWals(cluster?: string): Promise<FailedList> {
      const method = adminMethods.queueListFailedWALs;
      const list = await client.call(method, named(cluster));
      return { rows: walRows(list), document: toJson(method.output, list, { alwaysEmitImplicit: true }) };
    },
    async failedBackups(cluster?: string): Promise<FailedList> {
      const method = adminMethods.queueListFailedBackups;
      const list = await client.call(method, named(cluster));
      return { rows: backupRows(list), document: toJson(method.output, list, { alwaysEmitImplicit: true }) };
    },
    async retry(cluster?: string) {
      const { retriedWals, retriedBackups } = await client.call(adminMethods.queueRetry, named(cluster), long);
      return { wals: retriedWals, backups: retriedBackups };
    },
    async purge(cluster?: string) {
      const { purgedWals, purgedBackups } = await client.call(adminMethods.queuePurge, named(cluster), long);
      return { wals: purgedWals, backups: purgedBackups };
    },
    async reconcile(cluster?: string) {
      const { report } = await client.call(adminMethods.reconcile, named(cluster), long);
      return reportOf<ReconcileReport>(report);
    },
    async refresh() {
      await client.call(adminMethods.refresh, {}, long);
    },
    /** A JSON array, as the server wrote it: LSNs pass what a JSON parser keeps exactly. */
    async listBackups(): Promise<string> {
      const { backupManifests } = await client.call(adminMethods.listBackups, {}, long);
      return new TextDecoder().decode(backupManifests);
    },
    async deleteBackup(cluster: string, backup: string, from: readonly TierName[]) {
      const request = { clusterName: cluster, backupName: backup, tiers: from.map((tier) => tiers[tier]) };
      await client.call(adminMethods.deleteBackup, request, long);
    },
    async pinBackup(cluster: string, backup: string, on: readonly TierName[], isKept: boolean) {
      const request = {
        clusterName: cluster,
        backupName: backup,
        tiers: on.map((tier) => tiers[tier]),
        unpin: !isKept,
      };
      await client.call(adminMethods.pinBackup, request, long);
    },
    async getRetention(cluster: string): Promise<Partial<Record<TierName, RetentionRules>>> {
      const { tier1Policy, tier2Policy } = await client.call(adminMethods.getRetention, { clusterName: cluster });
      return {
        ...(tier1Policy !== "" && { tier1: JSON.parse(tier1Policy) as RetentionRules }),
        ...(tier2Policy !== "" && { tier2: JSON.parse(tier2Policy) as RetentionRules }),
      };
    },
    async setRetention(cluster: string, tier: TierName, rules: RetentionRules) {
      const request = { clusterName: cluster, tier: tiers[tier], policy: JSON.stringify(rules) };
      await client.call(adminMethods.setRetention, request);
    },
    async status(cluster?: string): Promise<ServerReport> {
      const { report } = await client.call(adminMethods.status, named(cluster), long);
      return reportOf<ServerReport>(report);
    },
    async applyRetention(cluster: string, tier: TierName, dryRun: boolean) {
      const request = { clusterName: cluster, tier: tiers[tier], dryRun };
      const { report } = await client.call(adminMethods.applyRetention, request, long);
      return reportOf<RetentionReport>(report);
    },
  };
}

export type AdminSession = ReturnType<typeof sessionOf>;

/** Rejects with the server's KlioError, or KLIO-SERVER-DOWN when nobody answers on the socket. */
export async function withAdmin<T>(socketPath: string, act: (session: AdminSession) => Promise<T>): Promise<T> {
  const client = connectAdmin(socketPath);
  try {
    return await act(sessionOf(client));
  } finally {
    client.close();
  }
}
