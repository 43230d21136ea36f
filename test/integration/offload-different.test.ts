import { open } from "node:fs/promises";
import { expect, test } from "vitest";
import { walFile } from "../../src/actors/spool/wal-directory.ts";
import { walKey } from "../../src/domain/object-key.ts";
import { backupOf } from "../support/backups.ts";
import { eventually } from "../support/eventually.ts";
import { type OffloadBench, offloadBench, SEGMENT_BYTES, wal } from "../support/offload-bench.ts";
import { temporaryDirectory } from "../support/temporary-directory.ts";

const quick = { probe: { firstMs: 50, limitMs: 200 }, delaysMs: [100] };
const hasAll = (bench: OffloadBench, names: string[]) =>
  eventually(async () => (await bench.names2("a")).join() === names.join());

/** A backup on tier 1 that needs WAL from `startWal` on only. */
function addBackup(bench: OffloadBench, startWal: string): void {
  const metadata = backupOf({
    clusterName: "a",
    startWal,
    endWal: startWal,
    segmentSize: SEGMENT_BYTES,
    backupLabel: "",
  });
  bench.tier1.stored.push({ metadata, snapshots: [] });
}

test("P2: a segment that tier 2 has with other bytes is none that it holds: the frontier stays below, and tier 1 keeps it", async () => {
  await using directory = await temporaryDirectory();
  await using bench = await offloadBench(directory.path);
  await bench.s3.objects.put(walKey("p", "a", wal(2)), Buffer.from("of another server"));
  for (const n of [1, 2, 3]) await bench.segment("a", wal(n), false);
  addBackup(bench, wal(3));
  const role = await bench.start({ limits: quick });
  await hasAll(bench, [wal(1), wal(2), wal(3)]);
  const report = await eventually(() => role.admin.reconcile("a"));
  expect(report.clusters[0]).toMatchObject({ different: [wal(2)], missing: 0, error: "" });
  await eventually(() => role.frontier("a").missing.join() === wal(2));
  expect(role.frontier("a").at).toBe(wal(1));
  expect(await role.admin.applyRetention("a", "tier1", false)).toMatchObject({ deletedWalFiles: 0 });
  expect((await bench.store.list("a")).map(({ name }) => name)).toContain(wal(2));
});

test("P5: a file that was damaged on tier 1 after its upload keeps no other one from being found missing", async () => {
  await using directory = await temporaryDirectory();
  await using bench = await offloadBench(directory.path);
  const raw = Buffer.alloc(SEGMENT_BYTES, 7);
  // Of many small frames: it is packed anew on its way, and has another size there.
  const request = { cluster: "a", name: wal(1), segmentBytes: SEGMENT_BYTES, fromOffset: 0, allowForeign: true };
  const writer = await bench.store.openWriter(request);
  for (let at = 0; at < raw.length; at += 16_384) {
    writer.append(raw.subarray(at, at + 16_384), at);
    await writer.durable();
  }
  await writer.complete();
  await writer.close();
  const first = await bench.start({ limits: quick });
  first.onStored({ cluster: "a", name: wal(1), sendToTier2: true });
  await hasAll(bench, [wal(1)]);
  await first.stop();
  const file = await open(walFile(`${directory.path}/wal`, "a", wal(1)), "r+");
  await file.write(Buffer.from([0xff, 0xff, 0xff, 0xff]), 0, 4, 1_000);
  await file.close();
  await bench.segment("a", wal(2), false); // its task was lost
  const role = await bench.start({ limits: quick });
  await hasAll(bench, [wal(1), wal(2)]);
  const report = await role.admin.reconcile("a");
  expect(report.clusters[0]).toMatchObject({ different: [wal(1)], error: "" });
});
