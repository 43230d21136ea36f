import { rm } from "node:fs/promises";
import { join } from "node:path";
import { expect, test, vi } from "vitest";
import { openObjectStore } from "../../src/actors/s3/object-store.ts";
import { walKey } from "../../src/domain/object-key.ts";
import { eventually } from "../support/eventually.ts";
import { type OffloadBench, offloadBench, SEGMENT_BYTES, wal } from "../support/offload-bench.ts";
import { temporaryDirectory } from "../support/temporary-directory.ts";

async function rawOf(bench: OffloadBench, cluster: string, name: string): Promise<Buffer> {
  const opened = await bench.reader.open(cluster, name);
  const parts: Uint8Array[] = [];
  for await (const block of opened?.blocks ?? []) parts.push(block);
  return Buffer.concat(parts);
}

const quick = { probe: { firstMs: 50, limitMs: 200 }, delaysMs: [100] };
const hasAll = (bench: OffloadBench, cluster: string, names: string[]) => async () => {
  const held = await bench.names2(cluster);
  return names.every((name) => held.includes(name));
};
const pending = async (bench: OffloadBench) => (await bench.role().admin.pending()).wal;

test("stored files reach tier 2 bit for bit, the frontier follows, and the queue is empty", async () => {
  await using directory = await temporaryDirectory();
  await using bench = await offloadBench(directory.path);
  const role = await bench.start({ limits: quick });
  await eventually(() => role.admin.reconcile());
  const names = Array.from({ length: 12 }, (_, i) => wal(i + 1));
  const raws = await Promise.all(names.map((name) => bench.segment("eu.main", name)));
  await eventually(hasAll(bench, "eu.main", names));
  for (const [i, name] of names.entries()) expect((await rawOf(bench, "eu.main", name)).equals(raws[i]!)).toBe(true);
  await eventually(async () => (await pending(bench)) === 0);
  await eventually(() => role.frontier("eu.main").listed);
  expect(role.frontier("eu.main")).toMatchObject({ at: wal(12), missing: [], listed: true });
});

test("a round that is asked for during another one is the next one", async () => {
  await using directory = await temporaryDirectory();
  await using bench = await offloadBench(directory.path);
  const role = await bench.start({ limits: quick });
  const first = await eventually(() => role.admin.reconcile());
  const [second, third] = await Promise.all([role.admin.reconcile(), role.admin.reconcile()]);
  expect([second, third].map(({ round }) => round - first.round)).toEqual([1, 2]);
});

/** Writes a part of the first segment of `a`, as a stream that breaks off and goes on does, and tells it. */
async function write(bench: OffloadBench, raw: Buffer, from: number, to: number): Promise<void> {
  const isWhole = to === raw.length;
  const writer = await bench.store.openWriter({
    cluster: "a",
    name: wal(1),
    segmentBytes: SEGMENT_BYTES,
    fromOffset: from,
    allowForeign: true,
  });
  writer.append(raw.subarray(from, to), from);
  if (isWhole) await writer.complete();
  await writer.close();
  bench.role().onStored({ cluster: "a", name: isWhole ? wal(1) : `${wal(1)}.partial`, sendToTier2: true });
}

test("a partial file is relayed, grows there, and gives way to the complete file", async () => {
  await using directory = await temporaryDirectory();
  await using bench = await offloadBench(directory.path);
  await bench.start({ limits: quick });
  const raw = Buffer.alloc(SEGMENT_BYTES, 7);
  await write(bench, raw, 0, 100_000);
  await eventually(async () => (await rawOf(bench, "a", `${wal(1)}.partial`)).length === 100_000);
  await write(bench, raw, 100_000, 300_000);
  await eventually(async () => (await rawOf(bench, "a", `${wal(1)}.partial`)).length === 300_000);
  await write(bench, raw, 300_000, SEGMENT_BYTES);
  await eventually(async () => (await bench.names2("a")).join() === wal(1));
  expect((await rawOf(bench, "a", wal(1))).equals(raw)).toBe(true);
});

