// What a collector got, as spans and metrics. Ids are hexadecimal.
import { fileURLToPath } from "node:url";
import { loadSync, type ServiceDefinition } from "@grpc/proto-loader";
import type { OtlpReceiver } from "./otlp-receiver.ts";
import type { TreeSpan } from "./span-tree.ts";

type Attributes = Record<string, unknown>;
export type SentSpan = TreeSpan & { service: string; traceId: string };
export type SentMetric = {
  service: string;
  scope: string;
  name: string;
  unit: string;
  kind: "gauge" | "counter" | "updown" | "histogram";
  points: { attributes: Attributes; value: number; isInt: boolean }[];
};
type Sent<T> = { resource: Attributes; entries: T[] };

type Value = {
  value?: string;
  text?: string;
  flag?: boolean;
  int?: string;
  real?: number;
  array?: { values: Value[] };
};
type KeyValue = { key: string; value: Value };
type Group<S> = { resource: { attributes: KeyValue[] }; scopes: ({ scope: { name: string } } & S)[] };
type RawSpan = {
  traceId: Buffer;
  spanId: Buffer;
  parentSpanId: Buffer;
  name: string;
  start: string;
  attributes: KeyValue[];
  events: { name: string; attributes: KeyValue[] }[];
  links: { traceId: Buffer; spanId: Buffer }[];
  status: { code: number; message: string } | null;
};
type RawPoint = { attributes: KeyValue[]; value?: string; asDouble?: number; asInt?: string; count?: string };
type RawMetric = {
  name: string;
  unit: string;
  gauge?: { points: RawPoint[] };
  sum?: { points: RawPoint[]; monotonic: boolean };
  histogram?: { points: RawPoint[] };
};

const definitions = loadSync(fileURLToPath(new URL("otlp.proto", import.meta.url)), {
  longs: String,
  defaults: true,
  oneofs: true,
});
function decode<S>(service: "Traces" | "Metrics", body: Buffer): Group<S>[] {
  const { Export } = definitions[`otlp.${service}`] as { Export: ServiceDefinition[string] };
  return (Export.requestDeserialize(body) as { resources: Group<S>[] }).resources;
}

function plain({ value, text, flag, int, real, array }: Value): unknown {
  if (value === "int") return Number(int);
  return value === "array" ? array?.values.map(plain) : { text, flag, real }[value as "text" | "flag" | "real"];
}
const attributesOf = (list: readonly KeyValue[]): Attributes =>
  Object.fromEntries(list.map(({ key, value }) => [key, plain(value)]));
const hex = (id: Buffer) => id.toString("hex");

function groupsOf<S, T>(
  receiver: OtlpReceiver,
  service: "Traces" | "Metrics",
  each: (scope: string, service: string, group: S) => T[],
): Sent<T>[] {
  const path = service === "Traces" ? /trace/i : /metrics/i;
  return receiver.requests
    .filter((request) => path.test(request.path))
    .flatMap(({ body }) => decode<S>(service, body))
    .map(({ resource, scopes }) => {
      const attributes = attributesOf(resource.attributes);
      const name = String(attributes["service.name"]);
      return { resource: attributes, entries: scopes.flatMap((group) => each(group.scope.name, name, group)) };
    });
}

/** By export, each with its resource. */
export const sentSpans = (receiver: OtlpReceiver): Sent<SentSpan>[] =>
  groupsOf<{ spans: RawSpan[] }, SentSpan>(receiver, "Traces", (scope, service, { spans }) =>
    spans.map(({ traceId, spanId, parentSpanId, name, start, attributes, events, links, status }) => ({
      service,
      tracer: scope,
      traceId: hex(traceId),
      id: hex(spanId),
      parentId: parentSpanId.length === 0 ? undefined : hex(parentSpanId),
      name,
      startNs: BigInt(start),
      attributes: attributesOf(attributes),
      events: events.map((event) => ({ name: event.name, attributes: attributesOf(event.attributes) })),
      linkedIds: links.map((link) => hex(link.spanId)),
      status: status ?? { code: 0, message: "" },
    })),
  );

/** By export, each with its resource. */
export const sentMetrics = (receiver: OtlpReceiver): Sent<SentMetric>[] =>
  groupsOf<{ metrics: RawMetric[] }, SentMetric>(receiver, "Metrics", (scope, service, { metrics }) =>
    metrics.map(({ name, unit, gauge, sum, histogram }) => {
      const kind = gauge ? "gauge" : histogram ? "histogram" : sum?.monotonic ? "counter" : "updown";
      const points = (gauge ?? sum ?? histogram)?.points ?? [];
      return {
        service,
        scope,
        name,
        unit,
        kind,
        points: points.map(({ attributes, value, asDouble, asInt, count }) => ({
          attributes: attributesOf(attributes),
          value: Number(count ?? (value === "asInt" ? asInt : asDouble)),
          isInt: value === "asInt",
        })),
      };
    }),
  );
