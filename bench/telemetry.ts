// What telemetry costs when it is on and everything is exported (traces and metrics by OTLP to a collector in another process,
// the last flush included): CPU seconds per GiB of WAL from client to disk, and time per transition of a statechart with
// spans. On and off take turns inside one run.
import { spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { createActor, fromCallback } from "xstate";
import { serveWal } from "../src/actors/grpc/serve-wal.actor.ts";
import { connectWal } from "../src/actors/grpc/wal-client.ts";
import { type Certificates, createCertificates } from "../src/demo/certificates.ts";
import { segmentAt } from "../src/domain/wal-segment.ts";
import { KlioError } from "../src/errors.ts";
import { type ShipmentEvent, type ShipmentInput, segmentShipment } from "../src/machines/segment-shipment.machine.ts";
import { tuneCollector } from "../src/roles/collector.ts";
import { noTelemetry, startTelemetry, type Telemetry } from "../src/telemetry/telemetry.ts";
import { testLog } from "../test/support/test-log.ts";
import { SYSTEM_ID } from "../test/support/wal-bytes.ts";
import { send } from "../test/support/wal-server.ts";
import { openStore } from "../test/support/wal-store.ts";
import type { Figure } from "./run.ts";
import { median, quantile } from "./statistics.ts";
import { cpuSeconds, segmentLikeWal } from "./workload.ts";

const ROUNDS = 10;
const SEGMENTS = 12;
/** Times that the segments are sent in a round, each to a store of its own: more than a GiB, so that the start and the end of telemetry count for little. */
const PASSES = 6;
const SEGMENT_BYTES = 16 << 20;
const BLOCK_BYTES = 1 << 20;
/** Of each page of 8 KiB: about as compressible as WAL. */
const RANDOM_BYTES = 2048;
/** As many spans at most as wait for the next export. */
const SHIPMENTS = 2_000;
const DRIVES = 30;
/** Drives before the compiler is done with the code; not counted. */
const WARM_UP = 5;
/** Transitions of one shipment: its start, which enters the first states and opens the span, begun, finished, shipped. */
const STEPS = 4;

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

/** Microseconds per transition of segmentShipment, driven as fast as it goes. */
function drive(start: (machine: typeof segmentShipment, input: ShipmentInput) => { stop(): unknown }): number {
  let tell: (event: ShipmentEvent) => void = () => undefined;
  const shipSegment = fromCallback<{ type: "shutdown.requested" }, ShipmentInput>(({ sendBack }) => {
    tell = sendBack;
  });
  const machine = segmentShipment.provide({ actors: { shipSegment } });
  const input = {
    cluster: "main",
    segmentBytes: SEGMENT_BYTES,
    fromOffset: 0,
    method: "stream",
    sendToTier2: false,
  } as const;
  const since = process.cpuUsage();
  for (let n = 0; n < SHIPMENTS; n++) {
    const name = segmentAt(1, BigInt(n) * BigInt(SEGMENT_BYTES), SEGMENT_BYTES);
    start(machine, { ...input, name, confirmLimitMs: 60_000 });
    tell({ type: "shipment.begun" });
    tell({ type: "shipment.finished" });
    tell({ type: "shipment.ended", end: { kind: "shipped" } });
  }
  return (cpuSeconds(since) * 1e6) / (SHIPMENTS * STEPS);
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
    const on = () =>
      startTelemetry({
        service: "klio-server",
        log: testLog(),
        env: {
          OTEL_SERVICE_NAME: "bench",
          OTEL_EXPORTER_OTLP_ENDPOINT: `https://127.0.0.1:${collector.port}`,
          OTEL_EXPORTER_OTLP_CERTIFICATE: certificates.caCert,
          OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE: cert,
          OTEL_EXPORTER_OTLP_CLIENT_KEY: key,
        },
      });
    const segments = Array.from({ length: SEGMENTS }, (_, n) =>
      segmentLikeWal(segmentName(n), SEGMENT_BYTES, RANDOM_BYTES),
    );
    const wal = { off: [] as number[], on: [] as number[] };
    const transitions = { off: [] as number[], on: [] as number[], exported: [] as number[] };
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
    for (let round = 0; round < WARM_UP + DRIVES; round++) {
      for (const which of round % 2 === 0 ? (["off", "on"] as const) : (["on", "off"] as const)) {
        const telemetry = which === "on" ? await on() : noTelemetry();
        const step = drive((machine, input) =>
          which === "on"
            ? telemetry.start(machine, { id: `segmentShipment/${input.name}`, input })
            : createActor(machine, { id: `segmentShipment/${input.name}`, input }).start(),
        );
        const since = process.cpuUsage();
        await telemetry.shutdown();
        if (round < WARM_UP) continue;
        transitions[which].push(step);
        if (which === "on") transitions.exported.push((cpuSeconds(since) * 1e6) / (SHIPMENTS * STEPS));
      }
    }
    const ratios = wal.on.map((cost, n) => (cost / (wal.off[n] ?? Number.NaN) - 1) * 100);
    const extra = transitions.on.map((step, n) => step - (transitions.off[n] ?? Number.NaN));
    return [
      { name: "WAL, telemetry off", value: median(wal.off), unit: "CPU s/GiB" },
      { name: "WAL, telemetry on", value: median(wal.on), unit: "CPU s/GiB" },
      {
        name: "more for telemetry, median of pairs",
        value: median(ratios),
        unit: `% (quartiles ${quantile(ratios, 0.25).toFixed(1)} and ${quantile(ratios, 0.75).toFixed(1)})`,
        bound: 2,
      },
      { name: "a transition, telemetry off", value: median(transitions.off), unit: "us" },
      {
        name: "more for a transition, median of pairs",
        value: median(extra),
        unit: "us",
        bound: 10,
      },
      {
        name: "export of its spans afterwards, connection included",
        value: median(transitions.exported),
        unit: "us per transition",
      },
      { name: "exports that the collector got", value: await collector.exports(), unit: "requests" },
    ];
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}