test("a partial file that is completed while its beginning is replaced on tier 2 is no conflict", async () => {
  await using directory = await temporaryDirectory();
  await using bench = await offloadBench(directory.path);
  const raw = Buffer.alloc(SEGMENT_BYTES, 7);
  let refusals = 0;
  const put: typeof bench.s3.objects.put = async (...args) => {
    const answer = await bench.s3.objects.put(...args);
    if (answer.kind === "ok" && answer.value.kind === "refused" && refusals++ === 0)
      await write(bench, raw, 300_000, SEGMENT_BYTES);
    return answer;
  };
  const parts = { ...bench.parts, objects: { ...bench.s3.objects, put } };
  const role = await bench.start({ limits: quick, tier2: { prefix: "p", whenOpen: Promise.resolve(parts) } });
  await write(bench, raw, 0, 100_000);
  await eventually(async () => (await rawOf(bench, "a", `${wal(1)}.partial`)).length === 100_000);
  await write(bench, raw, 100_000, 300_000);
  await eventually(async () => (await bench.names2("a")).includes(wal(1)));
  await eventually(async () => (await pending(bench)) === 0);
  expect(refusals).toBeGreaterThan(0);
  expect(await role.admin.failed("wal")).toEqual([]);
  expect(role.paused()).toBeUndefined();
});

test("a cluster that is sent to tier 2 from now on is listed at once: what it stored before is missing there", async () => {
  await using directory = await temporaryDirectory();
  await using bench = await offloadBench(directory.path);
  let role = await bench.start({ limits: quick });
  const store = async (n: number, sendToTier2: boolean) => {
    await bench.segment("a", wal(n), false);
    role.onStored({ cluster: "a", name: wal(n), sendToTier2 });
  };
  for (const n of [1, 2]) await store(n, false);
  expect((await eventually(() => role.admin.reconcile("a"))).clusters[0]).toMatchObject({ missing: 0 });
  expect(role.frontier("a")).toMatchObject({ listed: true, missing: [] });
  await store(3, true);
  await eventually(hasAll(bench, "a", [wal(1), wal(2), wal(3)]));
  await eventually(() => role.frontier("a").at === wal(3));
  // It is the same when the server was started anew in between.
  for (const n of [4, 5]) await store(n, false);
  await role.stop();
  role = await bench.start({ limits: quick });
  await eventually(() => role.frontier("a").listed);
  await store(6, true);
  await eventually(hasAll(bench, "a", [wal(4), wal(5), wal(6)]));
});

test("P4: while S3 is away storing goes on at once, one line tells it, and everything catches up", async () => {
  await using directory = await temporaryDirectory();
  await using bench = await offloadBench(directory.path);
  const role = await bench.start({ limits: quick });
  await eventually(() => role.admin.reconcile());
  await bench.segment("a", wal(1));
  await eventually(hasAll(bench, "a", [wal(1)]));
  await bench.s3.s3.stop();
  const names = Array.from({ length: 40 }, (_, i) => wal(i + 2));
  const before = Date.now();
  for (const name of names) role.onStored({ cluster: "a", name, sendToTier2: true });
  expect(Date.now() - before).toBeLessThan(1_000);
  for (const name of names) await bench.segment("a", name, false);
  await eventually(() => role.paused() !== undefined);
  expect(role.paused()?.code).toBe("KLIO-S3-DOWN");
  // Several probes fail, and still there is one line.
  await eventually(async () => (await pending(bench)) === 40);
  const attempts = () => bench.log.events().filter((event) => event === "offload.paused").length;
  expect(attempts()).toBe(1);
  await bench.s3.s3.start();
  await eventually(hasAll(bench, "a", names), { timeoutMs: 60_000 });
  await eventually(() => role.frontier("a").at === wal(41));
  expect(bench.log.events()).toContain("offload.resumed");
  expect(await role.admin.failed("wal")).toEqual([]);
});

test("tier 2 that opens long after the start gets what was stored meanwhile", async () => {
  await using directory = await temporaryDirectory();
  await using bench = await offloadBench(directory.path);
  const opening = Promise.withResolvers<typeof bench.parts>();
  const role = await bench.start({ limits: quick, tier2: { prefix: "p", whenOpen: opening.promise } });
  await bench.segment("a", wal(1));
  expect(role.paused()).toMatchObject({ code: "KLIO-S3-DOWN" });
  await expect(role.admin.reconcile()).rejects.toMatchObject({ code: "KLIO-S3-DOWN" });
  await eventually(async () => (await pending(bench)) === 1);
  opening.resolve(bench.parts);
  await eventually(hasAll(bench, "a", [wal(1)]));
});

