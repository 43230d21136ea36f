import { readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { openSnapshotRepository } from "../../src/actors/snapshots/open-repository.ts";
import { walKey } from "../../src/domain/object-key.ts";
import { ok, unwrap } from "../../src/domain/outcome.ts";
import { TIER2_PIN } from "../../src/domain/snapshots.ts";
import { backupOf } from "../support/backups.ts";
import { eventually } from "../support/eventually.ts";
import { type OffloadBench, offloadBench, SEGMENT_BYTES, wal } from "../support/offload-bench.ts";
import { sampleMetadata, sampleTree, storeSample } from "../support/sample-backup.ts";
import { repositoryOptions, startSnapshotServer } from "../support/snapshot-server.ts";
import { temporaryDirectory } from "../support/temporary-directory.ts";

const quick = { probe: { firstMs: 50, limitMs: 200 }, delaysMs: [100] };
const hasAll = (bench: OffloadBench, cluster: string, names: string[]) => async () => {
  const held = await bench.names2(cluster);
  return names.every((name) => held.includes(name));
};

/** A whole backup of `cluster` in tier 1, pinned for tier 2. */
function addBackup(bench: OffloadBench, name: string, startWal: string, endWal: string, startedAt = 1_700_000_000) {
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
  const snapshot = {
    id: `${name}-1`,
    user: "klio",
    cluster: "a",
    path: `/${name}`,
    backup: name,
    content: "pgdata" as const,
    startTimeMs: 0,
    endTimeMs: 0,
    bytes: 1,
    files: 1,
    directories: 1,
    pins: [TIER2_PIN],
  };
  bench.tier1.stored.push({ metadata, snapshots: [snapshot] });
}

const none = { keepLatest: 0, keepHourly: 0, keepDaily: 0, keepWeekly: 0, keepMonthly: 0, keepAnnual: 0 };

const close = (backupName: string, startWal: string, endWal: string, tier2RetentionPolicy = "") => ({
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

test("a backup closed before its WAL is there waits for it, is relayed and unpinned", async () => {
  await using directory = await temporaryDirectory();
  await using bench = await offloadBench(directory.path);
  const role = await bench.start({ limits: { ...quick, deferMs: 50 } });
  await bench.segment("a", wal(1));
  addBackup(bench, "b1", wal(1), wal(2));
  const first = await role.closeBackup(close("b1", wal(1), wal(2)));
  expect(first).toEqual({ scheduled: false, missing: [wal(2)] });
  expect((await role.admin.pending()).backup).toBe(1);
  await bench.segment("a", wal(2));
  expect(await role.closeBackup(close("b1", wal(1), wal(2)))).toEqual({ scheduled: true, missing: [] });
  await eventually(() => bench.tier2.stored.length === 1);
  await eventually(() => bench.tier1.stored[0]!.snapshots[0]!.pins.length === 0);
  await eventually(async () => (await role.admin.pending()).backup === 0);
});

test("KLIO-BACKUP-CORRUPT: a copy that is damaged is a dead letter, and stays pinned on tier 1", async () => {
  await using directory = await temporaryDirectory();
  await using bench = await offloadBench(directory.path);
  bench.tier2.corrupt = ["base/1/2 cannot be read"];
  const role = await bench.start({ limits: quick });
  await bench.segment("a", wal(1));
  addBackup(bench, "b1", wal(1), wal(1));
  await role.closeBackup(close("b1", wal(1), wal(1)));
  const failed = await eventually(async () => {
    const list = await role.admin.failed("backup");
    return list.length === 1 && list;
  });
  expect(failed[0]).toMatchObject({
    name: "b1",
    code: "KLIO-BACKUP-CORRUPT",
    error: "tier 2: base/1/2 cannot be read",
  });
  expect(bench.tier1.stored[0]!.snapshots[0]!.pins).toEqual([TIER2_PIN]);
});

test("the reconciler relays a pinned backup whose task was lost", async () => {
  await using directory = await temporaryDirectory();
  await using bench = await offloadBench(directory.path);
  await bench.segment("a", wal(1), false);
  addBackup(bench, "b1", wal(1), wal(1));
  await bench.start({ limits: quick });
  await eventually(() => bench.tier2.stored.length === 1);
});

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

test("P2: the WAL of a backup that is still to reach tier 2 stays there though younger ones have, and is there when it comes", async () => {
  await using directory = await temporaryDirectory();
  await using bench = await offloadBench(directory.path);
  const role = await bench.start({ limits: quick });
  const all = [1, 2, 3, 4, 5].map((n) => wal(n));
  for (const name of all) await bench.segment("a", name);
  await eventually(hasAll(bench, "a", all));
  addBackup(bench, "b1", wal(1), wal(1));
  bench.tier2.corrupt = ["base/1/2 cannot be read"];
  await role.closeBackup(close("b1", wal(1), wal(1)));
  await eventually(async () => (await role.admin.failed("backup")).length === 1);
  Object.assign(bench.tier2, { corrupt: [], stored: [] }); // the copy was removed
  addBackup(bench, "b4", wal(4), wal(4), 1_700_100_000);
  await role.closeBackup(close("b4", wal(4), wal(4)));
  await eventually(() => bench.tier1.stored[1]!.snapshots[0]!.pins.length === 0);
  await role.admin.reconcile("a");
  expect(await bench.names2("a")).toEqual(all);
  await role.admin.setRetention("a", "tier1", { ...none, keepLatest: 1 });
  await role.admin.retry("a");
  await eventually(async () => (await role.admin.pending()).backup === 0);
  expect(bench.tier1.stored.map(({ metadata }) => metadata.name)).toEqual(["b4"]);
  expect(bench.tier2.stored.map(({ metadata }) => metadata.name)).toEqual(["b4", "b1"]);
  expect(await bench.names2("a")).toEqual(all);
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

test("P5: a task that comes late does not bring back the retention policy of its time", async () => {
  await using directory = await temporaryDirectory();
  await using bench = await offloadBench(directory.path);
  const role = await bench.start({ limits: quick });
  const closeWith = async (n: number, keepLatest: number) => {
    await bench.segment("a", wal(n));
    addBackup(bench, `b${n}`, wal(n), wal(n), 1_700_000_000 + n);
    await role.closeBackup(close(`b${n}`, wal(n), wal(n), JSON.stringify({ ...none, keepLatest })));
  };
  bench.tier2.corrupt = ["base/1/2 cannot be read"];
  await closeWith(1, 1);
  await eventually(async () => (await role.admin.failed("backup")).length === 1);
  Object.assign(bench.tier2, { corrupt: [], stored: [] }); // the copy was removed
  await closeWith(2, 5);
  await closeWith(3, 5);
  await eventually(async () => (await role.admin.pending()).backup === 0);
  await role.admin.retry("a");
  await eventually(async () => (await role.admin.failed("backup")).length === 0);
  expect(bench.tier2.stored.map(({ metadata }) => metadata.name)).toEqual(["b2", "b3", "b1"]);
  expect(await role.admin.getRetention("a")).toMatchObject({ tier2: { keepLatest: 5 } });
});

test("KLIO-BACKUP-CORRUPT: a copy that fails because tier 1's backup is damaged says so, and does not pass for an outage of tier 2", async () => {
  await using directory = await temporaryDirectory();
  await using bench = await offloadBench(directory.path);
  await using server = await startSnapshotServer(join(directory.path, "tier1"));
  await using snapshots = await server.open("a");
  const tier2Options = repositoryOptions(join(directory.path, "tier2"), { tier: "tier2" });
  await using tier2 = unwrap(await openSnapshotRepository(tier2Options));
  await storeSample(snapshots, sampleTree(directory.path), sampleMetadata("b1", "a"), TIER2_PIN);
  const packs = join(directory.path, "tier1/repository");
  for (const name of readdirSync(packs, { recursive: true, encoding: "utf8" })) {
    if (!(/(^|\/)p/.test(name) && name.endsWith(".f")) || statSync(join(packs, name)).size < 1 << 20) continue;
    const bytes = readFileSync(join(packs, name));
    bytes[bytes.length >> 1]! ^= 1;
    writeFileSync(join(packs, name), bytes);
  }
  const opened = Promise.resolve({ ...bench.parts, repository: tier2 });
  const role = await bench.start({
    limits: quick,
    repository: server.repository,
    tier2: { prefix: "p", whenOpen: opened },
  });
  await bench.segment("a", wal(2));
  await role.closeBackup(close("b1", wal(2), wal(2)));
  const [failed] = await eventually(
    async () => {
      const list = await role.admin.failed("backup");
      return list.length === 1 && list;
    },
    { timeoutMs: 60_000 },
  );
  expect(failed).toMatchObject({
    code: "KLIO-BACKUP-CORRUPT",
    error: expect.stringMatching(/^tier 1: .*invalid checksum/),
  });
  expect(unwrap(await server.repository.backups("a"))[0]?.snapshots[0]?.pins).toEqual([TIER2_PIN]);
});

test("P8: the relay of a backup that is deleted ends, whether it waits for WAL or is under way, and is no failure", async () => {
  await using directory = await temporaryDirectory();
  await using bench = await offloadBench(directory.path);
  const role = await bench.start({ limits: { ...quick, deferMs: 50 } });
  await bench.segment("a", wal(1));
  // The first is gone when its task is looked at, and its WAL never comes; the second goes while it is verified.
  await role.closeBackup(close("b1", wal(1), wal(2)));
  await eventually(async () => (await role.admin.pending()).backup === 0);
  bench.tier1.verify = async () => {
    bench.tier1.stored = [];
    return ok({ corrupt: [] });
  };
  addBackup(bench, "b2", wal(1), wal(1));
  await role.closeBackup(close("b2", wal(1), wal(1)));
  await eventually(async () => (await role.admin.pending()).backup === 0);
  expect(await role.admin.failed("backup")).toEqual([]);
  expect(bench.tier2.stored).toEqual([]);
});

test("KLIO-TIER-MISSING: with tier 1 alone maintenance works, and a backup for tier 2 is told as impossible", async () => {
  await using directory = await temporaryDirectory();
  await using bench = await offloadBench(directory.path);
  const { tier2: _, ...options } = { tier2: undefined, limits: quick };
  const { startOffload } = await import("../../src/roles/offload.ts");
  const { noTelemetry } = await import("../../src/telemetry/telemetry.ts");
  const { findTool } = await import("../../src/config/tools.ts");
  const role = await startOffload({
    store: bench.store,
    walDirectory: join(directory.path, "wal"),
    repository: bench.tier1,
    queue: {
      kind: "embedded",
      executable: findTool("nats-server", process.env),
      directory: join(directory.path, "queue"),
    },
    telemetry: noTelemetry(),
    log: bench.log,
    signal: new AbortController().signal,
    ...options,
  });
  await bench.segment("a", wal(1), false);
  role.onStored({ cluster: "a", name: wal(1), sendToTier2: true });
  addBackup(bench, "b1", wal(1), wal(1));
  expect(await role.closeBackup(close("b1", wal(1), wal(1)))).toEqual({ scheduled: false, missing: [] });
  const failed = await eventually(async () => {
    const list = await role.admin.failed("backup");
    return list.length === 1 && list;
  });
  expect(failed[0]).toMatchObject({ code: "KLIO-TIER-MISSING" });
  expect((await role.admin.pending()).wal).toBe(0);
  await expect(role.admin.reconcile()).rejects.toMatchObject({ code: "KLIO-TIER-MISSING" });
  await role.stop();
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
