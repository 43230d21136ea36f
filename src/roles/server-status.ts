// What a server says of its clusters, read from what is stored at the moment of asking: listings, backups, the exposure as it
// is heard of, the queue. A tier that cannot be read says why; the other parts are told all the same.
import { text } from "node:stream/consumers";
import {
  type ClusterReport,
  type DivergenceReport,
  type ExposureReport,
  type QueueReport,
  type ReadMeasures,
  type ReadPurpose,
  type ServerReport,
  silentTier,
  type TierReport,
  tierReport,
  timeText,
} from "../domain/cluster-status.ts";
import { unwrap } from "../domain/outcome.ts";
import { newestTimeline, walInventory } from "../domain/recoverable-range.ts";
import type { SnapshotRepository, TierName } from "../domain/snapshots.ts";
import { firstTimeline, parseTimelineHistory, type TimelineHistory } from "../domain/timeline.ts";
import type { WalReader } from "../domain/wal-reader.ts";
import { historyName } from "../domain/wal-segment.ts";
import { errorText, KlioError } from "../errors.ts";

type OpenTier = { reader: WalReader; repository: SnapshotRepository };
export type StatusSources = {
  /** The tiers that this server has; a text says why one cannot be read now. */
  tiers: () => Partial<Record<TierName, OpenTier | string>>;
  measures: (cluster: string) => Promise<Partial<Record<`${TierName}-${ReadPurpose}`, ReadMeasures[ReadPurpose]>>>;
  exposure: (cluster: string, tier: TierName) => ExposureReport | undefined;
  gaps: (cluster: string) => Promise<readonly { start: string; end: string; atMs: number }[]>;
  divergence: (cluster: string) => DivergenceReport | undefined;
  /** Absent: the server has no queue. */
  queue?: () => Promise<Omit<QueueReport, "error">>;
};

/** Clusters that are looked at together: one with many files must not keep the others waiting for long. */
const AT_ONCE = 4;

/** The report of one cluster (also of one that is not known: its tiers are empty), or of all. Rejects for bugs only. */
export async function serverStatus(sources: StatusSources, only?: string): Promise<ServerReport> {
  const names = only === undefined ? await clusterNames(sources) : [only];
  const clusters: ClusterReport[] = [];
  for (let at = 0; at < names.length; at += AT_ONCE)
    clusters.push(...(await Promise.all(names.slice(at, at + AT_ONCE).map((name) => clusterReport(sources, name)))));
  return { clusters, queue: await queueReport(sources) };
}

async function clusterNames({ tiers }: StatusSources): Promise<string[]> {
  const names = new Set<string>();
  for (const open of Object.values(tiers())) {
    if (typeof open === "string") continue;
    const found = await told(() => open.reader.clusters());
    for (const name of typeof found === "string" ? [] : found) names.add(name);
  }
  return [...names].toSorted();
}

/** The answer, or why there is none. */
async function told<T>(work: () => Promise<T>): Promise<T | string> {
  try {
    return await work();
  } catch (error) {
    if (!(error instanceof KlioError) || error.kind === "bug") throw error;
    return errorText(error);
  }
}

async function clusterReport(sources: StatusSources, cluster: string): Promise<ClusterReport> {
  const measures = await told(() => sources.measures(cluster));
  const gaps = await told(() => sources.gaps(cluster));
  const report: ClusterReport = {
    cluster,
    tiers: {},
    gaps:
      typeof gaps === "string" ? [] : gaps.map(({ start, end, atMs }) => ({ start, end, time: timeText(atMs / 1000) })),
    divergence: sources.divergence(cluster) ?? null,
  };
  for (const tier of ["tier1", "tier2"] as const) {
    const open = sources.tiers()[tier];
    if (open === undefined) continue;
    const exposure = sources.exposure(cluster, tier) ?? null;
    const own: ReadMeasures = {};
    for (const purpose of ["restore", "verification"] as const) {
      const measure = typeof measures === "string" ? undefined : measures[`${tier}-${purpose}`];
      if (measure !== undefined) own[purpose] = measure;
    }
    const read =
      typeof open === "string"
        ? open
        : await told(() => readTier(open, cluster, { measures: own, exposure, now: Date.now() / 1000 }));
    report.tiers[tier] = typeof read === "string" ? silentTier(read, exposure) : read;
  }
  return report;
}

async function readTier(
  { reader, repository }: OpenTier,
  cluster: string,
  rest: { measures: ReadMeasures; exposure: ExposureReport | null; now: number },
): Promise<TierReport> {
  const files = await reader.list(cluster);
  const backups = unwrap(await repository.backups(cluster));
  const history = await readHistory(reader, cluster, newestTimeline(walInventory(files)));
  return tierReport({ files, backups, history, ...rest });
}

async function readHistory(reader: WalReader, cluster: string, timeline: number): Promise<TimelineHistory> {
  if (timeline === 1) return firstTimeline;
  const name = historyName(timeline);
  await using opened = await reader.open(cluster, name);
  if (opened === undefined)
    throw new KlioError("KLIO-WAL-MISSING", `${name} is not stored: what leads to timeline ${timeline} is not known`);
  return parseTimelineHistory(timeline, await text(opened.blocks));
}

async function queueReport({ queue }: StatusSources): Promise<QueueReport | null> {
  if (queue === undefined) return null;
  const counts = await told(queue);
  if (typeof counts !== "string") return { error: "", ...counts };
  const unknown = { pending_wals: null, pending_backups: null, failed_wals: null, failed_backups: null };
  return { error: counts, ...unknown, paused: "" };
}
