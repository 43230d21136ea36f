import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import type { KlioError } from "../../../src/errors.ts";
import { isGateOpen, readTelemetryConfig } from "../../../src/telemetry/telemetry-config.ts";
import { temporaryDirectory } from "../../support/temporary-directory.ts";

type Env = Record<string, string>;
const none: Env = { OTEL_TRACES_EXPORTER: "none", OTEL_METRICS_EXPORTER: "none" };

function faultOf(env: Env): KlioError {
  try {
    readTelemetryConfig(env);
  } catch (error) {
    return error as KlioError;
  }
  throw new Error(`accepted: ${JSON.stringify(env)}`);
}

test("any non-empty OTEL_ variable opens the gate", () => {
  expect(isGateOpen({})).toBe(false);
  expect(isGateOpen({ OTEL_SERVICE_NAME: "", HOTEL_X: "1", POD_NAME: "p" })).toBe(false);
  expect(isGateOpen({ OTEL_SERVICE_NAME: "x" })).toBe(true);
  expect(isGateOpen({ OTEL_RESOURCE_ATTRIBUTES: "a=b", OTEL_SDK_DISABLED: "TRUE" })).toBe(false);
});

test("defaults: both signals over http/protobuf to the local collector", () => {
  const config = readTelemetryConfig({ OTEL_SERVICE_NAME: "x" });
  expect(config.traces).toMatchObject({ kind: "otlp", target: { protocol: "http/protobuf", timeoutMs: 10_000 } });
  expect(config.traces).toMatchObject({ target: { url: "http://localhost:4318/v1/traces", compression: "none" } });
  expect(config.metrics).toMatchObject({
    target: { url: "http://localhost:4318/v1/metrics" },
    temporality: "cumulative",
  });
  expect(config).toMatchObject({ metricIntervalMs: 60_000, metricTimeoutMs: 30_000, rpcNames: "new" });
  expect(config.sampler).toEqual({ name: "parentbased_always_on", ratio: 1 });
});

test("endpoints: a general one gets the signal's path, the signal's own is taken as it is; gRPC takes host and port", () => {
  const cases: [Env, { url: string; isSecure: boolean }][] = [
    [{ OTEL_EXPORTER_OTLP_ENDPOINT: "https://c:4318/base/" }, { url: "https://c:4318/base/v1/traces", isSecure: true }],
    [
      { OTEL_EXPORTER_OTLP_ENDPOINT: "http://c", OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: "http://d:1/x" },
      { url: "http://d:1/x", isSecure: false },
    ],
    [{ OTEL_EXPORTER_OTLP_PROTOCOL: "grpc" }, { url: "localhost:4317", isSecure: false }],
    [
      { OTEL_EXPORTER_OTLP_PROTOCOL: "grpc", OTEL_EXPORTER_OTLP_ENDPOINT: "https://c:4317" },
      { url: "c:4317", isSecure: true },
    ],
    [
      { OTEL_EXPORTER_OTLP_PROTOCOL: "grpc", OTEL_EXPORTER_OTLP_ENDPOINT: "c:4317" },
      { url: "c:4317", isSecure: true },
    ],
    [
      {
        OTEL_EXPORTER_OTLP_PROTOCOL: "grpc",
        OTEL_EXPORTER_OTLP_ENDPOINT: "c:4317",
        OTEL_EXPORTER_OTLP_TRACES_INSECURE: "true",
      },
      { url: "c:4317", isSecure: false },
    ],
    [
      {
        OTEL_EXPORTER_OTLP_PROTOCOL: "grpc",
        OTEL_EXPORTER_OTLP_ENDPOINT: "https://c:4317",
        OTEL_EXPORTER_OTLP_INSECURE: "true",
      },
      { url: "c:4317", isSecure: false },
    ],
    [
      { OTEL_EXPORTER_OTLP_PROTOCOL: "grpc", OTEL_EXPORTER_OTLP_ENDPOINT: "http://[::1]" },
      { url: "[::1]:80", isSecure: false },
    ],
  ];
  for (const [env, target] of cases)
    expect(readTelemetryConfig({ ...env, OTEL_METRICS_EXPORTER: "none" }).traces, JSON.stringify(env)).toMatchObject({
      target,
    });
});

test("headers: decoded, the signal's own beside the general ones; spaces around values do not matter", () => {
  const config = readTelemetryConfig({
    ...none,
    OTEL_TRACES_EXPORTER: " otlp ",
    OTEL_EXPORTER_OTLP_PROTOCOL: " grpc ",
    OTEL_EXPORTER_OTLP_HEADERS: "Authorization=Bearer%20abc, x=1",
    OTEL_EXPORTER_OTLP_TRACES_HEADERS: "x=2",
    OTEL_EXPORTER_OTLP_COMPRESSION: "gzip",
    OTEL_EXPORTER_OTLP_TIMEOUT: "60000",
  });
  expect(config.traces).toMatchObject({
    target: {
      headers: { authorization: "Bearer abc", x: "2" },
      compression: "gzip",
      timeoutMs: 60_000,
      protocol: "grpc",
    },
  });
});

