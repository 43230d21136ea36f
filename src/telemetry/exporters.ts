// Exporters from the checked configuration. All that the packages would read from the environment is given explicitly.
import { X509Certificate } from "node:crypto";
import { ChannelCredentials, Metadata } from "@grpc/grpc-js";
import { OTLPMetricExporter as GrpcMetricExporter } from "@opentelemetry/exporter-metrics-otlp-grpc";
import { OTLPMetricExporter as HttpMetricExporter } from "@opentelemetry/exporter-metrics-otlp-proto";
import { OTLPTraceExporter as GrpcTraceExporter } from "@opentelemetry/exporter-trace-otlp-grpc";
import { OTLPTraceExporter as HttpTraceExporter } from "@opentelemetry/exporter-trace-otlp-proto";
import { AggregationTemporality, InstrumentType, type PushMetricExporter } from "@opentelemetry/sdk-metrics";
import type { SpanExporter } from "@opentelemetry/sdk-trace";
import { errorText, KlioError } from "../errors.ts";
import { ConsoleMetricLines, ConsoleSpanLines } from "./console-exporters.ts";
import { temporalityOf } from "./prometheus.ts";
import { RetryingSpanExporter } from "./span-retry.ts";
import type { MetricExport, OtlpTarget, Signal, TraceExport } from "./telemetry-config.ts";

type HttpOptions = NonNullable<ConstructorParameters<typeof HttpTraceExporter>[0]>;
type GrpcOptions = NonNullable<ConstructorParameters<typeof GrpcTraceExporter>[0]>;
/** The value of an enum that its package exports only from a package below it. */
type Compression = NonNullable<HttpOptions["compression"]>;

function httpOptions({ url, headers, compression, timeoutMs, ca, cert, key }: OtlpTarget): HttpOptions {
  return {
    url,
    headers,
    compression: compression as Compression,
    timeoutMillis: timeoutMs,
    httpAgentOptions: { keepAlive: true, ...(ca && { ca }), ...(cert && { cert }), ...(key && { key }) },
  };
}

function grpcOptions({ url, isSecure, headers, compression, timeoutMs, ca, cert, key }: OtlpTarget): GrpcOptions {
  const metadata = new Metadata();
  for (const [name, value] of Object.entries(headers)) metadata.set(name, value);
  return {
    // The exporter drops a port that is its scheme's own, and would then use 443; credentials decide about TLS.
    url: `${url.endsWith(":443") ? "http" : "https"}://${url}`,
    credentials: isSecure
      ? ChannelCredentials.createSsl(ca ?? null, key ?? null, cert ?? null)
      : ChannelCredentials.createInsecure(),
    metadata,
    compression: compression as Compression,
    timeoutMillis: timeoutMs,
  };
}

/** Certificates that cannot be used are found at the start, not with the first export. */
function checked<T>(signal: Signal, { ca, cert }: OtlpTarget, build: () => T): T {
  try {
    for (const pem of [ca, cert]) if (pem !== undefined) new X509Certificate(pem);
    return build();
  } catch (cause) {
    throw new KlioError(
      "KLIO-CONFIG",
      `OTEL_EXPORTER_OTLP_CERTIFICATE, _CLIENT_CERTIFICATE and _CLIENT_KEY of ${signal}: ${errorText(cause)}; PEM files that belong together are accepted`,
      { cause },
    );
  }
}

/** Undefined: none. Throws KLIO-CONFIG. */
export function spanExporter(config: TraceExport): SpanExporter | undefined {
  if (config.kind === "none") return undefined;
  if (config.kind === "console") return new ConsoleSpanLines(process.stdout);
  const { target } = config;
  return checked("traces", target, () =>
    target.protocol === "grpc"
      ? new RetryingSpanExporter(new GrpcTraceExporter(grpcOptions(target)))
      : new HttpTraceExporter(httpOptions(target)),
  );
}

type Temporality = (type: InstrumentType) => AggregationTemporality;

const MONOTONIC = new Set([InstrumentType.COUNTER, InstrumentType.OBSERVABLE_COUNTER, InstrumentType.HISTOGRAM]);
const temporalities: Record<"cumulative" | "delta" | "lowmemory", Temporality> = {
  cumulative: temporalityOf,
  delta: (type) => (MONOTONIC.has(type) ? AggregationTemporality.DELTA : temporalityOf(type)),
  lowmemory: (type) =>
    MONOTONIC.has(type) && type !== InstrumentType.OBSERVABLE_COUNTER
      ? AggregationTemporality.DELTA
      : temporalityOf(type),
};

/** Undefined: none, or nothing that is pushed. Throws KLIO-CONFIG. */
export function metricExporter(config: MetricExport): PushMetricExporter | undefined {
  if (config.kind === "none" || config.kind === "prometheus") return undefined;
  if (config.kind === "console") return new ConsoleMetricLines(process.stdout, temporalityOf);
  const { target } = config;
  const exporter = checked("metrics", target, () =>
    target.protocol === "grpc"
      ? new GrpcMetricExporter(grpcOptions(target))
      : new HttpMetricExporter(httpOptions(target)),
  );
  exporter.selectAggregationTemporality = temporalities[config.temporality];
  return exporter;
}
