// Where a server with both tiers finds what its status says.
import { listDeadLetters } from "../actors/jetstream/dead-letters.ts";
import { type DivergenceReport, timeText } from "../domain/cluster-status.ts";
import { unwrap } from "../domain/outcome.ts";
import type { ReconcileReport } from "../machines/reconciler.machine.ts";
import { isFailure, type OffloadParts, openedTier2 } from "./offload-parts.ts";
import type { StatusSources } from "./server-status.ts";

export function statusSources(
  parts: OffloadParts,
  known: Pick<StatusSources, "exposure" | "divergence"> & {
    paused: () => { code: string; reason: string } | undefined;
  },
): StatusSources {
  const { store, repository, settings, queue } = parts;
  return {
    tiers() {
      const opened = openedTier2(parts);
      const tier2 = isFailure(opened) ? opened.reason : opened;
      return { tier1: { reader: store, repository }, ...(parts.tier2.isWanted && { tier2 }) };
    },
    measures: async (cluster) => (await settings.read(cluster)).reads ?? {},
    exposure: known.exposure,
    gaps: async (cluster) => (await store.metadata(cluster))?.gaps ?? [],
    divergence: known.divergence,
    async queue() {
      const { pending } = unwrap(await queue.status());
      const paused = known.paused();
      return {
        pending_wals: pending.wal,
        pending_backups: pending.backup,
        failed_wals: unwrap(await listDeadLetters(queue, "wal")).length,
        failed_backups: unwrap(await listDeadLetters(queue, "backup")).length,
        paused: paused === undefined ? "" : `${paused.code}: ${paused.reason}`,
      };
    },
  };
}

/** A cluster that could not be compared keeps what was known of it. */
export function divergenceIn(report: ReconcileReport, now: number): [string, DivergenceReport][] {
  return report.clusters
    .filter(({ error }) => error === "")
    .map(({ cluster, missing, stalePartials, different, foreign }) => [
      cluster,
      {
        compared_time: timeText(now),
        missing,
        stale: stalePartials.length,
        different: different.length,
        foreign: foreign.length,
      },
    ]);
}
