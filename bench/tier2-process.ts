// The measured side of `bench tier2`: one process with the way to tier 2 of a server and nothing else, told by its parent
// what to do. Its CPU time and memory are its own; nats-server is a child of it.
import { randomBytes } from "node:crypto";
import { mkdirSync } from "node:fs";
import { openObjectStore } from "../src/actors/s3/object-store.ts";
import type { S3Settings } from "../src/actors/s3/s3-client.ts";
import { createTier2Key } from "../src/actors/s3/tier2-key.ts";
import { openTier2WalReader } from "../src/actors/s3/tier2-wal-reader.ts";
import { WalStore } from "../src/actors/spool/wal-store.ts";
import { findTool } from "../src/config/tools.ts";
import type { QueueLimits } from "../src/domain/task-scheduling.ts";
import { segmentAt } from "../src/domain/wal-segment.ts";
import { tuneCollector } from "../src/roles/collector.ts";
import { startOffload } from "../src/roles/offload.ts";
import type { Tier2Parts } from "../src/roles/offload-parts.ts";
import { createLog } from "../src/telemetry/log.ts";
import { noTelemetry } from "../src/telemetry/telemetry.ts";
import { masterKeyOf } from "../src/wire/wal-file-header.ts";
import { eventually } from "../test/support/eventually.ts";
import { ListedRepository } from "../test/support/offload-bench.ts";
import { walSegment } from "../test/support/wal-bytes.ts";
import { cpuSeconds } from "./workload.ts";

export type Setting = {
  walDirectory: string;
  queueDirectory: string;
  /** Hex. */
  masterKey: string;
  s3: S3Settings;
  prefix: string;
  segmentBytes: number;
  limits: Partial<QueueLimits>;
};
export type Order =
  /** Relays everything that is stored, from the moment at which tier 2 opens. */
  | { kind: "drain"; segments: number }
  /** Stores `segments` at this rate and looks how long each one takes to be part of the frontier. */
  | { kind: "follow"; segments: number; perSecond: number };
export type Measured = {
  seconds: number;
  cpuSeconds: number;
  idleBytes: number;
  peakBytes: number;
  /** Milliseconds, one per segment (`follow`). */
  lagsMs: number[];
  /** Seconds and RSS at each tenth of the segments (`drain`). */
  course: { seconds: number; bytes: number }[];
};

const CLUSTER = "main";
/** Lines that are kept would count as memory. */
const quiet = createLog({ level: "error", destination: process.stderr, pretty: false });
const nameOf = (n: number, segmentBytes: number) => segmentAt(1, BigInt(n) * BigInt(segmentBytes), segmentBytes);

