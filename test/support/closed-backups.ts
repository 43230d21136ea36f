// Backups for an offload bench: as a sidecar stores them on tier 1, pinned for tier 2, and as it closes them.
import { TIER2_PIN } from "../../src/domain/snapshots.ts";
import { backupOf, partOf } from "./backups.ts";
import { type OffloadBench, SEGMENT_BYTES } from "./offload-bench.ts";

export const quick = { probe: { firstMs: 50, limitMs: 200 }, delaysMs: [100] };
export const hasAll = (bench: OffloadBench, cluster: string, names: string[]) => async () => {
  const held = await bench.names2(cluster);
  return names.every((name) => held.includes(name));
};

/** A whole backup of `cluster` in tier 1, pinned for tier 2. */
export function addBackup(
  bench: OffloadBench,
  name: string,
  startWal: string,
  endWal: string,
  startedAt = 1_700_000_000,
) {
  const metadata = backupOf({
    name,
    clusterName: "a",
    startWal,
    endWal,
    segmentSize: SEGMENT_BYTES,
    backupLabel: "",
    startedAt,
    stoppedAt: startedAt + 60,
  });
  const snapshot = partOf({ id: `${name}-1`, path: `/${name}`, backup: name, pins: [TIER2_PIN] });
  bench.tier1.stored.push({ metadata, snapshots: [snapshot] });
}

export const none = { keepLatest: 0, keepHourly: 0, keepDaily: 0, keepWeekly: 0, keepMonthly: 0, keepAnnual: 0 };

export const close = (backupName: string, startWal: string, endWal: string, tier2RetentionPolicy = "") => ({
  cluster: "a",
  backupName,
  timeline: 1,
  startWal,
  endWal,
  segmentBytes: SEGMENT_BYTES,
  sendToTier2: true,
  tier2RetentionPolicy,
  traceparent: "",
});
