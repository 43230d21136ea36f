// The way to tier 2, measured on a real S3 server behind a link of 50 ms and of none: how long segments take against plain parallel
// PUTs of the same objects by curl, and what they cost in CPU and memory, for WAL of a bulk load and for segments that cannot be
// made smaller, which no WAL is like; how far the frontier is behind, how a long backlog drains (with KLIO_BENCH_BACKLOG=10000;
// 1,000 without), and what the relay of an unchanged backup sends.
import { execFile, fork } from "node:child_process";
import { createDecipheriv, randomBytes } from "node:crypto";
import { once } from "node:events";
import { createWriteStream, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pipeline } from "node:stream/promises";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { crc32 } from "node:zlib";
import { findTool } from "../src/config/tools.ts";
import { type LocalS3, startS3 } from "../src/demo/local-s3.ts";
import { openForWalking } from "../src/demo/run-as.ts";
import { unwrap } from "../src/domain/outcome.ts";
import { masterKeyOf } from "../src/wire/wal-file-header.ts";
import { sampleMetadata, sampleTree, storeSample } from "../test/support/sample-backup.ts";
import { slowLink } from "../test/support/slow-link.ts";
import { startSnapshotServer } from "../test/support/snapshot-server.ts";
import { walSegment } from "../test/support/wal-bytes.ts";
import type { Figure } from "./run.ts";
import { quantile } from "./statistics.ts";
import { bulkWal } from "./tier2-bulk-wal.ts";
import { fillTier1, type Measured, type Order, type Setting } from "./tier2-process.ts";
import { cpuSeconds } from "./workload.ts";

const SEGMENTS = 64;
const SEGMENT_BYTES = 16 << 20;
const CURL_AT_ONCE = 8;
const DELAY_MS = 50;
const FOLLOWED = 60;
const BACKLOG = Number(process.env.KLIO_BENCH_BACKLOG ?? 1_000);
const MIB = 1 << 20;
const GIB = 1 << 30;

const run = promisify(execFile);
const child = fileURLToPath(new URL("./tier2-process.ts", import.meta.url));

/** One process for these orders, one after the other: the second of two like ones finds its code compiled. */
async function measure(...orders: { setting: Setting; order: Order }[]): Promise<[Measured, ...Measured[]]> {
  const profile = process.env.KLIO_BENCH_PROFILE;
  const flags = profile === undefined ? [] : ["--cpu-prof", `--cpu-prof-dir=${profile}`];
  const forked = fork(child, { execArgv: ["--expose-gc", ...flags] });
  const gone = once(forked, "exit");
  const all: Measured[] = [];
  for (const order of orders) {
    forked.send(order);
    const [answer] = await Promise.race([once(forked, "message"), gone]);
    if (typeof answer !== "object" || answer?.measured === undefined)
      throw new Error(answer?.error ?? `the measured process ended with ${answer}`);
    all.push(answer.measured);
  }
  forked.disconnect();
  await gone;
  return all as [Measured, ...Measured[]];
}

/** Seconds that curl takes for the files, `CURL_AT_ONCE` at a time. */
async function curlSeconds(s3: LocalS3, port: number, directory: string, names: string[], prefix: string) {
  const began = performance.now();
  const url = `http://127.0.0.1:${port}/${s3.bucket}/${prefix}/`;
  const args = ["--silent", "--show-error", "--fail", "--parallel", "--parallel-max", String(CURL_AT_ONCE)];
  const signed = ["--aws-sigv4", `aws:amz:${s3.region}:s3`, "--user", `${s3.accessKeyId}:${s3.secretAccessKey}`];
  await run(
    "curl",
    [
      ...args,
      ...signed,
      "-H",
      "x-amz-content-sha256: UNSIGNED-PAYLOAD",
      "-H",
      "Expect:",
      "-T",
      `{${names.join(",")}}`,
      url,
    ],
    { cwd: directory },
  );
  return (performance.now() - began) / 1_000;
}

/** CPU seconds per GiB of nothing but decryption and checksum, on this machine as busy as it is now: what the figures hold against. */
function bareCpu(): number {
  const [key, nonce, bytes] = [randomBytes(32), randomBytes(12), randomBytes(256 << 10)];
  const since = process.cpuUsage();
  for (let n = 0; n < GIB / bytes.length; n++) {
    const payload = createDecipheriv("aes-256-gcm", key, nonce).update(bytes);
    if (payload.buffer instanceof ArrayBuffer) payload.buffer.transfer(0);
    crc32(bytes);
  }
  return cpuSeconds(since);
}