async function run(setting: Setting, order: Order): Promise<Measured> {
  const { walDirectory, queueDirectory, s3, prefix, segmentBytes, limits } = setting;
  const log = quiet;
  const store = await WalStore.open({
    directory: walDirectory,
    masterKey: masterKeyOf(Buffer.from(setting.masterKey, "hex")),
    log,
    report: () => undefined,
  });
  const objects = openObjectStore(s3);
  const masterKey = await createTier2Key({ objects, prefix, passPhrase: "of the bench" });
  const reader = openTier2WalReader({ objects, prefix, masterKey });
  const parts: Tier2Parts = { objects, reader, masterKey, repository: new ListedRepository("tier2") };
  const opening = Promise.withResolvers<Tier2Parts>();
  mkdirSync(queueDirectory, { recursive: true });
  const role = await startOffload({
    store,
    walDirectory,
    repository: new ListedRepository("tier1"),
    tier2: { prefix, whenOpen: opening.promise },
    queue: { kind: "embedded", executable: findTool("nats-server", process.env), directory: queueDirectory },
    telemetry: noTelemetry(),
    log,
    signal: new AbortController().signal,
    limits,
  });
  const has = (n: number) => role.frontier(CLUSTER).at >= nameOf(n, segmentBytes);
  const tell = (n: number) => role.onStored({ cluster: CLUSTER, name: nameOf(n, segmentBytes), sendToTier2: true });
  const pending = async () => (await role.admin.pending()).wal;
  const slow = { timeoutMs: 3_600_000 };

  if (order.kind === "drain") {
    for (let n = 1; n <= order.segments; n++) tell(n);
    await eventually(async () => (await pending()) === order.segments, slow);
  } else {
    opening.resolve(parts);
    await eventually(() => role.admin.reconcile(), slow);
  }
  globalThis.gc?.();
  const idleBytes = process.memoryUsage.rss();
  let peakBytes = idleBytes;
  const course: Measured["course"] = [];
  const since = process.cpuUsage();
  const began = performance.now();
  const seconds = () => (performance.now() - began) / 1_000;
  const sampler = setInterval(() => {
    peakBytes = Math.max(peakBytes, process.memoryUsage.rss());
    const tenth = Math.ceil((order.segments * (course.length + 1)) / 10);
    if (has(tenth)) course.push({ seconds: seconds(), bytes: process.memoryUsage.rss() });
  }, 50);
  const lagsMs: number[] = [];
  if (order.kind === "drain") {
    opening.resolve(parts);
    await eventually(() => has(order.segments), slow);
    await eventually(async () => (await pending()) === 0, slow);
  } else {
    const storedAt = new Map<number, number>();
    let reached = 0;
    const watch = setInterval(() => {
      for (; storedAt.has(reached + 1) && has(reached + 1); reached++)
        lagsMs.push(performance.now() - (storedAt.get(reached + 1) ?? 0));
    }, 5);
    const due = Date.now();
    for (let n = 1; n <= order.segments; n++) {
      await eventually(() => Date.now() >= due + ((n - 1) * 1_000) / order.perSecond, slow);
      const name = nameOf(n, segmentBytes);
      await storeSegment(store, name, walSegment(name, segmentBytes));
      storedAt.set(n, performance.now());
      tell(n);
    }
    await eventually(() => reached === order.segments, slow);
    clearInterval(watch);
  }
  clearInterval(sampler);
  const measured = { seconds: seconds(), cpuSeconds: cpuSeconds(since), idleBytes, peakBytes, lagsMs, course };
  await role.stop();
  await store.close();
  objects.close();
  return measured;
}

/** Writes one complete segment in bulk, as a busy sidecar sends it. */
export async function storeSegment(store: WalStore, name: string, raw: Buffer): Promise<void> {
  const writer = await store.openWriter({
    cluster: CLUSTER,
    name,
    segmentBytes: raw.length,
    fromOffset: 0,
    allowForeign: true,
  });
  for (let at = 0; at < raw.length; at += BLOCK_BYTES) writer.append(raw.subarray(at, at + BLOCK_BYTES), at);
  await writer.durable();
  await writer.complete();
  await writer.close();
}

const BLOCK_BYTES = 256 << 10;

/** Fills tier 1 with `count` segments; returns the key that opens them, in hex. */
export async function fillTier1(
  directory: string,
  count: number,
  segmentBytes: number,
  make: (name: string, segmentBytes: number) => Buffer = walSegment,
) {
  const key = randomBytes(32);
  const store = await WalStore.open({
    directory,
    masterKey: masterKeyOf(key),
    log: quiet,
    report: () => undefined,
  });
  for (let n = 1; n <= count; n++) {
    const name = nameOf(n, segmentBytes);
    await storeSegment(store, name, make(name, segmentBytes));
  }
  return {
    store,
    masterKey: key.toString("hex"),
    names: Array.from({ length: count }, (_, i) => nameOf(i + 1, segmentBytes)),
  };
}

if (import.meta.main) {
  tuneCollector(); // as the server does
  process.on("message", ({ setting, order }: { setting: Setting; order: Order }) => {
    run(setting, order).then(
      (measured) => process.send?.({ measured }),
      (error: unknown) => process.send?.({ error: String((error as Error).stack) }),
    );
  });
}
