// What the pieces of the offload role share, over repositories in memory.
import { expect, test } from "vitest";
import { TIER2_PIN } from "../../../src/domain/snapshots.ts";
import { needsOfTier2, type OffloadParts, type Tier2Parts } from "../../../src/roles/offload-parts.ts";
import { backupOf, partOf } from "../../support/backups.ts";
import { ListedRepository } from "../../support/offload-bench.ts";

test("P2: a backup that arrives on tier 2 between the listings of both tiers is one whose WAL tier 2 needs", async () => {
  const [tier1, tier2] = [new ListedRepository("tier1"), new ListedRepository("tier2")];
  const waiting = {
    metadata: backupOf({ name: "b1", clusterName: "a" }),
    snapshots: [partOf({ pins: [TIER2_PIN] })],
  };
  tier1.stored.push(waiting);
  tier2.stored.push({ metadata: backupOf({ name: "b2", clusterName: "a" }), snapshots: [] });
  for (const tier of [tier1, tier2]) {
    const backups = tier.backups.bind(tier);
    tier.backups = async (cluster) => {
      const listed = structuredClone(await backups(cluster));
      await tier1.copyBackupTo(tier2, waiting);
      await tier1.unpin(waiting.snapshots, TIER2_PIN);
      return listed;
    };
  }
  const parts = { repository: tier1 } as unknown as OffloadParts;
  const needs = await needsOfTier2(parts, { repository: tier2 } as unknown as Tier2Parts, "a");
  expect(needs.kind === "ok" && needs.value.map(({ name }) => name)).toContain("b1");
});
