// What telemetry costs when it is on and everything is exported (traces and metrics by OTLP to a collector in another process,
// the last flush included): CPU seconds per GiB of WAL from client to disk, on and off in turns in this process, and CPU time
// per transition of a statechart with spans, on and off in processes of their own, in turns: in one process V8 compiles for
// both kinds of statechart, which no server has.
import { execFile, spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { serveWal } from "../src/actors/grpc/serve-wal.actor.ts";
import { connectWal } from "../src/actors/grpc/wal-client.ts";
import { type Certificates, createCertificates } from "../src/demo/certificates.ts";
import { segmentAt } from "../src/domain/wal-segment.ts";
import { KlioError } from "../src/errors.ts";
import { tuneCollector } from "../src/roles/collector.ts";
import { noTelemetry, startTelemetry, type Telemetry } from "../src/telemetry/telemetry.ts";
import { testLog } from "../test/support/test-log.ts";
import { SYSTEM_ID } from "../test/support/wal-bytes.ts";
import { send } from "../test/support/wal-server.ts";
import { openStore } from "../test/support/wal-store.ts";
import type { Figure } from "./run.ts";
import { median, quantile, spread } from "./statistics.ts";
import type { Drive } from "./telemetry/transitions.ts";
import { cpuSeconds, segmentLikeWal } from "./workload.ts";

const ROUNDS = 16;
const SEGMENTS = 12;
/** Times that the segments are sent in a round, each to a store of its own: more than a GiB, so that the start and the end of telemetry count for little. */
const PASSES = 6;
const SEGMENT_BYTES = 16 << 20;
const BLOCK_BYTES = 1 << 20;
/** Of each page of 8 KiB: about as compressible as WAL. */
const RANDOM_BYTES = 2048;
/** Of processes that only drive transitions, one with telemetry and one without. */
const PAIRS = 7;

const segmentName = (n: number) => segmentAt(1, BigInt(n + 1) * BigInt(SEGMENT_BYTES), SEGMENT_BYTES);
/** CPU seconds of a pass: client, mutual TLS, checks, compression, encryption, fsync. */
async function shipWal(directory: string, certificates: Certificates, telemetry: Telemetry, segments: Buffer[]) {
  const { store, log } = await openStore(directory);
  const refuse = async () => {
    throw new KlioError("KLIO-TIER-MISSING", "not part of the bench");
  };
  const server = await serveWal({
    reader: store,
    store,
    tls: { ...certificates.server, clientCaCert: certificates.caCert },
    listenAddress: "127.0.0.1:0",
    telemetry,
    log,
    closeBackup: refuse,
    openRepository: refuse,
    maintainBackups: refuse,
  });
  const { cert, key } = certificates.client("main");
  const tls = { serverCertPath: certificates.caCert, clientCertPath: cert, clientKeyPath: key };
  const client = await connectWal({ address: server.address, tls, clusterName: "main", telemetry, log });
  const started = await client.requestWalStart({ systemId: SYSTEM_ID, currentWalName: segmentName(0) });
  if (started.kind !== "ok") throw new Error(started.reason);
  const since = process.cpuUsage();
  for (const [at, bytes] of segments.entries()) {
    const walName = segmentName(at);
    const end = await send(client, bytes, { walName, sendToTier2: false }, BLOCK_BYTES);
    if (end.kind !== "ok") throw new Error(`${walName}: ${JSON.stringify(end)}`);
  }
  const seconds = cpuSeconds(since);
  client.close();
  await server.close();
  await store.close();
  rmSync(directory, { recursive: true, force: true });
  return seconds;
}

/** Microseconds per transition in a process that has telemetry on or off; medians over what it drives. */
async function driveTransitions(which: "on" | "off", env: NodeJS.ProcessEnv): Promise<Drive> {
  const script = fileURLToPath(new URL("telemetry/transitions.ts", import.meta.url));
  const { stdout } = await promisify(execFile)(process.execPath, [script, which], { env: { ...process.env, ...env } });
  const drives: Drive[] = stdout
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line));
  return { step: median(drives.map(({ step }) => step)), exported: median(drives.map(({ exported }) => exported)) };
}

