// Spans and metrics on stdout, one JSON object per line.
import { type ExportResult, ExportResultCode, hrTimeToMilliseconds } from "@opentelemetry/core";
import {
  type AggregationTemporality,
  DataPointType,
  type InstrumentType,
  type PushMetricExporter,
  type ResourceMetrics,
} from "@opentelemetry/sdk-metrics";
import type { ReadableSpan, SpanExporter } from "@opentelemetry/sdk-trace";

type Output = { write: (text: string) => unknown };
type Time = Parameters<typeof hrTimeToMilliseconds>[0];

const iso = (time: Time) => new Date(hrTimeToMilliseconds(time)).toISOString();
const STATUS = ["UNSET", "OK", "ERROR"];

export class ConsoleSpanLines implements SpanExporter {
  readonly #output: Output;
  constructor(output: Output) {
    this.#output = output;
  }

  export(spans: ReadableSpan[], done: (result: ExportResult) => void): void {
    for (const span of spans) this.#output.write(`${JSON.stringify(lineOf(span))}\n`);
    done({ code: ExportResultCode.SUCCESS });
  }

  async shutdown(): Promise<void> {
    // Nothing is held.
  }
}

function lineOf(span: ReadableSpan): Record<string, unknown> {
  const { traceId, spanId } = span.spanContext();
  return {
    span: span.name,
    tracer: span.instrumentationScope.name,
    traceId,
    spanId,
    parentSpanId: span.parentSpanContext?.spanId,
    start: iso(span.startTime),
    end: iso(span.endTime),
    status: STATUS[span.status.code],
    message: span.status.message,
    attributes: span.attributes,
    events: span.events.map(({ name, time, attributes }) => ({ name, time: iso(time), attributes })),
    links: span.links.map(({ context, attributes }) => ({
      traceId: context.traceId,
      spanId: context.spanId,
      attributes,
    })),
    resource: span.resource.attributes,
  };
}

export class ConsoleMetricLines implements PushMetricExporter {
  readonly #output: Output;
  readonly #temporality: (type: InstrumentType) => AggregationTemporality;
  constructor(output: Output, temporality: (type: InstrumentType) => AggregationTemporality) {
    this.#output = output;
    this.#temporality = temporality;
  }

  selectAggregationTemporality(type: InstrumentType): AggregationTemporality {
    return this.#temporality(type);
  }

  export({ scopeMetrics }: ResourceMetrics, done: (result: ExportResult) => void): void {
    for (const { scope, metrics } of scopeMetrics)
      for (const { descriptor, dataPointType, dataPoints } of metrics)
        for (const { attributes, value, endTime } of dataPoints)
          this.#output.write(
            `${JSON.stringify({
              metric: descriptor.name,
              meter: scope.name,
              unit: descriptor.unit,
              type: DataPointType[dataPointType].toLowerCase(),
              time: iso(endTime),
              attributes,
              value,
            })}\n`,
          );
    done({ code: ExportResultCode.SUCCESS });
  }

  async forceFlush(): Promise<void> {
    // Nothing is held.
  }
  async shutdown(): Promise<void> {
    // Nothing is held.
  }
}
