// `klio wal-player`: WAL made for tests, and WAL of a directory sent to a server, with figures of how fast it took it.
import { connectWal } from "../actors/grpc/wal-client.ts";
import { type Fill, generateWal } from "../actors/wal-player/generate-wal.ts";
import { Pace, playFile } from "../actors/wal-player/play-file.ts";
import { type PlayDirectory, type PlayFile, readPlayDirectory } from "../actors/wal-player/wal-directory.ts";
import type { ClientConfig } from "../config/config.ts";
import { quantile } from "../domain/quantile.ts";
import { pageMagic } from "../domain/wal-page.ts";
import { isSegmentSize, parseWalName } from "../domain/wal-segment.ts";
import { KlioError } from "../errors.ts";
import { noTelemetry } from "../telemetry/telemetry.ts";
import { commandLog } from "./command-log.ts";
import { createProgress } from "./progress-line.ts";

type Surroundings = {
  stderr: NodeJS.WritableStream & { isTTY?: boolean };
  logLevel: string;
  signal: AbortSignal;
};

export type GenerateRequest = {
  directory: string;
  first: string;
  count: number;
  segmentBytes: number;
  fill: Fill;
  systemId: string;
  version: keyof typeof pageMagic;
};
export type GenerateReport = {
  directory: string;
  files: number;
  bytes: number;
  first: string;
  last: string;
  system_id: string;
};

/** Rejects as `generateWal` does, and with KLIO-USAGE for a first name or a size that is none. */
export async function generateDirectory(
  request: GenerateRequest,
  { stderr, signal }: Surroundings,
): Promise<GenerateReport> {
  const { directory, first, segmentBytes, count, systemId } = request;
  if (parseWalName(first)?.kind !== "segment")
    throw new KlioError("KLIO-USAGE", `not the name of a WAL segment: ${JSON.stringify(first)}`, {
      hint: "write 24 hexadecimal digits, as 000000010000000000000001",
    });
  if (!isSegmentSize(segmentBytes))
    throw new KlioError("KLIO-USAGE", `not a size of a WAL segment: ${segmentBytes} bytes`, {
      hint: "choose a power of two from 1 to 1024 MiB",
    });
  const progress = createProgress(stderr);
  let files = 0;
  const names = await generateWal({
    ...request,
    magic: pageMagic[request.version],
    signal,
    onFile() {
      files += 1;
      progress.show({ phase: "generating", bytes: files * segmentBytes, totalBytes: count * segmentBytes });
    },
  }).finally(() => progress.end());
  return {
    directory,
    files: names.length,
    bytes: names.length * segmentBytes,
    first: names[0] ?? "",
    last: names.at(-1) ?? "",
    system_id: systemId,
  };
}

export type PlayRequest = {
  config: ClientConfig;
  directory: string;
  method: "put" | "stream";
  blockBytes: number;
  /** Files at a time. */
  concurrency: number;
  /** How often the directory is sent. */
  repeat: number;
  /** Of all streams together; absent: as fast as the server takes it. */
  bytesPerSecond?: number;
  sendToTier2: boolean;
};

/** `latency_ms`: of each file, from its first byte to the server's answer. */
export type PlayReport = {
  files: number;
  bytes: number;
  seconds: number;
  mb_per_second: number;
  latency_ms: { p50: number; p90: number; p95: number; p99: number; max: number };
  method: "put" | "stream";
  block_size: number;
  concurrency: number;
  repeat: number;
  skipped: PlayDirectory["skipped"];
};

/** Sends the directory. Rejects with what the first file failed with; files that were under way are given up then. */
export async function playDirectory(request: PlayRequest, surroundings: Surroundings): Promise<PlayReport> {
  const { config, concurrency, repeat, method, blockBytes } = request;
  const log = commandLog(surroundings.stderr, surroundings.logLevel);
  if (config.wal?.address === undefined) throw new KlioError("KLIO-CONFIG", "client.wal.address is missing");
  const { files, skipped } = await readPlayDirectory(request.directory);
  for (const { name, reason } of skipped) log.warn("wal.play.skipped", `${name} is not sent: it ${reason}`);
  const { address } = config.wal;
  const telemetry = noTelemetry();
  const client = await connectWal({ address, tls: config.wal, clusterName: config.clusterName, telemetry, log });
  const progress = createProgress(surroundings.stderr);
  const giveUp = new AbortController();
  const signal = AbortSignal.any([surroundings.signal, giveUp.signal]);
  const pace = new Pace(request.bytesPerSecond ?? Number.POSITIVE_INFINITY);
  const totalBytes = repeat * files.reduce((sum, { bytes }) => sum + bytes, 0);
  const latencies: number[] = [];
  let bytes = 0;
  const onSent = (sent: number) => {
    bytes += sent;
    progress.show({ phase: "playing", bytes, totalBytes });
  };
  const started = performance.now();
  try {
    const play = async (file: PlayFile) => {
      latencies.push(await playFile({ ...request, client, file, pace, signal, onSent }));
    };
    // A file is never sent twice at a time: the rounds follow each other.
    for (let round = 0; round < repeat; round++) await inParallel(files, concurrency, play, giveUp);
  } finally {
    progress.end();
    client.close();
  }
  const seconds = (performance.now() - started) / 1000;
  const sorted = latencies.toSorted((a, b) => a - b);
  const at = (share: number) => rounded(quantile(sorted, share) ?? 0);
  return {
    files: latencies.length,
    bytes,
    seconds: rounded(seconds),
    mb_per_second: rounded(bytes / 1e6 / seconds),
    latency_ms: { p50: at(0.5), p90: at(0.9), p95: at(0.95), p99: at(0.99), max: at(1) },
    method,
    block_size: blockBytes,
    concurrency,
    repeat,
    skipped,
  };
}

const rounded = (value: number) => Math.round(value * 1000) / 1000;

/** Works on the items in their order, `width` at a time. The first failure stops all, and is what it rejects with. */
async function inParallel<T>(
  items: readonly T[],
  width: number,
  work: (item: T) => Promise<void>,
  giveUp: AbortController,
): Promise<void> {
  const waiting = [...items];
  let first: { error: unknown } | undefined;
  const worker = async () => {
    for (let item = waiting.shift(); item !== undefined; item = waiting.shift())
      try {
        await work(item);
      } catch (error) {
        first ??= { error };
        waiting.length = 0;
        giveUp.abort();
      }
  };
  await Promise.all(Array.from({ length: Math.min(width, items.length) }, worker));
  if (first !== undefined) throw first.error;
}
