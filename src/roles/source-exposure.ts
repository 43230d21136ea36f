// klio.wal.exposure on the server: how old is the oldest WAL byte that a tier does not hold, also while the sidecar is dead.
// The sidecar tells every few seconds where its source's WAL ends; all times are of this server's clock. Never optimistic: who
// is not heard any more is behind from the moment at which he was heard last.
import type { ExposureReport } from "../domain/cluster-status.ts";
import { Exposure } from "../domain/exposure.ts";
import { type Frontier, noFrontier } from "../domain/frontier.ts";
import type { TierName } from "../domain/snapshots.ts";
import { parseWalName, segmentStart } from "../domain/wal-segment.ts";
import type { Reading } from "../telemetry/instruments.ts";
import type { Telemetry } from "../telemetry/telemetry.ts";

/** `end`: end of WAL on the source. `flushed`: confirmed to be durable on tier 1. */
type SourceReport = { end: bigint; flushed: bigint; segmentBytes: number };

export type SourceExposure = Disposable & {
  report(cluster: string, report: SourceReport): void;
  /** When a tier got its newest WAL file, of an earlier run: what it lacks counts from then. */
  known(cluster: string, tier: TierName, newestMs: number): void;
  /** Of a tier that something of the cluster is, or is to be, on; undefined for any other, and for an unknown cluster. */
  read(cluster: string, tier: TierName): ExposureReport | undefined;
  /** For tests; undefined for a cluster that is not known. */
  seconds(cluster: string, tier: TierName): number | undefined;
};

/** Three reports were due. */
export const SILENT_AFTER_MS = 15_000;

type Watched = {
  tier: TierName;
  exposure: Exposure;
  isSilent: boolean;
  /** Something of the cluster is, or is to be, on this tier. */
  isUsed: boolean;
};
type Cluster = { heardMs: number; segmentBytes: number; watched: Watched[] };

/** End of the last segment up to which tier 2 holds everything; 0 while that is not known. */
function frontierEnd({ at, listed }: Frontier, segmentBytes: number): bigint {
  if (!listed || segmentBytes === 0 || parseWalName(at)?.kind !== "segment") return 0n;
  return segmentStart(at, segmentBytes) + BigInt(segmentBytes);
}

/** `frontierOf`: absent on a server without tier 2. Dispose it to end the series. */
export function watchExposure(options: {
  telemetry: Pick<Telemetry, "observe">;
  frontierOf?: (cluster: string) => Frontier;
  now?: () => number;
}): SourceExposure {
  const { telemetry, frontierOf, now = Date.now } = options;
  const clusters = new Map<string, Cluster>();

  const add = (name: string, heardMs: number, report: SourceReport): Cluster => {
    const tiers: TierName[] = frontierOf === undefined ? ["tier1"] : ["tier1", "tier2"];
    const made: Cluster = { heardMs, segmentBytes: report.segmentBytes, watched: [] };
    for (const tier of tiers)
      made.watched.push({
        tier,
        exposure: new Exposure(heldBy(name, made, tier, report.flushed)),
        isSilent: false,
        isUsed: tier === "tier1",
      });
    clusters.set(name, made);
    return made;
  };
  const frontierNow = (name: string): Frontier => frontierOf?.(name) ?? noFrontier;
  const heldBy = (name: string, { segmentBytes }: Cluster, tier: TierName, flushed: bigint): bigint =>
    tier === "tier1" ? flushed : frontierEnd(frontierNow(name), segmentBytes);

  /** Brings a cluster up to this moment. */
  const settle = (name: string, cluster: Cluster): void => {
    for (const one of cluster.watched) {
      if (one.tier === "tier2") {
        const frontier = frontierNow(name);
        one.isUsed ||= frontier.at !== "" || frontier.missing.length > 0;
        one.exposure.durableAt(frontierEnd(frontier, cluster.segmentBytes));
      }
      if (one.isSilent || now() - cluster.heardMs <= SILENT_AFTER_MS) continue;
      one.isSilent = true;
      one.exposure.lost(cluster.heardMs);
    }
  };
  const read = (value: (exposure: Exposure) => number) =>
    function* (): Iterable<Reading> {
      for (const [name, cluster] of clusters) {
        settle(name, cluster);
        for (const { tier, exposure, isUsed } of cluster.watched)
          if (isUsed) yield { value: value(exposure), labels: { cluster_name: name, tier } };
      }
    };
  const stops = [
    telemetry.observe(
      "klio.wal.exposure",
      read((exposure) => exposure.seconds(now())),
    ),
    telemetry.observe(
      "klio.wal.exposure_size",
      read((exposure) => exposure.bytes),
    ),
  ];
  return {
    report(name, report) {
      const cluster = clusters.get(name) ?? add(name, now(), report);
      cluster.segmentBytes = report.segmentBytes;
      for (const one of cluster.watched) {
        const held = heldBy(name, cluster, one.tier, report.flushed);
        if (one.isSilent) one.exposure.regained(held, report.end, now());
        one.isSilent = false;
        one.exposure.sourceAt(report.end, now());
        one.exposure.durableAt(held);
      }
      cluster.heardMs = now();
    },
    known(name, tier, newestMs) {
      const before = clusters.get(name);
      const cluster = before ?? add(name, newestMs, { end: 0n, flushed: 0n, segmentBytes: 0 });
      for (const one of cluster.watched) {
        if (one.tier === tier) one.isUsed = true;
        if (before !== undefined && one.tier === tier) one.exposure.since(newestMs);
        if (before !== undefined) continue;
        one.isSilent = true;
        one.exposure.lost(newestMs);
      }
    },
    read(name, tier) {
      const cluster = clusters.get(name);
      if (cluster === undefined) return undefined;
      settle(name, cluster);
      const one = cluster.watched.find((watched) => watched.tier === tier);
      if (one?.isUsed !== true) return undefined;
      const heardSeconds = Math.max(0, now() - cluster.heardMs) / 1000;
      const { exposure, isSilent } = one;
      return {
        seconds: exposure.seconds(now()),
        bytes: exposure.bytes,
        heard_seconds: heardSeconds,
        silent: isSilent,
      };
    },
    seconds(name, tier) {
      const cluster = clusters.get(name);
      if (cluster === undefined) return undefined;
      settle(name, cluster);
      return cluster.watched.find((one) => one.tier === tier)?.exposure.seconds(now());
    },
    [Symbol.dispose]() {
      for (const stop of stops) stop();
    },
  };
}
