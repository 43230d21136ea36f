// What sidecars ask for after a backup: that it is closed (relayed once its WAL is there), and that tier 1 is tidied.
import type { CloseBackupRequest, MaintainBackupsRequest } from "../actors/grpc/serve-wal.actor.ts";
import { type Outcome, ok, unwrap } from "../domain/outcome.ts";
import { parseRetentionRules, type RetentionRules } from "../domain/retention-policy.ts";
import { errorText } from "../errors.ts";
import { type BackupMessage, messageId, TRACEPARENT_HEADER } from "../wire/queue-message.ts";
import type { OffloadParts } from "./offload-parts.ts";
import { missingWal } from "./offload-relay.ts";
import type { Maintain } from "./offload-retention.ts";

type MaintainResult = { deletedBackups: string[]; deletedOrphans: number; deletedWalFiles: number };

export type BackupDesk = {
  /** Queues the backup for tier 2 whether its WAL is complete or not: the relay waits for it. `missing`: what tier 1 lacks. */
  closeBackup(request: CloseBackupRequest): Promise<{ scheduled: boolean; missing: string[] }>;
  /** Keeps the policy when one is given, and applies what is set to tier 1. Rejects with what went wrong. */
  maintainBackups(request: MaintainBackupsRequest): Promise<MaintainResult>;
  /** A relay task for a stored backup. */
  enqueueBackup(cluster: string, backup: string): Promise<Outcome<void>>;
};

export function backupDesk(parts: OffloadParts, maintain: Maintain): BackupDesk {
  const { queue, settings, log, tier2 } = parts;

  /** A policy that cannot be read is passed over, as peers expect: keeping too much is no harm. */
  const policyOf = (cluster: string, text: string): RetentionRules | undefined => {
    try {
      return parseRetentionRules(text);
    } catch (error) {
      log.warn("retention.policy.invalid", `the retention policy is ignored: ${errorText(error)}`, { cluster });
      return undefined;
    }
  };
  /** A recovery window that was set stays when a peer's policy says nothing of one: older peers know none. */
  const keepPolicy = async (cluster: string, key: "tier1Retention" | "tier2Retention", policy: RetentionRules) => {
    const { recoveryWindowDays } = (await settings.read(cluster))[key] ?? {};
    await settings.write(cluster, {
      [key]: { ...(recoveryWindowDays !== undefined && { recoveryWindowDays }), ...policy },
    });
  };
  const send = (message: BackupMessage, traceparent: string) => {
    const name = message.backupName ?? "";
    // Without a name each task stands for what waits at its time, so none is a repetition.
    const id =
      name === ""
        ? `${message.clusterName}/backup/at/${Date.now()}`
        : messageId("backup", message.clusterName, name, 0);
    return queue.publish("backup", message, {
      id,
      ...(traceparent !== "" && { headers: { [TRACEPARENT_HEADER]: traceparent } }),
    });
  };
  /** Backups that were queued in this run: a sidecar that waits for WAL asks every few seconds. */
  const queued = new Set<string>();

  return {
    async closeBackup(request) {
      const { cluster, backupName, startWal, endWal, segmentBytes, sendToTier2, traceparent } = request;
      const missing = await missingWal(parts.walDirectory, cluster, { startWal, endWal, segmentBytes });
      const policy = policyOf(cluster, request.tier2RetentionPolicy);
      const scheduled = sendToTier2 && tier2.isWanted;
      const key = `${cluster}/${backupName}`;
      // What stays on tier 1 has no task: its sidecar asks for the maintenance, after it has verified the backup. An older
      // peer, which names none, asks for nothing more.
      if (backupName === "" || (sendToTier2 && !queued.has(key))) {
        // Now, not when its task's turn comes: tasks may be late, repeated and out of order (P5).
        if (policy !== undefined && sendToTier2) await keepPolicy(cluster, "tier2Retention", policy);
        const message: BackupMessage = {
          clusterName: cluster,
          startWal,
          endWal,
          segmentSize: segmentBytes,
          ...(backupName !== "" && { backupName }),
          ...(sendToTier2 && { sendToTier2 }),
          ...(policy !== undefined && { tier2RetentionPolicy: policy }),
        };
        unwrap(await send(message, traceparent));
        queued.add(key);
        log.info("relay.queued", `backup ${backupName || "(unnamed)"} is queued`, {
          cluster,
          backup: backupName,
          sendToTier2,
          missing: missing.length,
        });
      }
      return { scheduled: scheduled && missing.length === 0, missing };
    },
    async maintainBackups({ cluster, retentionPolicy }) {
      const rules = policyOf(cluster, retentionPolicy);
      if (rules !== undefined) await keepPolicy(cluster, "tier1Retention", rules);
      const { deletedBackups, deletedOrphans, deletedWalFiles } = unwrap(await maintain(cluster, "tier1", false));
      return { deletedBackups, deletedOrphans, deletedWalFiles };
    },
    async enqueueBackup(cluster, backup) {
      const stored = await parts.repository.backups(cluster);
      if (stored.kind !== "ok") return stored;
      const found = stored.value.find(({ metadata }) => metadata.name === backup);
      if (found === undefined) return ok(undefined);
      const { startWal, endWal, segmentSize } = found.metadata;
      return send({ clusterName: cluster, backupName: backup, sendToTier2: true, startWal, endWal, segmentSize }, "");
    },
  };
}
