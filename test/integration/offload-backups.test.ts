import { readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { openSnapshotRepository } from "../../src/actors/snapshots/open-repository.ts";
import { failure, ok, unwrap } from "../../src/domain/outcome.ts";
import { type SnapshotInfo, TIER2_PIN } from "../../src/domain/snapshots.ts";
import { addBackup, close, hasAll, none, quick } from "../support/closed-backups.ts";
import { eventually } from "../support/eventually.ts";
import { offloadBench, wal } from "../support/offload-bench.ts";
import { sampleMetadata, sampleTree, storeSample } from "../support/sample-backup.ts";
import { repositoryOptions, startSnapshotServer } from "../support/snapshot-server.ts";
import { temporaryDirectory } from "../support/temporary-directory.ts";

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
  expect(bench.tier2.stored).toEqual([]);
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

test("Y1, Y3: the copy that is verified is that of this backup, not an older one of its name", async () => {
  await using directory = await temporaryDirectory();
  await using bench = await offloadBench(directory.path);
  const role = await bench.start({ limits: quick });
  for (const n of [1, 2]) await bench.segment("a", wal(n));
  addBackup(bench, "b1", wal(1), wal(1));
  const [old] = bench.tier1.stored.splice(0);
  bench.tier2.stored.push({ ...old!, snapshots: [{ ...old!.snapshots[0]!, path: "/of-the-deleted-one" }] });
  const verified: string[] = [];
  bench.tier2.verify = async (snapshots: readonly SnapshotInfo[]) => {
    verified.push(...snapshots.map(({ path }) => path));
    return ok({ corrupt: [] });
  };
  addBackup(bench, "b1", wal(2), wal(2), 1_700_100_000);
  await role.closeBackup(close("b1", wal(2), wal(2)));
  await eventually(() => bench.tier1.stored[0]!.snapshots[0]!.pins.length === 0);
  expect(verified).toEqual(["/b1"]);
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

test("P4: through an outage of tier 2 a backup that waits is read on tier 1 once, not at each try", async () => {
  await using directory = await temporaryDirectory();
  await using bench = await offloadBench(directory.path);
  const { tier1 } = bench;
  let [tries, reads] = [0, 0];
  const copy = tier1.copyBackupTo.bind(tier1);
  tier1.copyBackupTo = async (...args) =>
    ++tries < 4 ? failure("KLIO-REPOSITORY-DOWN", "no route to the store") : copy(...args);
  tier1.verify = async (_, options?: { percent: number }) => {
    if (options?.percent === 100) reads++;
    return ok({ corrupt: [] });
  };
  const role = await bench.start({ limits: quick });
  await bench.segment("a", wal(1));
  addBackup(bench, "b1", wal(1), wal(1));
  await role.closeBackup(close("b1", wal(1), wal(1)));
  await eventually(() => bench.tier2.stored.length === 1);
  expect([tries, reads]).toEqual([4, 1]);
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
