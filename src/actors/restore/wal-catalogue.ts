// What the tiers hold of a cluster's WAL, read once per restore: listing, gaps, and on demand histories, the length of an
// unfinished file and the last end of a transaction in one.
import { type Failure, failureOf, type Outcome, ok } from "../../domain/outcome.ts";
import type { WalGap } from "../../domain/reachability.ts";
import { mergeInventories, type WalInventory, walInventory } from "../../domain/recoverable-range.ts";
import { firstTimeline, parseTimelineHistory, type TimelineHistory } from "../../domain/timeline.ts";
import type { Tier } from "../../domain/wal-reader.ts";
import { historyName } from "../../domain/wal-segment.ts";
import { KlioError } from "../../errors.ts";
import { scanCommits } from "../../wire/wal-commit-times.ts";
import type { WalClient } from "../grpc/wal-client.ts";

export type WalSource = { tier: Tier; client: Pick<WalClient, "list" | "get" | "metadata" | "address"> };

export type WalCatalogue = {
  /** Tiers that answered, in order: what a recovery may rely on. */
  tiers: Tier[];
  /** Those that did not, and why. */
  silent: { tier: Tier; failure: Failure }[];
  inventory: WalInventory;
  gaps: WalGap[];
  /** As the tiers know it; undefined when none does. */
  systemId: string | undefined;
  /** KLIO-WAL-MISSING when the history file is stored on no tier that answered. */
  history(timeline: number): Promise<Outcome<TimelineHistory>>;
  /**
   * Length of a file, read to its end, and the latest end of a transaction in its first `limitBytes`. Undefined when it is
   * on no tier.
   */
  measure(
    name: string,
    limitBytes?: number,
  ): Promise<Outcome<{ bytes: number; lastEndUs: number | undefined } | undefined>>;
};

/** Fails only when no tier answers: with the first one's failure. */
export async function readWalCatalogue(
  sources: readonly WalSource[],
  signal: AbortSignal,
): Promise<Outcome<WalCatalogue>> {
  const answered: WalSource[] = [];
  const silent: WalCatalogue["silent"] = [];
  const inventories: WalInventory[] = [];
  const gaps: WalGap[] = [];
  let systemId: string | undefined;
  for (const source of sources) {
    const listed = await source.client.list({ signal });
    if (listed.kind !== "ok") {
      silent.push({ tier: source.tier, failure: listed });
      continue;
    }
    const metadata = await source.client.metadata({ signal });
    if (metadata.kind === "ok") {
      systemId ??= metadata.value.systemId || undefined;
      for (const { start, end, ts } of metadata.value.gaps)
        gaps.push({ start, end, atMs: ts === undefined ? 0 : Number(ts.seconds) * 1000 + ts.nanos / 1e6 });
    } else if (metadata.code !== "KLIO-CLUSTER-UNKNOWN" && metadata.code !== "KLIO-WAL-MISSING") {
      // Object storage keeps no such file; but a tier that cannot tell must not pass for one without gaps.
      silent.push({ tier: source.tier, failure: metadata });
      continue;
    }
    answered.push(source);
    inventories.push(walInventory(listed.value));
  }
  const [first] = silent;
  if (answered.length === 0 && first !== undefined) return first.failure;

  /** Reads a file from the first tier that has it. A tier that fails is an answer only when no other has the file. */
  const read = async (name: string, begin: () => (block: Uint8Array) => void): Promise<Outcome<boolean>> => {
    let failed: Failure | undefined;
    for (const { client } of answered) {
      try {
        const opened = await client.get(name, { signal });
        if (opened.kind !== "ok") throw new KlioError(opened.code, opened.reason);
        await using wal = opened.value;
        if (wal === undefined) continue;
        const take = begin();
        for await (const block of wal.blocks) take(block);
        return ok(true);
      } catch (error) {
        failed = failureOf(error);
      }
    }
    return failed ?? ok(false);
  };

  return ok({
    tiers: answered.map(({ tier }) => tier),
    silent,
    inventory: mergeInventories(inventories),
    gaps,
    systemId,
    async history(timeline) {
      if (timeline === 1) return ok(firstTimeline);
      let blocks: Uint8Array[] = [];
      const name = historyName(timeline);
      const found = await read(name, () => {
        blocks = [];
        return (block) => blocks.push(block);
      });
      if (found.kind !== "ok") return found;
      if (!found.value)
        return { kind: "fatal", code: "KLIO-WAL-MISSING", reason: `the timeline history ${name} is not stored` };
      try {
        return ok(parseTimelineHistory(timeline, Buffer.concat(blocks).toString("utf8")));
      } catch (error) {
        return failureOf(error);
      }
    },
    async measure(name, limitBytes = Number.POSITIVE_INFINITY) {
      let bytes = 0;
      let scan = scanCommits();
      const found = await read(name, () => {
        bytes = 0;
        scan = scanCommits();
        return (block) => {
          if (bytes < limitBytes) scan.push(block.subarray(0, limitBytes - bytes));
          bytes += block.length;
        };
      });
      if (found.kind !== "ok") return found;
      return ok(found.value ? { bytes, lastEndUs: scan.latestUs } : undefined);
    },
  });
}
