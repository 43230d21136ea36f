// The OTEL_* variables of the contract, read once and checked: what is wrong is told with variable, value and what is
// accepted, all of it at once. Where the packages behind would only warn, fall back or guess, the start ends here.
import { readFileSync } from "node:fs";
import type { Environment } from "../config/config.ts";
import { errorText, KlioError } from "../errors.ts";
import type { RpcNames } from "./grpc-interceptors.ts";

export type Signal = "traces" | "metrics";
export type OtlpTarget = {
  protocol: "http/protobuf" | "grpc";
  /** http: the whole URL of the signal; gRPC: `host:port`. */
  url: string;
  isSecure: boolean;
  headers: Record<string, string>;
  compression: "gzip" | "none";
  timeoutMs: number;
  ca: Buffer | undefined;
  cert: Buffer | undefined;
  key: Buffer | undefined;
};
export type TraceExport = { kind: "otlp"; target: OtlpTarget } | { kind: "console" } | { kind: "none" };
export type MetricExport =
  | { kind: "otlp"; target: OtlpTarget; temporality: "cumulative" | "delta" | "lowmemory" }
  | { kind: "prometheus"; host: string; port: number }
  | { kind: "console" }
  | { kind: "none" };
type SamplerName =
  | "always_on"
  | "always_off"
  | "traceidratio"
  | "parentbased_always_on"
  | "parentbased_always_off"
  | "parentbased_traceidratio";
export type TelemetryConfig = {
  traces: TraceExport;
  metrics: MetricExport;
  metricIntervalMs: number;
  metricTimeoutMs: number;
  sampler: { name: SamplerName; ratio: number };
  batch: { delayMs: number; timeoutMs: number; queueSize: number; batchSize: number };
  limits: { attributes: number; events: number; links: number; valueLength: number | undefined };
  rpcNames: RpcNames;
};

/** Telemetry is on when a variable of OpenTelemetry says anything. */
export function isGateOpen(env: Environment): boolean {
  if (env.OTEL_SDK_DISABLED?.trim().toLowerCase() === "true") return false;
  return Object.entries(env).some(([name, value]) => name.startsWith("OTEL_") && value !== undefined && value !== "");
}

/** Longest time a timer of Node can wait. */
const MAX_MS = 2_147_483_647;

class Reader {
  readonly faults: string[] = [];
  readonly #env: Environment;
  constructor(env: Environment) {
    this.#env = env;
  }

  text(name: string): string | undefined {
    const value = this.#env[name]?.trim();
    return value === "" ? undefined : value;
  }

  /** The signal's own variable, else the general one; with the name that was used. */
  forSignal(signal: Signal, suffix: string): { name: string; value: string } | undefined {
    for (const name of [`OTEL_EXPORTER_OTLP_${signal.toUpperCase()}_${suffix}`, `OTEL_EXPORTER_OTLP_${suffix}`]) {
      const value = this.text(name);
      if (value !== undefined) return { name, value };
    }
    return undefined;
  }

  fault(name: string, value: string, accepted: string): void {
    this.faults.push(`${name}=${JSON.stringify(value)}: ${accepted}`);
  }

  oneOf<T extends string>(name: string, value: string | undefined, accepted: readonly T[], otherwise: T): T {
    if (value === undefined) return otherwise;
    const found = accepted.find((one) => one === value);
    if (found === undefined)
      this.fault(
        name,
        value,
        value.includes(",")
          ? `one value is accepted, of ${accepted.join(", ")}`
          : `accepted are ${accepted.join(", ")}`,
      );
    return found ?? otherwise;
  }

  integer(name: string, otherwise: number, min: number, max: number): number {
    const value = this.text(name);
    return value === undefined ? otherwise : this.#integerOf(name, value, otherwise, min, max);
  }

  #integerOf(name: string, value: string, otherwise: number, min: number, max: number): number {
    const number = Number(value);
    if (/^\d+$/.test(value) && number >= min && number <= max) return number;
    this.fault(name, value, `a whole number from ${min} to ${max} is accepted`);
    return otherwise;
  }

  integerForSignal(signal: Signal, suffix: string, otherwise: number, min: number, max: number): number {
    const found = this.forSignal(signal, suffix);
    return found === undefined ? otherwise : this.#integerOf(found.name, found.value, otherwise, min, max);
  }

  pem(signal: Signal, suffix: string): Buffer | undefined {
    const found = this.forSignal(signal, suffix);
    if (found === undefined) return undefined;
    try {
      const pem = readFileSync(found.value);
      if (!pem.includes("-----BEGIN ")) throw new Error("not a PEM file");
      return pem;
    } catch (error) {
      this.fault(found.name, found.value, `a readable PEM file is accepted (${errorText(error)})`);
      return undefined;
    }
  }
}

