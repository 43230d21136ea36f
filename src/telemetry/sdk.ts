// The OpenTelemetry SDK as one object: providers, readers, shutdown. Only telemetry.ts imports this file, and only when
// the gate is open; everything that is expensive to load is below it.
import { context, type Meter, type Tracer } from "@opentelemetry/api";
import { AsyncLocalStorageContextManager } from "@opentelemetry/context-async-hooks";
import { RuntimeNodeInstrumentation } from "@opentelemetry/instrumentation-runtime-node";
import { resourceFromAttributes } from "@opentelemetry/resources";
import { type IMetricReader, MeterProvider, PeriodicExportingMetricReader } from "@opentelemetry/sdk-metrics";
import {
  AlwaysOffSampler,
  AlwaysOnSampler,
  BatchSpanProcessor,
  ParentBasedSampler,
  type Sampler,
  type SpanProcessor,
  TraceIdRatioBasedSampler,
  TracerProvider,
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

let hasContextManager = false;
/** The API keeps one for the process; a second start finds the first one's. */
function installContextManager(): void {
  if (hasContextManager) return;
  hasContextManager = context.setGlobalContextManager(new AsyncLocalStorageContextManager().enable());
}

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

  installContextManager();
  const { warn, close } = countingWarner(log);
  const uninstall = installDiagnostics(warn);
  const resource = resourceFromAttributes(attributes);
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
  const tracers = new TracerProvider({
    resource,
    sampler: processors.length === 0 ? new AlwaysOffSampler() : samplerOf(config.sampler),
    spanProcessors: processors,
    spanLimits: {
      attributeCountLimit,
      eventCountLimit: events,
      linkCountLimit: links,
      ...(valueLength !== undefined && { attributeValueLengthLimit: valueLength }),
    },
  });
  const meters = new MeterProvider({ resource, readers });
  const runtime = new RuntimeNodeInstrumentation({ enabled: false });
  if (readers.length > 0) {
    runtime.setMeterProvider(meters);
    runtime.enable();
    observeHost(meters.getMeter("klio.host"));
  }
  return {
    config,
    tracer: (name) => tracers.getTracer(name),
    meter: (name) => meters.getMeter(name),
    warn,
    prometheus,
    async shutdown(limitMs) {
      runtime.disable();
      const late = Promise.withResolvers<string>();
      const timer = setTimeout(() => late.resolve(`no end within ${limitMs} ms`), limitMs);
      const ended = Promise.allSettled([tracers.shutdown(), meters.shutdown()]).then((results) => {
        for (const result of results) if (result.status === "rejected") warn(errorText(result.reason));
        return undefined;
      });
      const problem = await Promise.race([ended, late.promise]);
      clearTimeout(timer);
      if (problem !== undefined) warn(problem);
      close();
      uninstall();
    },
  };
}
