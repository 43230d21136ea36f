import { expect, test } from "vitest";
import { walKey } from "../../src/domain/object-key.ts";
import { ok } from "../../src/domain/outcome.ts";
import { addBackup, close, hasAll, none, quick } from "../support/closed-backups.ts";
import { eventually } from "../support/eventually.ts";
import { offloadBench, wal } from "../support/offload-bench.ts";
import { temporaryDirectory } from "../support/temporary-directory.ts";

test("P2: retention on whole backups: the pinned stays, WAL goes up to what is needed and confirmed, a dry run touches nothing", async () => {
  await using directory = await temporaryDirectory();
  await using bench = await offloadBench(directory.path);
  const role = await bench.start({ limits: quick });
  for (let n = 1; n <= 6; n++) await bench.segment("a", wal(n));
  await eventually(
    hasAll(
      bench,
      "a",
      [1, 2, 3, 4, 5, 6].map((n) => wal(n)),
    ),
  );
  await eventually(() => role.admin.reconcile("a"));
  for (const [i, n] of [1, 3, 5].entries()) {
    addBackup(bench, `b${n}`, wal(n), wal(n), 1_700_000_000 + i * 86_400);
    if (n !== 1) bench.tier1.stored.at(-1)!.snapshots[0]!.pins = [];
  }
  const policy = JSON.stringify({ ...none, keepLatest: 1 });
  const request = { cluster: "a", retentionPolicy: policy, traceparent: "" };
  expect(await role.maintainBackups(request)).toEqual({
    deletedBackups: ["b3"],
    deletedOrphans: 0,
    deletedWalFiles: 0,
  });
  bench.tier1.stored[0]!.snapshots[0]!.pins = [];
  expect(await role.admin.applyRetention("a", "tier1", true)).toMatchObject({
    deletedBackups: ["b1"],
    deletedWalFiles: 4,
  });
  expect(bench.tier1.stored.length).toBe(2);
  expect(await role.maintainBackups({ ...request, retentionPolicy: "" })).toEqual({
    deletedBackups: ["b1"],
    deletedOrphans: 0,
    deletedWalFiles: 4,
  });
  expect((await bench.store.list("a")).map(({ name }) => name)).toEqual([wal(5), wal(6)]);
  expect(await role.admin.getRetention("a")).toMatchObject({ tier1: { keepLatest: 1 } });
  // Tier 2 has no backup and keeps everything; what left tier 1 is not asked for again.
  expect((await bench.names2("a")).length).toBe(6);
});

test("P2: a recovery window that was set on the server outlives the policy of a sidecar that says nothing of one", async () => {
  await using directory = await temporaryDirectory();
  await using bench = await offloadBench(directory.path);
  const role = await bench.start({ limits: quick });
  await bench.segment("a", wal(1));
  for (const tier of ["tier1", "tier2"] as const)
    await role.admin.setRetention("a", tier, { keepLatest: 5, recoveryWindowDays: 30 });
  const closed = close("b1", wal(1), wal(1));
  for (const [policy, expected] of [
    [{ keepLatest: 2 }, { keepLatest: 2, recoveryWindowDays: 30 }],
    [
      { keepLatest: 2, recoveryWindowDays: 0 },
      { keepLatest: 2, recoveryWindowDays: 0 },
    ],
  ]) {
    const text = JSON.stringify(policy);
    await role.maintainBackups({ cluster: "a", retentionPolicy: text, traceparent: "" });
    await role.closeBackup({ ...closed, backupName: `b-${text.length}`, tier2RetentionPolicy: text });
    expect(await role.admin.getRetention("a")).toEqual({ tier1: expected, tier2: expected });
  }
});

test("P2: a backup whose WAL has not come expires none that can be restored, on either tier", async () => {
  await using directory = await temporaryDirectory();
  await using bench = await offloadBench(directory.path);
  const role = await bench.start({ limits: quick });
  for (const n of [1, 2]) await bench.segment("a", wal(n));
  await eventually(hasAll(bench, "a", [wal(1), wal(2)]));
  for (const n of [1, 2]) addBackup(bench, `b${n}`, wal(n), wal(n + 1), 1_700_000_000 + n);
  for (const { snapshots } of bench.tier1.stored) snapshots[0]!.pins = [];
  bench.tier2.stored.push(...structuredClone(bench.tier1.stored));
  for (const tier of ["tier1", "tier2"] as const) {
    await role.admin.setRetention("a", tier, { ...none, keepLatest: 1 });
    const report = await role.admin.applyRetention("a", tier, false);
    expect(report).toMatchObject({ kept: { b1: ["restorable-latest-1"], b2: ["latest-1"] }, deletedWalFiles: 0 });
  }
  await bench.segment("a", wal(3));
  await eventually(hasAll(bench, "a", [wal(3)]));
  for (const tier of ["tier1", "tier2"] as const)
    expect(await role.admin.applyRetention("a", tier, false)).toMatchObject({ deletedBackups: ["b1"] });
});

