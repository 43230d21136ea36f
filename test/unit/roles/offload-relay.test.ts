// The relay over repositories in memory: what a failed try has found out is not found out again.
import { expect, test } from "vitest";
import { createActor, toPromise } from "xstate";
import { failure, ok } from "../../../src/domain/outcome.ts";
import { TIER2_PIN } from "../../../src/domain/snapshots.ts";
import type { OffloadParts } from "../../../src/roles/offload-parts.ts";
import { relayOf } from "../../../src/roles/offload-relay.ts";
import type { Maintain } from "../../../src/roles/offload-retention.ts";
import { backupOf, partOf } from "../../support/backups.ts";
import { ListedRepository } from "../../support/offload-bench.ts";
import { relayTask } from "../../support/relay-task.ts";
import { testLog } from "../../support/test-log.ts";

const report = { kept: {}, deletedBackups: [], deletedOrphans: 0, deletedWalFiles: 0, firstWal: "", heldBy: "" };

/** A backup `b1` of cluster `a` that waits on tier 1 for tier 2. */
function waitingBackup() {
  const [tier1, tier2] = [new ListedRepository("tier1"), new ListedRepository("tier2")];
  const metadata = backupOf({ name: "b1", clusterName: "a" });
  tier1.stored.push({ metadata, snapshots: [partOf({ pins: [TIER2_PIN] })] });
  const parts = {
    repository: tier1,
    tier2: { isWanted: true, prefix: "p", parts: { repository: tier2 } },
    settings: { read: async () => ({}), writeRead: async () => undefined },
    log: testLog(),
  } as unknown as OffloadParts;
  const task = relayTask({ sendToTier2: true });
  const relayWith = (maintain: Maintain) => {
    const machine = relayOf(parts, maintain, async () => ok(undefined));
    return () => toPromise(createActor(machine, { input: { task } }).start());
  };
  return { tier1, tier2, relayWith };
}

test("a copy that was read and found sound is not read again because what comes after it failed", async () => {
  const { tier1, tier2, relayWith } = waitingBackup();
  let [reads, tries] = [0, 0];
  tier2.verify = async () => {
    reads++;
    return ok({ corrupt: [] });
  };
  const relay = relayWith(async (_, tier) =>
    tier === "tier2" && ++tries < 3 ? failure("KLIO-S3-CREDENTIALS", "may not delete") : ok(report),
  );
  const denied = { kind: "failed", code: "KLIO-S3-CREDENTIALS" };
  expect(await relay()).toMatchObject(denied);
  expect(await relay()).toMatchObject(denied);
  expect([reads, tries]).toEqual([1, 2]);
  tier2.stored[0]!.snapshots[0]!.id = "s2"; // another one, which nobody has read
  expect(await relay()).toMatchObject({ kind: "done" });
  expect([reads, tries]).toEqual([2, 3]);
  expect(tier1.stored[0]?.snapshots[0]?.pins).toEqual([]);
});

test("P8: snapshots that were deleted before they could be read are no damage", async () => {
  const { tier1, relayWith } = waitingBackup();
  tier1.verify = async (snapshots) => {
    await tier1.delete(snapshots);
    return ok({ corrupt: ["only 0 of 1 snapshots are stored"] });
  };
  const relay = relayWith(async () => ok(report));
  expect(await relay()).toMatchObject({ kind: "failed", scope: "task", fatal: false, code: "KLIO-BACKUP-UNKNOWN" });
  expect(await relay()).toMatchObject({ kind: "done" });
});