export async function benchTier2(): Promise<Figure[]> {
  const directory = mkdtempSync(join(tmpdir(), "klio-bench-"));
  openForWalking(directory); // for the user that PostgreSQL runs as
  await using stack = new AsyncDisposableStack();
  stack.defer(() => rmSync(directory, { recursive: true, force: true }));
  mkdirSync(join(directory, "s3"));
  const s3 = stack.use(
    await startS3({
      directory: join(directory, "s3"),
      bucket: "klio-bench",
      executable: findTool("versitygw", process.env),
    }),
  );
  let runs = 0;
  const settingOf: SettingOf = (port, segments, more = {}) => ({
    walDirectory: segments.walDirectory,
    queueDirectory: join(directory, `queue-${++runs}`),
    masterKey: segments.masterKey,
    s3: {
      bucketName: s3.bucket,
      region: s3.region,
      endpoint: `http://127.0.0.1:${port}`,
      accessKeyId: s3.accessKeyId,
      secretAccessKey: s3.secretAccessKey,
    },
    prefix: `run-${runs}`,
    segmentBytes: SEGMENT_BYTES,
    limits: {},
    ...more,
  });
  const figures: Figure[] = [];
  const bulk = await bulkSegments(directory);
  figures.push({ name: "what tier 1 stores of WAL of a bulk load", value: bulk.storedPercent, unit: "%" });
  for (const delayMs of [DELAY_MS, 0]) figures.push(...(await transfer(s3, settingOf, bulk, delayMs)));
  figures.push(await lag(directory, s3, settingOf, bulk));
  rmSync(bulk.walDirectory, { recursive: true, force: true });
  rmSync(bulk.objects, { recursive: true, force: true });
  const incompressible = await segmentsOf(directory, "incompressible");
  for (const delayMs of [DELAY_MS, 0]) figures.push(...(await transfer(s3, settingOf, incompressible, delayMs)));
  figures.push(...(await backlog(directory, settingOf, s3)), ...(await relay(directory, s3)));
  return figures;
}

/** Segments on tier 1, and the same as objects for curl. */
type Segments = {
  label: string;
  walDirectory: string;
  masterKey: string;
  objects: string;
  names: string[];
  storedPercent: number;
};
type SettingOf = (
  port: number,
  segments: Pick<Segments, "walDirectory" | "masterKey">,
  more?: Partial<Setting>,
) => Setting;

async function segmentsOf(directory: string, label: string, read?: (name: string) => Buffer): Promise<Segments> {
  const walDirectory = join(directory, label.replaceAll(" ", "-"));
  const { store, masterKey, names } = await fillTier1(walDirectory, SEGMENTS, SEGMENT_BYTES, read);
  const objects = `${walDirectory}-objects`;
  mkdirSync(objects);
  const someKey = masterKeyOf(randomBytes(32));
  let bytes = 0;
  for (const name of names) {
    const exported = await store.exportTo("main", name, someKey);
    if (exported === undefined) throw new Error(`${name} is not there`);
    bytes += exported.bytes;
    await pipeline(exported.body(), createWriteStream(join(objects, name)));
    await exported.close();
  }
  await store.close();
  const storedPercent = (bytes / (SEGMENTS * SEGMENT_BYTES)) * 100;
  return { label, walDirectory, masterKey, objects, names, storedPercent };
}

/** What bulk loads really write. */
async function bulkSegments(directory: string): Promise<Segments> {
  await using source = await bulkWal(join(directory, "postgresql"), SEGMENTS);
  return await segmentsOf(directory, "WAL of a bulk load", source.read); // while PostgreSQL is there
}

/** The segments by curl, in parallel and one at a time; the bounds are those of the longer way. */
async function transfer(s3: LocalS3, settingOf: SettingOf, segments: Segments, delayMs: number): Promise<Figure[]> {
  await using link = await slowLink({ port: s3.port }, delayMs);
  const { objects, names, label } = segments;
  const of = `${label}, ${delayMs} ms`;
  const isFar = delayMs === DELAY_MS;
  const forget = (prefix: string) => rmSync(join(s3.bucketDirectory, prefix), { recursive: true, force: true });
  const curl = async (some: string[]) => {
    const seconds = await curlSeconds(s3, link.port, objects, some, "curl");
    forget("curl");
    return seconds;
  };
  const drain = async (limits: Setting["limits"]) => {
    link.reset();
    const settings = [1, 2].map(() => settingOf(link.port, segments, { limits }));
    const order = { kind: "drain", segments: SEGMENTS } as const;
    const measured = await measure(...settings.map((setting) => ({ setting, order })));
    for (const { prefix } of settings) forget(prefix);
    const { PUT: puts = 0, ...others } = link.requests();
    const rest = Object.values(others).reduce((sum, n) => sum + n, 0);
    // The envelope of each run's key is one PUT more.
    return { first: measured[0], last: measured.at(-1)!, perSegment: (puts - 2) / (SEGMENTS * 2), others: rest / 2 };
  };
  await curl(names.slice(0, CURL_AT_ONCE));
  const before = await curl(names);
  const { first, last, perSegment, others } = await drain({});
  const plain = (before + (await curl(names))) / 2;
  const serial = (await drain({ maxConcurrent: 1 })).last;
  const gib = (SEGMENTS * SEGMENT_BYTES) / GIB;
  const peak = Math.max(first.peakBytes - first.idleBytes, last.peakBytes - last.idleBytes) / MIB;
  return [
    { name: `64 segments by curl, eight at a time; ${of}`, value: plain, unit: "s" },
    { name: `by the offload, its first; ${of}`, value: first.seconds, unit: "s" },
    { name: `offload / curl; ${of}`, value: first.seconds / plain, unit: "x", ...(isFar && { bound: 1.3 }) },
    { name: `by the offload, its second; ${of}`, value: last.seconds, unit: "s" },
    { name: `one at a time, the second; ${of}`, value: serial.seconds, unit: "s" },
    {
      name: `one at a time / in parallel; ${of}`,
      value: serial.seconds / last.seconds,
      unit: "x",
      ...(isFar && { atLeast: 3 }),
    },
    { name: `PUTs per segment; ${of}`, value: perSegment, unit: "requests", bound: 1 },
    { name: `other requests in all; ${of}`, value: others, unit: "requests" },
    { name: `CPU of the process, first GiB; ${of}`, value: first.cpuSeconds / gib, unit: "s/GiB" },
    { name: `CPU of the process, second GiB; ${of}`, value: last.cpuSeconds / gib, unit: "s/GiB", bound: 1.2 },
    { name: `CPU of AES-GCM and CRC-32 of 1 GiB alone, then; ${of}`, value: bareCpu(), unit: "s/GiB" },
    { name: `memory above idle; ${of}`, value: peak, unit: "MiB", bound: 64 },
  ];
}

