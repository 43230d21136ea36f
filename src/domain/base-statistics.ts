// What the klio.base.* metrics say about the stored backups of one tier.
import type { StoredBackup } from "./snapshots.ts";

export type BaseStatistics = {
  /** `user@cluster:path`, path = the data directory that was backed up. */
  source: string;
  snapshots: number;
  latestBytes: number;
  latestFiles: number;
  latestDirectories: number;
  /** Epoch milliseconds at which the latest and the oldest backup ended. */
  latestEndMs: number;
  oldestEndMs: number;
};

/** One entry per data directory, in order of their names. */
export function baseStatistics(backups: readonly StoredBackup[]): BaseStatistics[] {
  const bySource = new Map<string, BaseStatistics>();
  for (const { metadata, snapshots } of backups) {
    const data = snapshots.find((snapshot) => snapshot.content === "pgdata");
    if (data === undefined) continue;
    const source = `${data.user}@${data.cluster}:${metadata.pgData}`;
    const before = bySource.get(source);
    const isLatest = before === undefined || data.endTimeMs >= before.latestEndMs;
    bySource.set(source, {
      source,
      snapshots: (before?.snapshots ?? 0) + 1,
      latestBytes: isLatest ? data.bytes : before.latestBytes,
      latestFiles: isLatest ? data.files : before.latestFiles,
      latestDirectories: isLatest ? data.directories : before.latestDirectories,
      latestEndMs: isLatest ? data.endTimeMs : before.latestEndMs,
      oldestEndMs: Math.min(before?.oldestEndMs ?? data.endTimeMs, data.endTimeMs),
    });
  }
  return [...bySource.values()].sort((a, b) => (a.source < b.source ? -1 : 1));
}