test("wrong credentials and a missing bucket pause with their own code; right ones go on", async () => {
  await using directory = await temporaryDirectory();
  await using bench = await offloadBench(directory.path);
  for (const [change, code] of [
    [{ secretAccessKey: "wrong" }, "KLIO-S3-CREDENTIALS"],
    [{ bucketName: "no-such-bucket" }, "KLIO-S3-BUCKET"],
  ] as const) {
    const objects = openObjectStore({ ...bench.s3.settings, ...change });
    const role = await bench.start({
      limits: quick,
      tier2: { prefix: "p", whenOpen: Promise.resolve({ ...bench.parts, objects }) },
    });
    await bench.segment("a", wal(code.length));
    await eventually(() => role.paused()?.code === code);
    expect(await role.admin.failed("wal")).toEqual([]);
    await role.stop();
  }
  await bench.start({ limits: quick });
  await eventually(hasAll(bench, "a", [wal("KLIO-S3-CREDENTIALS".length), wal("KLIO-S3-BUCKET".length)]));
});

test("P5: the queue server killed with -9 costs nothing but a moment", async () => {
  await using directory = await temporaryDirectory();
  await using bench = await offloadBench(directory.path);
  const role = await bench.start({ limits: quick });
  for (let n = 1; n <= 10; n++) {
    await bench.segment("a", wal(n));
    if (n === 5) process.kill(role.queuePid(), "SIGKILL");
  }
  await eventually(
    hasAll(
      bench,
      "a",
      Array.from({ length: 10 }, (_, i) => wal(i + 1)),
    ),
    { timeoutMs: 30_000 },
  );
});

test("P5: with the queue's directory gone the reconciler finds every file", async () => {
  await using directory = await temporaryDirectory();
  await using bench = await offloadBench(directory.path);
  const first = await bench.start({ limits: quick });
  await bench.segment("a", wal(1));
  await eventually(hasAll(bench, "a", [wal(1)]));
  await first.stop();
  for (const n of [2, 3]) await bench.segment("a", wal(n), false);
  await rm(join(directory.path, "queue"), { recursive: true });
  const role = await bench.start({ limits: quick });
  await eventually(hasAll(bench, "a", [wal(2), wal(3)]));
  await eventually(() => role.frontier("a").at === wal(3));
  // While it runs, too.
  await bench.segment("b", wal(1), false);
  role.onStored({ cluster: "b", name: wal(9), sendToTier2: true }); // makes the cluster one that goes to tier 2
  // The queue server writes on meanwhile.
  await rm(join(directory.path, "queue", "jetstream"), { recursive: true, maxRetries: 20, retryDelay: 20 });
  process.kill(role.queuePid(), "SIGKILL");
  await eventually(hasAll(bench, "b", [wal(1)]));
});

test("KLIO-S3-CONFLICT: other bytes under the same name are neither replaced nor believed, and delay nobody", async () => {
  await using directory = await temporaryDirectory();
  await using bench = await offloadBench(directory.path);
  const foreign = Buffer.from("not ours");
  await bench.s3.objects.put(walKey("p", "a", wal(1)), foreign);
  const role = await bench.start({ limits: quick });
  for (const n of [1, 2]) await bench.segment("a", wal(n));
  await bench.segment("b", wal(1));
  await eventually(hasAll(bench, "a", [wal(2)]));
  await eventually(hasAll(bench, "b", [wal(1)]));
  const [failed] = await eventually(async () => {
    const list = await role.admin.failed("wal", "a");
    return list.length === 1 && list;
  });
  expect(failed).toMatchObject({ name: wal(1), code: "KLIO-S3-CONFLICT" });
  const kept = await bench.s3.objects.get(walKey("p", "a", wal(1)));
  expect(kept.kind === "ok" && kept.value?.bytes).toBe(foreign.length);
  const report = await role.admin.reconcile("a");
  expect(report.clusters[0]).toMatchObject({ cluster: "a", different: [wal(1)], enqueued: 0 });
});

