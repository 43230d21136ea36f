// The variables of the published ConfigMaps, against a collector on a true socket that demands a client certificate.
import { performance } from "node:perf_hooks";
import { describe, expect, test } from "vitest";
import { setup } from "xstate";
import { createCertificates } from "../../../src/demo/certificates.ts";
import type { StateMeta } from "../../../src/telemetry/state-telemetry.ts";
import { SHUTDOWN_LIMIT_MS, startTelemetry, type Telemetry } from "../../../src/telemetry/telemetry.ts";
import { eventually } from "../../support/eventually.ts";
import { sentSpans } from "../../support/otlp-decode.ts";
import { type OtlpReceiver, otlpOverGrpc, otlpOverHttp } from "../../support/otlp-receiver.ts";
import { temporaryDirectory } from "../../support/temporary-directory.ts";
import { testLog } from "../../support/test-log.ts";

const upload = setup({
  types: { events: {} as { type: "done" }, meta: {} as StateMeta },
}).createMachine({
  id: "upload",
  initial: "running",
  meta: { telemetry: { span: "tier2_upload", tracer: "klio.consumer" } },
  states: { running: { on: { done: "stored" } }, stored: { type: "final" } },
});

function work(telemetry: Telemetry): void {
  const actor = telemetry.start(upload, { id: "upload/1", input: undefined });
  actor.send({ type: "done" });
  telemetry.record({ type: "wal.durable", cluster: "main", bytes: 42 });
}

type Scene = AsyncDisposable & { receiver: OtlpReceiver; client: Record<string, string>; ca: string };

async function scene(protocol: "grpc" | "http/protobuf"): Promise<Scene> {
  const directory = await temporaryDirectory();
  const certificates = await createCertificates(directory.path, { clusters: ["main"] });
  const receiver = await (protocol === "grpc" ? otlpOverGrpc(certificates) : otlpOverHttp(certificates));
  const { cert, key } = certificates.client("main");
  return {
    receiver,
    ca: certificates.caCert,
    client: {
      OTEL_SERVICE_NAME: "klio-server",
      OTEL_RESOURCE_DETECTORS: "telemetry.sdk,host,os.type,process.executable.name",
      OTEL_TRACES_EXPORTER: "otlp",
      OTEL_METRICS_EXPORTER: "otlp",
      OTEL_EXPORTER_OTLP_PROTOCOL: protocol,
      OTEL_EXPORTER_OTLP_ENDPOINT: `https://localhost:${receiver.port}`,
      OTEL_EXPORTER_OTLP_COMPRESSION: "gzip",
      OTEL_EXPORTER_OTLP_TIMEOUT: "10000",
      OTEL_EXPORTER_OTLP_INSECURE: "false",
      OTEL_EXPORTER_OTLP_HEADERS: "x-tenant=blue%20team",
      OTEL_EXPORTER_OTLP_CERTIFICATE: certificates.caCert,
      OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE: cert,
      OTEL_EXPORTER_OTLP_CLIENT_KEY: key,
      OTEL_METRIC_EXPORT_INTERVAL: "60000",
      OTEL_BSP_SCHEDULE_DELAY: "10",
      POD_NAME: "pod-0",
    },
    async [Symbol.asyncDispose]() {
      await receiver[Symbol.asyncDispose]();
      await directory[Symbol.asyncDispose]();
    },
  };
}

const holds = (receiver: OtlpReceiver, path: RegExp, text: string) =>
  receiver.requests.find((request) => path.test(request.path) && request.body.includes(text));

