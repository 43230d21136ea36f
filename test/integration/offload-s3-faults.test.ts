// The store misbehaves in one way after the other while segments are on their way; each time both tiers are equal at the end,
// the frontier is where it belongs, and everything can be read from tier 2 alone.
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { expect, test } from "vitest";
import { openObjectStore } from "../../src/actors/s3/object-store.ts";
import { openTier2WalReader } from "../../src/actors/s3/tier2-wal-reader.ts";
import type { Tier2Parts } from "../../src/roles/offload-parts.ts";
import { eventually } from "../support/eventually.ts";
import {
  type Answer,
  type Asked,
  type Fault,
  faultyS3,
  firstTimes,
  isList,
  isPut,
  slowDown,
} from "../support/faulty-s3.ts";
import { type OffloadBench, offloadBench, wal } from "../support/offload-bench.ts";
import { temporaryDirectory } from "../support/temporary-directory.ts";

const quick = { probe: { firstMs: 50, limitMs: 200 }, delaysMs: [100] };
const SEGMENTS = 6;

/** Tier 2 as the server under test sees it; `bench.reader` sees it as it is. */
function spoiledParts(bench: OffloadBench, endpoint: string): Tier2Parts {
  const objects = openObjectStore({ ...bench.s3.settings, endpoint });
  const reader = openTier2WalReader({ objects, prefix: "p", masterKey: bench.parts.masterKey });
  return { ...bench.parts, objects, reader };
}

async function rawOf(bench: OffloadBench, cluster: string, name: string): Promise<Buffer> {
  const opened = await bench.reader.open(cluster, name);
  const parts: Uint8Array[] = [];
  for await (const block of opened?.blocks ?? []) parts.push(block);
  return Buffer.concat(parts);
}

/** Both tiers equal, nothing beside, nothing waiting, nothing given up; read from tier 2 alone. */
async function expectEqual(bench: OffloadBench, cluster: string, raws: Map<string, Buffer>): Promise<void> {
  const names = [...raws.keys()].toSorted();
  const role = bench.role();
  await eventually(async () => (await bench.names2(cluster)).join() === names.join(), { timeoutMs: 60_000 });
  await eventually(() => role.frontier(cluster).listed && role.frontier(cluster).at === names.at(-1), {
    timeoutMs: 60_000,
  });
  await eventually(async () => (await role.admin.pending()).wal === 0, { timeoutMs: 60_000 });
  expect(role.frontier(cluster)).toMatchObject({ missing: [], ahead: [] });
  expect(await role.admin.failed("wal")).toEqual([]);
  for (const [name, raw] of raws) expect((await rawOf(bench, cluster, name)).equals(raw), name).toBe(true);
  const { files, foreign } = await bench.reader.listAll(cluster);
  expect([files.length, foreign]).toEqual([names.length, []]);
}

const withHeader = (name: string, value: string): Fault => ({
  kind: "edit",
  edit: (answer: Answer) => ({ ...answer, headers: { ...answer.headers, [name]: value } }),
});
const isSegmentPut = (asked: Asked) => isPut(asked) && /[0-9A-F]{24}$/.test(asked.path);
const isGet = ({ method, query, path }: Asked) =>
  method === "GET" && !query.has("list-type") && path.includes("/wals/a/");
const lostPutThen = (rest: (asked: Asked) => Fault | undefined) => {
  const lost = firstTimes(2, isSegmentPut, { kind: "loseAnswer" });
  return (asked: Asked) => lost(asked) ?? rest(asked);
};
const otherMd5 = `"${createHash("md5").update("other").digest("hex")}"`;
const emptyList = (answer: Answer): Answer => ({
  ...answer,
  body: Buffer.from(
    `<?xml version="1.0"?><ListBucketResult><IsTruncated>false</IsTruncated><KeyCount>0</KeyCount></ListBucketResult>`,
  ),
});
const isFind = (asked: Asked) => isList(asked) && /[0-9A-F]{24}$/.test(asked.query.get("prefix") ?? "");

const faults: [string, () => (asked: Asked) => Fault | undefined][] = [
  ["503 SlowDown", () => firstTimes(5, isSegmentPut, slowDown)],
  ["500 for a while", () => firstTimes(9, isSegmentPut, { kind: "answer", status: 500, code: "InternalError" })],
  ["the answer lost after the object was stored", () => firstTimes(4, isSegmentPut, { kind: "loseAnswer" })],
  ["a reset in mid body", () => firstTimes(4, isSegmentPut, { kind: "resetInBody", afterBytes: 100_000 })],
  ["a wrong checksum told", () => firstTimes(3, isSegmentPut, withHeader("x-amz-checksum-crc32", "AAAAAA=="))],
  [
    "a wrong ETag and no checksum told",
    () =>
      firstTimes(3, isSegmentPut, {
        kind: "edit",
        edit: ({ headers: { "x-amz-checksum-crc32": _, ...headers }, ...answer }) => ({
          ...answer,
          headers: { ...headers, etag: otherMd5 },
        }),
      }),
  ],
  [
    "an object cut off while it is compared",
    () => lostPutThen(firstTimes(2, isGet, { kind: "cutAnswer", afterBytes: 50_000 })),
  ],
  ["an object that trickles in", () => lostPutThen(firstTimes(2, isGet, { kind: "trickle", pieces: 20, pauseMs: 10 }))],
  [
    "a list that does not show what was just written",
    () => lostPutThen(firstTimes(2, isFind, { kind: "edit", edit: emptyList })),
  ],
  ["a list cut off", () => firstTimes(3, isList, { kind: "cutAnswer", afterBytes: 60 })],
];

