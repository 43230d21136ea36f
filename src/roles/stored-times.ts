// After a restart the latest-time gauges tell the truth at once: when the newest WAL file was stored, read from the tier.
import type { Log } from "../domain/log.ts";
import type { Tier, WalReader } from "../domain/wal-reader.ts";
import { parseWalName } from "../domain/wal-segment.ts";
import { errorText, KlioError } from "../errors.ts";
import type { Telemetry } from "../telemetry/telemetry.ts";

const names = {
  tier1: { time: "klio.wal.latest_written_time", counters: ["klio.wal.written", "klio.wal.written_size"] },
  tier2: {
    time: "klio.consumer.latest_written_time",
    counters: [
      "klio.consumer.written",
      "klio.consumer.written_size",
      "klio.consumer.backup_verification_success",
      "klio.consumer.backup_verification_failure",
    ],
  },
} as const;

/** The counters of a cluster on a tier are there, at 0, as soon as the cluster is known. */
export function beginCounters(tier: Tier, cluster: string, telemetry: Pick<Telemetry, "hydrate">): void {
  for (const counter of names[tier].counters) telemetry.hydrate(counter, { cluster_name: cluster }, 0);
}

/**
 * Counters of every known cluster begin at 0. `onNewest` hears of each cluster with WAL, in epoch milliseconds. A tier that
 * cannot be read now is told and left out.
 */
export async function restoreStoredTimes(
  reader: WalReader,
  telemetry: Telemetry,
  log: Log,
  onNewest: (cluster: string, newestMs: number) => void,
): Promise<void> {
  try {
    for (const cluster of await reader.clusters()) {
      const labels = { cluster_name: cluster };
      const stored = (await reader.list(cluster)).filter((file) => parseWalName(file.name)?.kind !== "partial");
      const latestMs = stored.reduce((latest, file) => Math.max(latest, file.mtimeMs), 0);
      beginCounters(reader.tier, cluster, telemetry);
      if (latestMs === 0) continue;
      telemetry.hydrate(names[reader.tier].time, labels, latestMs / 1000);
      onNewest(cluster, latestMs);
    }
  } catch (error) {
    if (!(error instanceof KlioError)) throw error;
    log.warn("wal.list.failed", `cannot read when WAL was last stored on ${reader.tier}: ${errorText(error)}`);
  }
}