/** A collector in a process of its own. */
async function startCollector(certificates: Certificates) {
  const script = fileURLToPath(new URL("telemetry/collector.ts", import.meta.url));
  const { cert, key } = certificates.server;
  const child = spawn(process.execPath, [script, certificates.caCert, cert, key], {
    stdio: ["pipe", "pipe", "inherit"],
  });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const number = async () => Number((await lines.next()).value);
  return {
    port: await number(),
    async exports() {
      child.stdin.end();
      return number();
    },
  };
}

export async function benchTelemetry(): Promise<Figure[]> {
  tuneCollector(); // as server and sidecar do
  const directory = mkdtempSync(join(tmpdir(), "klio-bench-"));
  try {
    const certificates = await createCertificates(join(directory, "tls"), { clusters: ["main"] });
    const collector = await startCollector(certificates);
    const { cert, key } = certificates.client("main");
    const env = {
      OTEL_SERVICE_NAME: "bench",
      OTEL_EXPORTER_OTLP_ENDPOINT: `https://127.0.0.1:${collector.port}`,
      OTEL_EXPORTER_OTLP_CERTIFICATE: certificates.caCert,
      OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE: cert,
      OTEL_EXPORTER_OTLP_CLIENT_KEY: key,
    };
    const on = () => startTelemetry({ service: "klio-server", log: testLog(), env });
    const segments = Array.from({ length: SEGMENTS }, (_, n) =>
      segmentLikeWal(segmentName(n), SEGMENT_BYTES, RANDOM_BYTES),
    );
    const wal = { off: [] as number[], on: [] as number[] };
    // The first round warms up and is not counted; the order turns round each time.
    for (let round = 0; round <= ROUNDS; round++) {
      for (const which of round % 2 === 0 ? (["off", "on"] as const) : (["on", "off"] as const)) {
        const telemetry = which === "on" ? await on() : noTelemetry();
        let seconds = 0;
        for (let pass = 0; pass < PASSES; pass++)
          seconds += await shipWal(join(directory, `${which}-${round}-${pass}`), certificates, telemetry, segments);
        const since = process.cpuUsage();
        await telemetry.shutdown();
        seconds += cpuSeconds(since);
        if (round > 0) wal[which].push(seconds / ((PASSES * SEGMENTS * SEGMENT_BYTES) / 2 ** 30));
      }
    }
    const drives = { off: [] as Drive[], on: [] as Drive[] };
    for (let round = 0; round < PAIRS; round++)
      for (const which of round % 2 === 0 ? (["off", "on"] as const) : (["on", "off"] as const))
        drives[which].push(await driveTransitions(which, env));
    const ratios = wal.on.map((cost, n) => (cost / (wal.off[n] ?? Number.NaN) - 1) * 100);
    const extra = drives.on.map(({ step }, n) => step - (drives.off[n]?.step ?? Number.NaN));
    return [
      { name: "WAL, telemetry off", value: median(wal.off), unit: "CPU s/GiB" },
      { name: "WAL, telemetry on", value: median(wal.on), unit: "CPU s/GiB" },
      {
        name: "more for telemetry, median of pairs",
        value: median(ratios),
        unit: `% (quartiles ${quantile(ratios, 0.25).toFixed(1)} and ${quantile(ratios, 0.75).toFixed(1)})`,
        bound: 2,
      },
      { name: "a transition, telemetry off", value: median(drives.off.map(({ step }) => step)), unit: "us" },
      {
        name: "more for a transition, median of pairs",
        value: median(extra),
        unit: `us ${spread(extra)}`,
        bound: 10,
      },
      {
        name: "export of its spans afterwards, connection included",
        value: median(drives.on.map(({ exported }) => exported)),
        unit: "us per transition",
      },
      { name: "exports that the collector got", value: await collector.exports(), unit: "requests" },
    ];
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}