test("a file that was packed anew for tier 2 is compared once, and again when it is back after it was gone", async () => {
  await using directory = await temporaryDirectory();
  await using bench = await offloadBench(directory.path);
  const request = { cluster: "a", name: wal(1), segmentBytes: SEGMENT_BYTES, fromOffset: 0, allowForeign: true };
  const writer = await bench.store.openWriter(request);
  for (let at = 0; at < SEGMENT_BYTES; at += 8192) {
    writer.append(Buffer.alloc(8192, at >> 13), at);
    await writer.durable();
  }
  await writer.complete();
  await writer.close();
  const role = await bench.start({ limits: quick });
  role.onStored({ cluster: "a", name: wal(1), sendToTier2: true });
  await eventually(hasAll(bench, "a", [wal(1)]));
  const looks = vi.spyOn(bench.store, "exportTo");
  for (let i = 0; i < 3; i++) await role.admin.reconcile("a");
  expect(looks).toHaveBeenCalledTimes(1);
  const { files } = await bench.reader.listAll("a");
  const list = vi.spyOn(bench.reader, "listAll").mockResolvedValue({ files: [], foreign: [] });
  await role.admin.reconcile("a");
  await eventually(async () => (await role.admin.pending()).wal === 0);
  list.mockResolvedValue({ files, foreign: [] });
  looks.mockClear();
  await role.admin.reconcile("a");
  expect(looks).toHaveBeenCalledTimes(1);
});

test("a second upload of the same content is no conflict", async () => {
  await using directory = await temporaryDirectory();
  await using bench = await offloadBench(directory.path);
  const role = await bench.start({ limits: quick });
  await bench.segment("a", wal(1));
  await eventually(hasAll(bench, "a", [wal(1)]));
  await role.stop();
  await rm(join(directory.path, "queue"), { recursive: true });
  // Without a listing before it: the store refuses, the contents are compared.
  const never = { ...bench.parts, reader: { ...bench.reader, clusters: () => new Promise<string[]>(() => undefined) } };
  const again = await bench.start({ limits: quick, tier2: { prefix: "p", whenOpen: Promise.resolve(never) } });
  again.onStored({ cluster: "a", name: wal(1), sendToTier2: true });
  await eventually(() => again.frontier("a").missing.length === 0 && again.frontier("a").at === wal(1));
  await eventually(async () => (await pending(bench)) === 0);
  expect(await again.admin.failed("wal")).toEqual([]);
});

test("a poison segment delays no other; removed as dead letter it is gone, with its file repaired it is relayed", async () => {
  await using directory = await temporaryDirectory();
  await using bench = await offloadBench(directory.path);
  const { store } = bench;
  const poisoned: typeof store.exportTo = async (cluster, name, key) => {
    if (name === wal(1) && isPoison)
      throw new (await import("../../src/errors.ts")).KlioError("KLIO-WAL-DAMAGED", "frame 3");
    return store.exportTo(cluster, name, key);
  };
  let isPoison = true;
  const proxied = new Proxy(store, {
    get: (target, key) => {
      if (key === "exportTo") return poisoned;
      const value: unknown = Reflect.get(target, key, target);
      return typeof value === "function" ? value.bind(target) : value;
    },
  });
  const role = await bench.start({ limits: quick, store: proxied });
  for (const n of [1, 2, 3]) await bench.segment("a", wal(n));
  await bench.segment("b", wal(1).replace(/1$/, "7"));
  await eventually(hasAll(bench, "a", [wal(2), wal(3)]));
  await eventually(hasAll(bench, "b", [wal(7)]));
  const failed = await eventually(async () => {
    const list = await role.admin.failed("wal");
    return list.length === 1 && list;
  });
  expect(failed[0]).toMatchObject({
    cluster: "a",
    name: wal(1),
    code: "KLIO-WAL-DAMAGED",
    error: "frame 3",
    attempts: 1,
  });
  expect(role.frontier("a").at).not.toBe(wal(3));
  isPoison = false;
  expect(await role.admin.retry("a")).toEqual({ wal: 1, backup: 0 });
  await eventually(hasAll(bench, "a", [wal(1)]));
  await eventually(async () => (await role.admin.failed("wal")).length === 0);
  await eventually(() => role.frontier("a").at === wal(3));
});

test("a file that tier 1 no longer has is missing for good only when tier 2 has it neither (KLIO-WAL-MISSING)", async () => {
  await using directory = await temporaryDirectory();
  await using bench = await offloadBench(directory.path);
  const role = await bench.start({ limits: quick });
  role.onStored({ cluster: "a", name: wal(5), sendToTier2: true });
  const failed = await eventually(async () => {
    const list = await role.admin.failed("wal");
    return list.length === 1 && list;
  });
  expect(failed[0]).toMatchObject({ name: wal(5), code: "KLIO-WAL-MISSING" });
  expect(await role.admin.purge()).toEqual({ wal: 1, backup: 0 });
  expect(await role.admin.failed("wal")).toEqual([]);
});
