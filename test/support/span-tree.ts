// Spans and metrics as results: what a process told, normalised so that two runs can be compared.
import type { MetricData } from "@opentelemetry/sdk-metrics";
import { MetricReader } from "@opentelemetry/sdk-metrics";
import { InMemorySpanExporter, type ReadableSpan, SimpleSpanProcessor } from "@opentelemetry/sdk-trace";
import { temporalityOf } from "../../src/telemetry/prometheus.ts";
import { startTelemetry, type Telemetry, type TelemetryOptions } from "../../src/telemetry/telemetry.ts";
import { type TestLog, testLog } from "./test-log.ts";

export type SpanNode = {
  name: string;
  tracer: string;
  /** Of a tree over several processes. */
  service?: string;
  status?: "ERROR";
  message?: string;
  outcome?: string;
  attributes?: Record<string, unknown>;
  /** Event name, with the text of an exception or the reason behind it. */
  events?: string[];
  /** Names of the linked spans, "remote" for one that was not recorded. */
  links?: string[];
  /** Was not recorded. */
  parent?: "remote";
  children?: SpanNode[];
};

/** A span as it was recorded or sent. */
export type TreeSpan = {
  id: string;
  /** Absent: the span begins a trace. */
  parentId?: string | undefined;
  service?: string;
  name: string;
  tracer: string;
  startNs: bigint;
  attributes: Record<string, unknown>;
  events: readonly { name: string; attributes: Record<string, unknown> }[];
  linkedIds: readonly string[];
  status: { code: number; message?: string | undefined };
};

const STATUS_ERROR = 2;

/** Ids and times removed, parents by nesting, siblings by their start. */
export function treeOf(spans: readonly TreeSpan[]): SpanNode[] {
  const byId = new Map(spans.map((span) => [span.id, span]));
  const sorted = [...spans].sort((a, b) => (a.startNs < b.startNs ? -1 : a.startNs > b.startNs ? 1 : 0));
  const isTop = ({ parentId }: TreeSpan) => parentId === undefined || !byId.has(parentId);
  const node = (span: TreeSpan): SpanNode => {
    const { "klio.machine": _machine, "klio.state": _state, "klio.outcome": outcome, ...attributes } = span.attributes;
    const children = sorted.filter(({ parentId }) => parentId === span.id).map(node);
    const events = span.events.map(({ name, attributes: said }) => {
      const text = said["exception.message"] ?? said.reason;
      return text === undefined ? name : `${name}: ${String(text)}`;
    });
    const links = span.linkedIds.map((id) => byId.get(id)?.name ?? "remote");
    return {
      name: span.name,
      tracer: span.tracer,
      ...(span.service !== undefined && { service: span.service }),
      ...(outcome !== undefined && outcome !== "ok" && { outcome: String(outcome) }),
      ...(span.status.code === STATUS_ERROR && { status: "ERROR" as const, message: span.status.message ?? "" }),
      ...(Object.keys(attributes).length > 0 && { attributes }),
      ...(events.length > 0 && { events }),
      ...(links.length > 0 && { links }),
      ...(span.parentId !== undefined && isTop(span) && { parent: "remote" as const }),
      ...(children.length > 0 && { children }),
    };
  };
  return sorted.filter(isTop).map(node);
}

/** The trees as text, a span per line, what happened on it below. */
export function treeText(nodes: readonly SpanNode[], indent = ""): string {
  return nodes
    .map(({ name, tracer, service, status, message, outcome, attributes = {}, events = [], links = [], ...rest }) => {
      const words = [
        name,
        `[${service === undefined ? "" : `${service} `}${tracer}]`,
        ...Object.entries(attributes).map(([key, value]) => `${key}=${String(value)}`),
        ...(rest.parent === undefined ? [] : ["(parent elsewhere)"]),
        ...(outcome === undefined ? [] : [`outcome ${outcome}`]),
        ...(status === undefined ? [] : [`${status}: ${message}`]),
      ];
      const below = `${indent}  `;
      return [
        `${indent}${words.join(" ")}\n`,
        ...links.map((link) => `${below}~ linked to ${link}\n`),
        ...events.map((event) => `${below}* ${event}\n`),
        treeText(rest.children ?? [], below),
      ].join("");
    })
    .join("");
}

const recorded = (span: ReadableSpan): TreeSpan => ({
  id: span.spanContext().spanId,
  parentId: span.parentSpanContext?.spanId,
  name: span.name,
  tracer: span.instrumentationScope.name,
  startNs: BigInt(span.startTime[0]) * 1_000_000_000n + BigInt(span.startTime[1]),
  attributes: span.attributes,
  events: span.events.map(({ name, attributes = {} }) => ({ name, attributes })),
  linkedIds: span.links.map(({ context }) => context.spanId),
  status: span.status,
});

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
    if (!/^(klio\.|controller_runtime_|workqueue_)/.test(descriptor.name)) continue;
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
    tree: () => treeOf(exporter.getFinishedSpans().map(recorded)),
    values: async () => valuesOf(await reader.metrics()),
    [Symbol.asyncDispose]: () => telemetry.shutdown(),
  };
}