/** How far the frontier is behind what is being stored. */
async function lag(directory: string, s3: LocalS3, settingOf: SettingOf, { masterKey }: Segments): Promise<Figure> {
  await using link = await slowLink({ port: s3.port }, DELAY_MS);
  const setting = settingOf(link.port, { walDirectory: join(directory, "followed"), masterKey });
  const [{ lagsMs }] = await measure({ setting, order: { kind: "follow", segments: FOLLOWED, perSecond: 4 } });
  return {
    name: `frontier behind at 4 segments/s, p95; incompressible, ${DELAY_MS} ms`,
    value: quantile(lagsMs, 0.95) / 1_000,
    unit: "s",
    bound: 2,
  };
}

/** A long backlog of small, compressible segments: the pace and the memory of its course. */
async function backlog(directory: string, settingOf: SettingOf, s3: LocalS3) {
  const walDirectory = join(directory, "backlog");
  const { store, masterKey } = await fillTier1(walDirectory, BACKLOG, MIB, (name, bytes) =>
    walSegment(name, bytes, { fill: 7 }),
  );
  await store.close();
  await using link = await slowLink({ port: s3.port }, DELAY_MS);
  const setting = settingOf(link.port, { walDirectory, masterKey }, { segmentBytes: MIB });
  const [measured] = await measure({ setting, order: { kind: "drain", segments: BACKLOG } });
  const { course, seconds, peakBytes, idleBytes } = measured;
  const paces = course.map((point, i) => BACKLOG / 10 / (point.seconds - (course[i - 1]?.seconds ?? 0)));
  // The first tenth warms up.
  const [, ...steady] = paces;
  const memory = course.map(({ bytes }) => bytes);
  return [
    { name: `backlog of ${BACKLOG} segments of 1 MiB`, value: BACKLOG / seconds, unit: "segments/s" },
    { name: "its fastest tenth / its slowest", value: Math.max(...steady) / Math.min(...steady), unit: "x", bound: 2 },
    {
      name: "its memory at the end / at half of it",
      value: (memory.at(-1) ?? Number.NaN) / (memory[4] ?? Number.NaN),
      unit: "x",
      bound: 1.2,
    },
    { name: "its memory above idle", value: (peakBytes - idleBytes) / MIB, unit: "MiB", bound: 64 },
  ];
}

/** Bytes that the relay of a second, unchanged backup sends, against its logical size. */
async function relay(directory: string, s3: LocalS3): Promise<Figure[]> {
  await using link = await slowLink({ port: s3.port }, 0);
  await using tier1 = await startSnapshotServer(join(directory, "base1"));
  await using tier2 = await startSnapshotServer(join(directory, "base2"), {
    tier: "tier2",
    storage: {
      kind: "s3",
      bucket: s3.bucket,
      region: s3.region,
      endpoint: `http://127.0.0.1:${link.port}`,
      prefix: "relay/base",
      accessKeyId: s3.accessKeyId,
      secretAccessKey: s3.secretAccessKey,
    },
    certificates: tier1.certificates,
  });
  await using alpha = await tier1.open("alpha");
  const data = sampleTree(directory);
  for (let n = 0; n < 16; n++) writeFileSync(join(data, `base/1/${2_000 + n}`), randomBytes(8 * MIB));
  const sent: number[] = [];
  let logical = 0;
  for (const name of ["b1", "b2"]) {
    const stored = await storeSample(alpha, data, sampleMetadata(name));
    link.reset();
    logical = unwrap(await tier1.repository.copyBackupTo(tier2.repository, stored)).bytes;
    sent.push(link.sentBytes());
  }
  return [
    {
      name: "first relay of a backup, sent / logical size",
      value: ((sent[0] ?? Number.NaN) / logical) * 100,
      unit: "%",
    },
    { name: "second, unchanged one", value: ((sent[1] ?? Number.NaN) / logical) * 100, unit: "%", bound: 2 },
  ];
}