/** `key=value` pairs, comma-separated, values percent-encoded. */
function headersOf(reader: Reader, signal: Signal): Record<string, string> {
  const headers: Record<string, string> = {};
  for (const suffix of [`OTEL_EXPORTER_OTLP_HEADERS`, `OTEL_EXPORTER_OTLP_${signal.toUpperCase()}_HEADERS`]) {
    for (const pair of (reader.text(suffix) ?? "").split(",")) {
      if (pair.trim() === "") continue;
      const cut = pair.indexOf("=");
      try {
        if (cut < 1) throw new Error("no '='");
        headers[decodeURIComponent(pair.slice(0, cut).trim()).toLowerCase()] = decodeURIComponent(
          pair.slice(cut + 1).trim(),
        );
      } catch {
        // The value may hold a token, so it is not shown.
        reader.faults.push(`${suffix}: comma-separated key=value pairs are accepted, with values percent-encoded`);
        break;
      }
    }
  }
  return headers;
}

function booleanOf(reader: Reader, signal: Signal, suffix: string): boolean | undefined {
  const found = reader.forSignal(signal, suffix);
  if (found === undefined) return undefined;
  return reader.oneOf(found.name, found.value.toLowerCase(), ["true", "false"], "false") === "true";
}

type Endpoint = { url: string; isSecure: boolean };

function endpointOf(reader: Reader, signal: Signal, protocol: OtlpTarget["protocol"]): Endpoint {
  const found = reader.forSignal(signal, "ENDPOINT");
  const isOwn = found?.name === `OTEL_EXPORTER_OTLP_${signal.toUpperCase()}_ENDPOINT`;
  const isInsecure = booleanOf(reader, signal, "INSECURE");
  const isGrpc = protocol === "grpc";
  const fallback = isGrpc ? "http://localhost:4317" : "http://localhost:4318";
  const given = found?.value ?? fallback;
  const hasScheme = /^[a-z][a-z0-9+.-]*:\/\//i.test(given);
  const text = hasScheme ? given : `${isInsecure ? "http" : "https"}://${given}`;
  try {
    const url = new URL(text);
    if (!(isGrpc || hasScheme)) throw new Error("no scheme");
    if (url.hostname === "" || !/^https?:$/.test(url.protocol)) throw new Error("no http or https URL");
    // INSECURE is for gRPC; given with a scheme that says otherwise, it decides, as with other exporters.
    const isSecure =
      isGrpc && isInsecure !== undefined && found !== undefined ? !isInsecure : url.protocol === "https:";
    if (isGrpc) return { url: `${url.hostname}:${url.port || (isSecure ? 443 : 80)}`, isSecure };
    if (!isOwn) url.pathname = `${url.pathname.replace(/\/$/, "")}/v1/${signal}`;
    return { url: url.toString(), isSecure };
  } catch {
    reader.fault(
      found?.name ?? "OTEL_EXPORTER_OTLP_ENDPOINT",
      given,
      isGrpc
        ? "http://host:port, https://host:port or host:port is accepted"
        : "an http:// or https:// URL is accepted",
    );
    return { url: fallback, isSecure: false };
  }
}

function targetOf(reader: Reader, signal: Signal): OtlpTarget {
  const asked = reader.forSignal(signal, "PROTOCOL");
  const protocol = reader.oneOf(
    asked?.name ?? "OTEL_EXPORTER_OTLP_PROTOCOL",
    asked?.value,
    ["http/protobuf", "grpc"],
    "http/protobuf",
  );
  const packed = reader.forSignal(signal, "COMPRESSION");
  const target: OtlpTarget = {
    protocol,
    ...endpointOf(reader, signal, protocol),
    headers: headersOf(reader, signal),
    compression: reader.oneOf(packed?.name ?? "", packed?.value, ["gzip", "none"], "none"),
    timeoutMs: reader.integerForSignal(signal, "TIMEOUT", 10_000, 1, MAX_MS),
    ca: reader.pem(signal, "CERTIFICATE"),
    cert: reader.pem(signal, "CLIENT_CERTIFICATE"),
    key: reader.pem(signal, "CLIENT_KEY"),
  };
  const hasCert = reader.forSignal(signal, "CLIENT_CERTIFICATE") !== undefined;
  if (hasCert !== (reader.forSignal(signal, "CLIENT_KEY") !== undefined)) {
    const [given, missing] = hasCert ? ["CLIENT_CERTIFICATE", "CLIENT_KEY"] : ["CLIENT_KEY", "CLIENT_CERTIFICATE"];
    const { name = "", value = "" } = reader.forSignal(signal, given ?? "") ?? {};
    reader.fault(name, value, `it is accepted only together with ${name.replace(given ?? "", missing ?? "")}`);
  }
  return target;
}

