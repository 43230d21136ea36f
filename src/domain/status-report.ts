// The whole answer of `klio status`: what the server says of each cluster, with the stream and the slot as the sidecar and
// PostgreSQL tell them, and whether limits are kept. Keys as in its JSON.
import type { ClusterReport, QueueReport } from "./cluster-status.ts";

export type StreamReport = {
  state: string;
  /** Why it does not flow; empty: it does. */
  condition: string;
  reason: string;
  timeline: number;
  written_lsn: string;
  flushed_lsn: string;
  source_end_lsn: string;
  exposure_seconds: number;
  exposure_bytes: number;
  /** The server confirms whole files only. */
  whole_files_only: boolean;
  backup_state: string;
};
/** `told_by`: the sidecar, which also knows level and forecast, or PostgreSQL itself. null: not known, or no limit. */
export type SlotReport = {
  told_by: "sidecar" | "postgresql";
  name: string;
  level: string;
  present: boolean;
  active: boolean;
  wal_status: string;
  retained_bytes: number;
  safe_bytes: number | null;
  volume_free_bytes: number | null;
  seconds_to_full: number | null;
};
export type ClusterStatus = ClusterReport & { stream: StreamReport | null; slot: SlotReport | null };
/** A part that was asked; `error`: why it did not answer, empty when it did. */
export type AskedPart = { part: string; error: string };
export type StatusReport = {
  time: string;
  clusters: ClusterStatus[];
  queue: QueueReport | null;
  asked: AskedPart[];
  /** Limits that are not kept, one line each; what cannot be told does not keep its limit. */
  exceeded: string[];
};

export type StatusLimits = { exposure?: number; tier2Exposure?: number; backupAge?: number };

/** Seconds of commits that only the source has: as the server reckons, else as the sidecar does; undefined: nobody knows. */
function tier1Exposure({ tiers, stream }: ClusterStatus): number | undefined {
  return tiers.tier1?.exposure?.seconds ?? stream?.exposure_seconds;
}

/** Seconds. What is not known exceeds every limit. */
export function exceededLimits(clusters: readonly ClusterStatus[], limits: StatusLimits): string[] {
  const found: string[] = [];
  const check = (what: string, value: number | undefined, limit: number | undefined) => {
    if (limit === undefined) return;
    if (value === undefined) found.push(`${what} is not known`);
    else if (value > limit) found.push(`${what} is ${Math.round(value * 10) / 10} s, the limit is ${limit} s`);
  };
  for (const status of clusters) {
    const { cluster, tiers } = status;
    check(`exposure of ${cluster} on tier 1`, tier1Exposure(status), limits.exposure);
    check(`exposure of ${cluster} on tier 2`, tiers.tier2?.exposure?.seconds, limits.tier2Exposure);
    const ages = [tiers.tier1, tiers.tier2].flatMap((tier) => tier?.latest_backup?.age_seconds ?? []);
    check(
      `age of the latest backup of ${cluster}`,
      ages.length === 0 ? undefined : Math.min(...ages),
      limits.backupAge,
    );
  }
  if (clusters.length === 0 && Object.keys(limits).length > 0) found.push("no cluster is known");
  return found;
}