describe.each(["grpc", "http/protobuf"] as const)("over %s", (protocol) => {
  test("spans and metrics arrive, packed, with client certificate, headers and resource", async () => {
    await using place = await scene(protocol);
    const { receiver, client } = place;
    const log = testLog();
    const telemetry = await startTelemetry({ service: "klio-server", env: client, log });
    work(telemetry);
    await eventually(() => holds(receiver, /trace/i, "tier2_upload"), { what: "the span" });
    await telemetry.shutdown();
    const spans = holds(receiver, /trace/i, "tier2_upload");
    const metrics = holds(receiver, /metrics/i, "klio.wal.written_size");
    for (const request of [spans, metrics]) {
      expect(request).toMatchObject({ peer: "klio@main", isPacked: true });
      expect(request?.headers["x-tenant"]).toBe("blue team");
      for (const text of ["klio-server", "k8s.pod.name", "pod-0", "host.name", "os.type"])
        expect(request?.body.includes(text), text).toBe(true);
    }
    if (protocol === "http/protobuf") expect([spans?.path, metrics?.path]).toEqual(["/v1/traces", "/v1/metrics"]);
    expect(log.lines).toEqual([]);
  });

  test("a collector that is unavailable for a while gets the spans once it is back", async () => {
    await using place = await scene(protocol);
    const { receiver, client } = place;
    const telemetry = await startTelemetry({ service: "klio-server", env: client, log: testLog() });
    receiver.behave("unavailable");
    work(telemetry);
    await eventually(() => receiver.requests.length > 0, { what: "the refused export" });
    receiver.behave("accept");
    const before = receiver.requests.length;
    await eventually(() => receiver.requests.slice(before).some(({ body }) => body.includes("tier2_upload")), {
      what: "the repeated export",
    });
    await telemetry.shutdown();
  });

  test("a collector that takes and never answers holds the end up for a bounded time, with one line", async () => {
    await using place = await scene(protocol);
    const { receiver, client } = place;
    const log = testLog();
    const env = { ...client, OTEL_EXPORTER_OTLP_TIMEOUT: "60000" };
    const telemetry = await startTelemetry({ service: "klio-server", env, log });
    receiver.behave("hang");
    work(telemetry);
    await eventually(() => receiver.requests.length > 0, { what: "the export" });
    const startedMs = performance.now();
    await telemetry.shutdown();
    expect(performance.now() - startedMs).toBeLessThan(SHUTDOWN_LIMIT_MS + 1_000);
    expect(log.events().filter((event) => event === "telemetry.failed")).toHaveLength(1);
  });

  test("behind a collector that never answers a bounded number of spans waits, the rest is dropped and told", async () => {
    await using place = await scene(protocol);
    const { receiver, client } = place;
    const log = testLog();
    const bounds = { OTEL_BSP_MAX_QUEUE_SIZE: "64", OTEL_BSP_MAX_EXPORT_BATCH_SIZE: "16" };
    const env = { ...client, ...bounds, OTEL_METRICS_EXPORTER: "none", OTEL_EXPORTER_OTLP_TIMEOUT: "60000" };
    const telemetry = await startTelemetry({ service: "klio-server", env, log });
    receiver.behave("hang");
    for (let i = 0; i < 16; i++) work(telemetry);
    await eventually(() => receiver.requests.length > 0, { what: "the export" });
    for (let i = 0; i < 1_000; i++) work(telemetry);
    receiver.behave("accept");
    await telemetry.shutdown();
    const spans = sentSpans(receiver).flatMap(({ entries }) => entries);
    expect(spans).toHaveLength(16 + 64);
    // Told once more room is there; here, by the end that one export was still waited for.
    expect(log.events().filter((event) => event === "telemetry.failed")).toHaveLength(1);
  });

  test("garbage for an answer disturbs nothing", async () => {
    await using place = await scene(protocol);
    const { receiver, client } = place;
    const telemetry = await startTelemetry({ service: "klio-server", env: client, log: testLog() });
    receiver.behave("garbage");
    work(telemetry);
    await eventually(() => receiver.requests.length > 0, { what: "the export" });
    work(telemetry);
    await telemetry.shutdown();
  });

  test("a certificate authority that did not sign the collector's certificate: no export, one line, work goes on", async () => {
    await using place = await scene(protocol);
    await using elsewhere = await temporaryDirectory();
    const other = await createCertificates(elsewhere.path, { clusters: ["main"] });
    const log = testLog();
    const env = { ...place.client, OTEL_EXPORTER_OTLP_CERTIFICATE: other.caCert, OTEL_EXPORTER_OTLP_TIMEOUT: "500" };
    const telemetry = await startTelemetry({ service: "klio-server", env, log });
    for (let i = 0; i < 20; i++) work(telemetry);
    await telemetry.shutdown();
    expect(place.receiver.requests).toEqual([]);
    expect(log.events().filter((event) => event === "telemetry.failed").length).toBeLessThanOrEqual(2);
    expect(log.events()).toContain("telemetry.failed");
  });
});

test("PEM files that are no certificates end the start with KLIO-CONFIG", async () => {
  await using place = await scene("grpc");
  const { OTEL_EXPORTER_OTLP_CLIENT_KEY: key = "" } = place.client;
  const env = { ...place.client, OTEL_EXPORTER_OTLP_CERTIFICATE: key };
  await expect(startTelemetry({ service: "klio-server", env, log: testLog() })).rejects.toMatchObject({
    code: "KLIO-CONFIG",
    message: expect.stringContaining("OTEL_EXPORTER_OTLP_CERTIFICATE"),
  });
});