function tracesOf(reader: Reader): TraceExport {
  const name = "OTEL_TRACES_EXPORTER";
  const kind = reader.oneOf(name, reader.text(name), ["otlp", "console", "none"], "otlp");
  return kind === "otlp" ? { kind, target: targetOf(reader, "traces") } : { kind };
}

function metricsOf(reader: Reader): MetricExport {
  const name = "OTEL_METRICS_EXPORTER";
  const kind = reader.oneOf(name, reader.text(name), ["otlp", "prometheus", "console", "none"], "otlp");
  if (kind === "prometheus")
    return {
      kind,
      host: reader.text("OTEL_EXPORTER_PROMETHEUS_HOST") ?? "localhost",
      port: reader.integer("OTEL_EXPORTER_PROMETHEUS_PORT", 9464, 0, 65_535),
    };
  if (kind !== "otlp") return { kind };
  const preference = "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE";
  const asked = reader.text(preference)?.toLowerCase();
  return {
    kind,
    target: targetOf(reader, "metrics"),
    temporality: reader.oneOf(preference, asked, ["cumulative", "delta", "lowmemory"], "cumulative"),
  };
}

function samplerOf(reader: Reader): TelemetryConfig["sampler"] {
  const variable = "OTEL_TRACES_SAMPLER";
  const accepted: readonly SamplerName[] = [
    "always_on",
    "always_off",
    "traceidratio",
    "parentbased_always_on",
    "parentbased_always_off",
    "parentbased_traceidratio",
  ];
  const name = reader.oneOf(variable, reader.text(variable), accepted, "parentbased_always_on");
  const given = reader.text("OTEL_TRACES_SAMPLER_ARG");
  const ratio = Number(given ?? 1);
  if (!name.endsWith("traceidratio")) return { name, ratio: 1 };
  if (given === undefined || (ratio >= 0 && ratio <= 1)) return { name, ratio };
  reader.fault("OTEL_TRACES_SAMPLER_ARG", given, "a number from 0 to 1 is accepted");
  return { name, ratio: 1 };
}

function rpcNamesOf(reader: Reader): RpcNames {
  const asked = (reader.text("OTEL_SEMCONV_STABILITY_OPT_IN") ?? "").split(",").map((one) => one.trim());
  return asked.includes("rpc/dup") ? "both" : asked.includes("rpc/old") ? "old" : "new";
}

/** Throws KLIO-CONFIG with all faults. */
export function readTelemetryConfig(env: Environment): TelemetryConfig {
  const reader = new Reader(env);
  const limit = (name: string) => reader.integer(`OTEL_SPAN_${name}_COUNT_LIMIT`, 128, 0, MAX_MS);
  const metricIntervalMs = reader.integer("OTEL_METRIC_EXPORT_INTERVAL", 60_000, 1, MAX_MS);
  const queueSize = reader.integer("OTEL_BSP_MAX_QUEUE_SIZE", 2_048, 1, 1 << 20);
  const valueLength = reader.integer("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", -1, 0, MAX_MS);
  const config: TelemetryConfig = {
    traces: tracesOf(reader),
    metrics: metricsOf(reader),
    metricIntervalMs,
    metricTimeoutMs: Math.min(metricIntervalMs, reader.integer("OTEL_METRIC_EXPORT_TIMEOUT", 30_000, 1, MAX_MS)),
    sampler: samplerOf(reader),
    batch: {
      delayMs: reader.integer("OTEL_BSP_SCHEDULE_DELAY", 5_000, 0, MAX_MS),
      timeoutMs: reader.integer("OTEL_BSP_EXPORT_TIMEOUT", 30_000, 1, MAX_MS),
      queueSize,
      batchSize: Math.min(queueSize, reader.integer("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 512, 1, 1 << 20)),
    },
    limits: {
      attributes: limit("ATTRIBUTE"),
      events: limit("EVENT"),
      links: limit("LINK"),
      valueLength: valueLength < 0 ? undefined : valueLength,
    },
    rpcNames: rpcNamesOf(reader),
  };
  if (reader.faults.length > 0) throw new KlioError("KLIO-CONFIG", [...new Set(reader.faults)].join("; "));
  return config;
}
