// The OpenTelemetry SDK as one object: providers, readers, shutdown. Only telemetry.ts imports this file, and only when
// the gate is open; everything that is expensive to load is below it.
import { context, logs, type Meter, metrics, propagation, type Tracer, trace } from "@opentelemetry/api";
import { W3CTraceContextPropagator } from "@opentelemetry/core";
import { RuntimeNodeInstrumentation } from "@opentelemetry/instrumentation-runtime-node";
import { resourceFromAttributes } from "@opentelemetry/resources";
import { type IMetricReader, PeriodicExportingMetricReader } from "@opentelemetry/sdk-metrics";
import { NodeSDK } from "@opentelemetry/sdk-node";
import {
  AlwaysOffSampler,
  AlwaysOnSampler,
  BatchSpanProcessor,
  ParentBasedSampler,
  type Sampler,
  type SpanProcessor,
  TraceIdRatioBasedSampler,
} from "@opentelemetry/sdk-trace";
import type { Environment } from "../config/config.ts";
import type { Log } from "../domain/log.ts";
import { errorText } from "../errors.ts";
import { countingWarner, installDiagnostics } from "./diagnostics.ts";
import { metricExporter, spanExporter } from "./exporters.ts";
import { observeHost } from "./host-metrics.ts";
import { PrometheusReader } from "./prometheus.ts";
import { resourceAttributes } from "./resource.ts";
import { readTelemetryConfig, type TelemetryConfig } from "./telemetry-config.ts";

export type Sdk = {
  config: TelemetryConfig;
  tracer: (name: string) => Tracer;
  meter: (name: string) => Meter;
  warn: (text: string) => void;
  prometheus: { host: string; port: number } | undefined;
  /** Flushes and ends; never rejects, never takes longer than `limitMs`. */
  shutdown: (limitMs: number) => Promise<void>;
};
export type SdkOptions = {
  service: string;
  env: Environment;
  log: Log;
  /** Further destinations of spans and metrics, for those who look at them in the same process. */
  spanProcessors?: readonly SpanProcessor[];
  metricReaders?: readonly IMetricReader[];
};

const SDK_VERSION = "3.1.0";

function samplerOf({ name, ratio }: TelemetryConfig["sampler"]): Sampler {
  const roots: Record<string, () => Sampler> = {
    always_on: () => new AlwaysOnSampler(),
    always_off: () => new AlwaysOffSampler(),
    traceidratio: () => new TraceIdRatioBasedSampler(ratio),
  };
  const isParentBased = name.startsWith("parentbased_");
  const root = (roots[name.replace("parentbased_", "")] ?? (() => new AlwaysOnSampler()))();
  return isParentBased ? new ParentBasedSampler({ root }) : root;
}

/** Rejects with KLIO-CONFIG or KLIO-PORT-BUSY; nothing is left open then. */
export async function startSdk(options: SdkOptions): Promise<Sdk> {
  const { log } = options;
  const config = readTelemetryConfig(options.env);
  const exporter = spanExporter(config.traces);
  const pushed = metricExporter(config.metrics);
  const { attributes, warnings } = resourceAttributes(options.env, options.service, SDK_VERSION);
  for (const warning of warnings) log.warn("telemetry.config", warning);

  const readers: IMetricReader[] = [...(options.metricReaders ?? [])];
  let prometheus: Sdk["prometheus"];
  if (config.metrics.kind === "prometheus") {
    const reader = new PrometheusReader();
    prometheus = await reader.listen(config.metrics.host, config.metrics.port);
    readers.push(reader);
  } else if (pushed !== undefined)
    readers.push(
      new PeriodicExportingMetricReader({
        exporter: pushed,
        exportIntervalMillis: config.metricIntervalMs,
        exportTimeoutMillis: config.metricTimeoutMs,
      }),
    );

  const { warn, close } = countingWarner(log);
  const uninstall = installDiagnostics(warn);
  const { delayMs, timeoutMs, queueSize, batchSize } = config.batch;
  const processors: SpanProcessor[] = [...(options.spanProcessors ?? [])];
  if (exporter !== undefined)
    processors.push(
      new BatchSpanProcessor({
        exporter,
        scheduledDelayMillis: delayMs,
        exportTimeoutMillis: timeoutMs,
        maxQueueSize: queueSize,
        maxExportBatchSize: batchSize,
      }),
    );
  const { attributes: attributeCountLimit, events, links, valueLength } = config.limits;
  // Everything is given: what the SDK would read from the environment by itself was read, and checked, above. It registers
  // itself with the API, which keeps one for the process: a second start takes the place of the first.
  const node = new NodeSDK({
    resource: resourceFromAttributes(attributes),
    autoDetectResources: false,
    textMapPropagator: new W3CTraceContextPropagator(),
    sampler: samplerOf(config.sampler),
    spanProcessors: processors,
    spanLimits: {
      attributeCountLimit,
      eventCountLimit: events,
      linkCountLimit: links,
      ...(valueLength !== undefined && { attributeValueLengthLimit: valueLength }),
    },
    metricReaders: readers,
    logRecordProcessors: [],
  });
  for (const api of [context, propagation, trace, metrics, logs]) api.disable();
  node.start();
  const tracers = trace.getTracerProvider();
  const meters = metrics.getMeterProvider();
  const runtime = new RuntimeNodeInstrumentation({ enabled: false });
  if (readers.length > 0) {
    runtime.setMeterProvider(meters);
    runtime.enable();
    observeHost(meters.getMeter("klio.host"));
  }
  const known = new Map<string, Tracer>();
  return {
    config,
    tracer: (name) => {
      const tracer = known.get(name) ?? tracers.getTracer(name);
      known.set(name, tracer);
      return tracer;
    },
    meter: (name) => meters.getMeter(name),
    warn,
    prometheus,
    async shutdown(limitMs) {
      runtime.disable();
      const late = Promise.withResolvers<string>();
      const timer = setTimeout(() => late.resolve(`no end within ${limitMs} ms`), limitMs);
      const ended = node.shutdown().then(
        () => undefined,
        (error: unknown) => errorText(error),
      );
      const problem = await Promise.race([ended, late.promise]);
      clearTimeout(timer);
      if (problem !== undefined) warn(problem);
      close();
      uninstall();
    },
  };
}