test("P11: every fault names variable, value and what is accepted (KLIO-CONFIG)", async () => {
  await using directory = await temporaryDirectory();
  const notPem = join(directory.path, "ca.crt");
  writeFileSync(notPem, "hello");
  const traces = { OTEL_METRICS_EXPORTER: "none" };
  const cases: [Env, string][] = [
    [{ ...none, OTEL_TRACES_EXPORTER: "zipkin" }, 'OTEL_TRACES_EXPORTER="zipkin": accepted are otlp, console, none'],
    [
      { ...none, OTEL_TRACES_EXPORTER: "prometheus" },
      'OTEL_TRACES_EXPORTER="prometheus": accepted are otlp, console, none',
    ],
    [
      { ...none, OTEL_METRICS_EXPORTER: "otlp,prometheus" },
      'OTEL_METRICS_EXPORTER="otlp,prometheus": one value is accepted, of otlp, prometheus, console, none',
    ],
    [{ ...none, OTEL_METRICS_EXPORTER: "OTLP" }, 'OTEL_METRICS_EXPORTER="OTLP": accepted are'],
    [
      { ...traces, OTEL_EXPORTER_OTLP_TRACES_PROTOCOL: "http/json" },
      'OTEL_EXPORTER_OTLP_TRACES_PROTOCOL="http/json": accepted are http/protobuf, grpc',
    ],
    [
      { ...traces, OTEL_EXPORTER_OTLP_ENDPOINT: "collector:4318" },
      'OTEL_EXPORTER_OTLP_ENDPOINT="collector:4318": an http',
    ],
    [
      { ...traces, OTEL_EXPORTER_OTLP_PROTOCOL: "grpc", OTEL_EXPORTER_OTLP_ENDPOINT: "ftp://c" },
      'OTEL_EXPORTER_OTLP_ENDPOINT="ftp://c": http://host:port',
    ],
    [
      { ...traces, OTEL_EXPORTER_OTLP_COMPRESSION: "zstd" },
      'OTEL_EXPORTER_OTLP_COMPRESSION="zstd": accepted are gzip, none',
    ],
    [
      { ...traces, OTEL_EXPORTER_OTLP_TRACES_TIMEOUT: "10s" },
      'OTEL_EXPORTER_OTLP_TRACES_TIMEOUT="10s": a whole number from 1 to 2147483647 is accepted',
    ],
    [{ ...traces, OTEL_EXPORTER_OTLP_INSECURE: "yes" }, 'OTEL_EXPORTER_OTLP_INSECURE="yes": accepted are true, false'],
    [
      { ...traces, OTEL_EXPORTER_OTLP_CERTIFICATE: "/nowhere/ca.crt" },
      'OTEL_EXPORTER_OTLP_CERTIFICATE="/nowhere/ca.crt": a readable PEM file is accepted (ENOENT',
    ],
    [{ ...traces, OTEL_EXPORTER_OTLP_CERTIFICATE: notPem }, `a readable PEM file is accepted (not a PEM file)`],
    [{ ...none, OTEL_METRIC_EXPORT_INTERVAL: "0" }, 'OTEL_METRIC_EXPORT_INTERVAL="0": a whole number from 1'],
    [
      { ...none, OTEL_METRICS_EXPORTER: "prometheus", OTEL_EXPORTER_PROMETHEUS_PORT: "99999" },
      'OTEL_EXPORTER_PROMETHEUS_PORT="99999": a whole number from 0 to 65535 is accepted',
    ],
    [{ ...none, OTEL_TRACES_SAMPLER: "jaeger" }, 'OTEL_TRACES_SAMPLER="jaeger": accepted are always_on'],
    [
      { ...none, OTEL_TRACES_SAMPLER: "traceidratio", OTEL_TRACES_SAMPLER_ARG: "2" },
      'OTEL_TRACES_SAMPLER_ARG="2": a number from 0 to 1 is accepted',
    ],
  ];
  for (const [env, message] of cases) {
    const error = faultOf(env);
    expect(error.code).toBe("KLIO-CONFIG");
    expect(error.message).toContain(message);
  }
});

test("all faults are told together; a header that may hold a token is not shown (P9)", () => {
  const { message } = faultOf({
    OTEL_TRACES_EXPORTER: "x",
    OTEL_METRICS_EXPORTER: "y",
    OTEL_METRIC_EXPORT_TIMEOUT: "-1",
    OTEL_BSP_MAX_QUEUE_SIZE: "many",
  });
  for (const name of ["TRACES_EXPORTER", "METRICS_EXPORTER", "METRIC_EXPORT_TIMEOUT", "BSP_MAX_QUEUE_SIZE"])
    expect(message).toContain(`OTEL_${name}`);
  expect(faultOf({ OTEL_EXPORTER_OTLP_HEADERS: "secret-token" }).message).not.toContain("secret-token");
});

test("a certificate without its key, or the other way round, is a fault", () => {
  const { message } = faultOf({ OTEL_METRICS_EXPORTER: "none", OTEL_EXPORTER_OTLP_CLIENT_KEY: "/dev/null" });
  expect(message).toContain("it is accepted only together with OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE");
});

test("the names of gRPC metrics follow OTEL_SEMCONV_STABILITY_OPT_IN", () => {
  for (const [value, names] of [
    ["rpc/old", "old"],
    ["http,rpc/dup", "both"],
    ["http", "new"],
  ] as const)
    expect(readTelemetryConfig({ ...none, OTEL_SEMCONV_STABILITY_OPT_IN: value }).rpcNames).toBe(names);
});
