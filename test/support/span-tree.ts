// Spans and metrics as results: what a process told, normalised so that two runs can be compared.
import type { MetricData } from "@opentelemetry/sdk-metrics";
import { MetricReader } from "@opentelemetry/sdk-metrics";
import { InMemorySpanExporter, type ReadableSpan, SimpleSpanProcessor } from "@opentelemetry/sdk-trace";
import { temporalityOf } from "../../src/telemetry/prometheus.ts";
import { startTelemetry, type Telemetry, type TelemetryOptions } from "../../src/telemetry/telemetry.ts";
import { type TestLog, testLog } from "./test-log.ts";

type SpanNode = {
  name: string;
  tracer: string;
  status?: "ERROR";
  message?: string;
  outcome?: string;
  attributes?: Record<string, unknown>;
  /** Event name, with the text of an exception or the reason behind it. */
  events?: string[];
  /** Names of the linked spans, "remote" for one of another process. */
  links?: string[];
  /** Of another process. */
  parent?: "remote";
  children?: SpanNode[];
};

const STATUS_ERROR = 2;
const atMs = ([s, ns]: readonly [number, number]) => s * 1_000 + ns / 1e6;

/** Ids and times removed, parents by nesting, siblings by their start. */
function spanTree(spans: readonly ReadableSpan[]): SpanNode[] {
  const byId = new Map(spans.map((span) => [span.spanContext().spanId, span]));
  const sorted = [...spans].sort((a, b) => atMs(a.startTime) - atMs(b.startTime));
  const node = (span: ReadableSpan): SpanNode => {
    const {
      "klio.machine": _machine,
      "klio.state": _state,
      "klio.outcome": outcome,
      ...attributes
    } = span.attributes as Record<string, unknown>;
    const id = span.spanContext().spanId;
    const children = sorted.filter((one) => one.parentSpanContext?.spanId === id).map(node);
    const events = span.events.map(({ name, attributes: said = {} }) => {
      const text = said["exception.message"] ?? said.reason;
      return text === undefined ? name : `${name}: ${String(text)}`;
    });
    const links = span.links.map(({ context }) => byId.get(context.spanId)?.name ?? "remote");
    const parent = span.parentSpanContext;
    return {
      name: span.name,
      tracer: span.instrumentationScope.name,
      ...(outcome !== undefined && outcome !== "ok" && { outcome: String(outcome) }),
      ...(span.status.code === STATUS_ERROR && { status: "ERROR" as const, message: span.status.message ?? "" }),
      ...(Object.keys(attributes).length > 0 && { attributes }),
      ...(events.length > 0 && { events }),
      ...(links.length > 0 && { links }),
      ...(parent !== undefined && !byId.has(parent.spanId) && { parent: "remote" as const }),
      ...(children.length > 0 && { children }),
    };
  };
  return sorted
    .filter(({ parentSpanContext: parent }) => parent === undefined || !byId.has(parent.spanId))
    .map((span) => node(span));
}

/** A reader that collects when asked. */
export class AskedReader extends MetricReader {
  constructor() {
    super({ aggregationTemporalitySelector: temporalityOf });
  }
  protected override async onForceFlush(): Promise<void> {
    // It collects when asked.
  }
  protected override async onShutdown(): Promise<void> {
    // Nothing is open.
  }
  async metrics(): Promise<MetricData[]> {
    const { resourceMetrics } = await this.collect();
    return resourceMetrics.scopeMetrics.flatMap(({ metrics }) => metrics);
  }
}

/** `name{label=value}` -> value, of the meter `klio`; histograms with their count. */
export function valuesOf(metrics: readonly MetricData[]): Record<string, number> {
  const values: Record<string, number> = {};
  for (const { descriptor, dataPoints } of metrics) {
    if (!descriptor.name.startsWith("klio.")) continue;
    for (const { attributes, value } of dataPoints) {
      const labels = Object.entries(attributes).map(([key, text]) => `${key}=${String(text)}`);
      const name = labels.length === 0 ? descriptor.name : `${descriptor.name}{${labels.sort().join(",")}}`;
      values[name] = typeof value === "number" ? value : value.count;
    }
  }
  return values;
}

export type RecordedTelemetry = AsyncDisposable & {
  telemetry: Telemetry;
  log: TestLog;
  /** Ended spans, in the order of their ends. */
  spans(): ReadableSpan[];
  tree(): SpanNode[];
  values(): Promise<Record<string, number>>;
};

/** Telemetry that exports nowhere and keeps all. */
export async function recordedTelemetry(
  service: TelemetryOptions["service"] = "klio-server",
): Promise<RecordedTelemetry> {
  const exporter = new InMemorySpanExporter();
  const reader = new AskedReader();
  const log = testLog();
  const env = { OTEL_SERVICE_NAME: service, OTEL_TRACES_EXPORTER: "none", OTEL_METRICS_EXPORTER: "none" };
  const telemetry = await startTelemetry({
    service,
    env,
    log,
    destinations: { spanProcessors: [new SimpleSpanProcessor({ exporter })], metricReaders: [reader] },
  });
  return {
    telemetry,
    log,
    spans: () => exporter.getFinishedSpans(),
    tree: () => spanTree(exporter.getFinishedSpans()),
    values: async () => valuesOf(await reader.metrics()),
    [Symbol.asyncDispose]: () => telemetry.shutdown(),
  };
}