test("P2: closing a backup that stays on tier 1 expires nothing: its sidecar has yet to verify it", async () => {
  await using directory = await temporaryDirectory();
  await using bench = await offloadBench(directory.path);
  const role = await bench.start({ limits: quick });
  for (const n of [1, 2]) {
    await bench.segment("a", wal(n));
    addBackup(bench, `b${n}`, wal(n), wal(n), 1_700_000_000 + n);
    bench.tier1.stored.at(-1)!.snapshots[0]!.pins = [];
  }
  await role.admin.setRetention("a", "tier1", { ...none, keepLatest: 1 });
  await role.closeBackup({ ...close("b2", wal(2), wal(2)), sendToTier2: false });
  await eventually(async () => (await role.admin.pending()).backup === 0);
  expect(bench.tier1.stored.map(({ metadata }) => metadata.name)).toEqual(["b1", "b2"]);
  const request = { cluster: "a", retentionPolicy: "", traceparent: "" };
  expect(await role.maintainBackups(request)).toMatchObject({ deletedBackups: ["b1"] });
});

test("P2: a file that tier 2 has with other bytes stays on tier 1, also when the queue has lost its dead letter", async () => {
  await using directory = await temporaryDirectory();
  await using bench = await offloadBench(directory.path);
  await bench.s3.objects.put(walKey("p", "a", wal(2)), Buffer.from("of another cluster of this name"));
  for (const n of [1, 2, 3]) await bench.segment("a", wal(n), false);
  const role = await bench.start({ limits: quick });
  await eventually(hasAll(bench, "a", [wal(1), wal(3)]));
  addBackup(bench, "b3", wal(3), wal(3));
  const report = await role.admin.reconcile("a");
  expect(report.clusters).toMatchObject([{ missing: 0, different: [wal(2)] }]);
  expect(await role.admin.failed("wal")).toEqual([]);
  expect(role.frontier("a")).toMatchObject({ at: wal(1), missing: [wal(2)] });
  const request = { cluster: "a", retentionPolicy: "", traceparent: "" };
  expect(await role.maintainBackups(request)).toMatchObject({ deletedWalFiles: 0 });
  expect((await bench.store.list("a")).map(({ name }) => name)).toEqual([wal(1), wal(2), wal(3)]);
});

test("P2: a backup that a person pins while retention decides stays", async () => {
  await using directory = await temporaryDirectory();
  await using bench = await offloadBench(directory.path);
  const role = await bench.start({ limits: quick });
  for (const n of [1, 2, 3]) {
    await bench.segment("a", wal(n));
    addBackup(bench, `b${n}`, wal(n), wal(n), 1_700_000_000 + n);
    bench.tier1.stored.at(-1)!.snapshots[0]!.pins = [];
  }
  await role.admin.setRetention("a", "tier1", { ...none, keepLatest: 1 });
  const list = bench.tier1.backups.bind(bench.tier1);
  bench.tier1.backups = async (cluster) => structuredClone(await list(cluster));
  let pinned: Promise<unknown> | undefined;
  bench.tier1.orphans = async () => {
    pinned ??= role.admin.pinBackup("a", "b1", ["tier1"], true);
    await pinned;
    return ok([]);
  };
  expect(await role.admin.applyRetention("a", "tier1", false)).toMatchObject({ deletedBackups: ["b2"] });
  expect(bench.tier1.stored.map(({ metadata }) => metadata.name)).toEqual(["b1", "b3"]);
});

test("a stop awaits the maintenance in hand, and lets none begin", async () => {
  await using directory = await temporaryDirectory();
  await using bench = await offloadBench(directory.path);
  const role = await bench.start({ limits: quick });
  const listing = Promise.withResolvers<void>();
  let isAsked = false;
  const backups = bench.tier1.backups.bind(bench.tier1);
  bench.tier1.backups = async (cluster) => {
    isAsked = true;
    await listing.promise;
    return backups(cluster);
  };
  const request = { cluster: "a", retentionPolicy: "", traceparent: "" };
  const first = role.maintainBackups(request);
  const second = role.maintainBackups(request);
  await eventually(() => isAsked);
  let hasStopped = false;
  const stopped = role.stop().then(() => {
    hasStopped = true;
  });
  for (const one of [first, second]) await expect(one).rejects.toMatchObject({ code: "KLIO-CANCELLED" });
  expect(hasStopped).toBe(false);
  listing.resolve();
  await stopped;
});