test.each(faults)("P5: after %s both tiers are equal", async (_, rule) => {
  await using directory = await temporaryDirectory();
  await using bench = await offloadBench(directory.path);
  await using faulty = await faultyS3(bench.s3.s3);
  const role = await bench.start({
    limits: quick,
    reconcileMs: 500,
    tier2: { prefix: "p", whenOpen: Promise.resolve(spoiledParts(bench, faulty.endpoint)) },
  });
  await eventually(() => role.admin.reconcile());
  faulty.spoil(rule());
  const raws = new Map<string, Buffer>();
  for (let n = 1; n <= SEGMENTS; n++) raws.set(wal(n), await bench.segment("a", wal(n)));
  await eventually(() => faulty.counts().spoiled > 1, { what: "the fault" });
  await expectEqual(bench, "a", raws);
});

test("KLIO-S3-FULL: a store that says it is full is told as such once, and filled up when it has space again", async () => {
  await using directory = await temporaryDirectory();
  await using bench = await offloadBench(directory.path);
  await using faulty = await faultyS3(bench.s3.s3);
  const parts = spoiledParts(bench, faulty.endpoint);
  const role = await bench.start({ limits: quick, tier2: { prefix: "p", whenOpen: Promise.resolve(parts) } });
  faulty.spoil((asked) =>
    isSegmentPut(asked) ? { kind: "answer", status: 507, code: "InsufficientStorage" } : undefined,
  );
  const raws = new Map<string, Buffer>();
  for (let n = 1; n <= SEGMENTS; n++) raws.set(wal(n), await bench.segment("a", wal(n)));
  await eventually(() => role.paused()?.code === "KLIO-S3-FULL");
  expect(role.paused()?.reason).toContain("the store has no space left");
  await eventually(() => faulty.counts().spoiled > 5, { what: "probes of a full store" });
  expect(bench.log.events().filter((event) => event === "offload.paused")).toHaveLength(1);
  faulty.spoil(undefined);
  await expectEqual(bench, "a", raws);
});

test.runIf(process.getuid?.() === 0)(
  "P10, KLIO-S3-FULL: a store whose disk is really full loses nothing, and resumes",
  async () => {
    await using directory = await temporaryDirectory();
    const volume = join(directory.path, "s3");
    await mkdir(volume);
    execFileSync("mount", ["-t", "tmpfs", "-o", "size=4m", "tmpfs", volume]);
    try {
      await using bench = await offloadBench(directory.path);
      const role = await bench.start({ limits: quick });
      const raws = new Map<string, Buffer>();
      for (let n = 1; n <= SEGMENTS; n++) raws.set(wal(n), await bench.segment("a", wal(n)));
      await eventually(() => role.paused()?.code === "KLIO-S3-FULL", { timeoutMs: 60_000 });
      for (const name of await bench.names2("a"))
        expect((await rawOf(bench, "a", name)).equals(raws.get(name)!)).toBe(true);
      execFileSync("mount", ["-o", "remount,size=32m", volume]);
      await expectEqual(bench, "a", raws);
    } finally {
      execFileSync("umount", ["-l", volume]);
    }
  },
);

test("an outage leaves tasks in the queue and not in memory, one line per duty in the log, and is caught up", async () => {
  await using directory = await temporaryDirectory();
  await using bench = await offloadBench(directory.path);
  await using faulty = await faultyS3(bench.s3.s3);
  const parts = spoiledParts(bench, faulty.endpoint);
  const role = await bench.start({
    reconcileMs: 200,
    limits: { ...quick, window: 16 },
    tier2: { prefix: "p", whenOpen: Promise.resolve(parts) },
  });
  await eventually(() => role.admin.reconcile());
  faulty.spoil(() => slowDown);
  const raws = new Map<string, Buffer>();
  for (let n = 1; n <= 60; n++) raws.set(wal(n), await bench.segment("a", wal(n)));
  await eventually(() => role.paused()?.code === "KLIO-S3-DOWN");
  await eventually(async () => (await role.admin.pending()).wal === 60);
  const told = () => bench.log.lines.filter(({ level }) => level === "warn" || level === "error");
  const after = (requests: number) => eventually(() => faulty.counts().requests > requests, { what: "probes" });
  await after(20);
  // Tasks, the listing of all clusters, the listing of this one: a line for each, however often it is tried.
  const lines = told().map(({ event, message }) => `${event} ${message}`);
  expect(lines.length).toBeLessThanOrEqual(3);
  await after(faulty.counts().requests + 40);
  expect(told()).toHaveLength(lines.length);
  faulty.spoil(undefined);
  await expectEqual(bench, "a", raws);
});
