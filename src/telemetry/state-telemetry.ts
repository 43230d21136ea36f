// What a state of a statechart says about itself for telemetry: plain JSON in `meta.telemetry`, read by bind.ts.
// Machines import this file's types and nothing else of telemetry.

export type TracerName = "klio.backup" | "klio.wal_client" | "klio.wal_server" | "klio.consumer";

export interface StateTelemetry {
  /** Name of the span that is opened on entry and ended on exit; `tracer` is required with it. */
  span?: string;
  tracer?: TracerName;
  /** The span begins a trace of its own (with a link to the enclosing one). */
  newTrace?: boolean;
  /** Span attribute -> context key. Read on entry and again on exit. */
  attributes?: Record<string, string>;
  /** Context key that holds a W3C traceparent: the span is linked to it. */
  linkFrom?: string;
  /** Context key that holds a W3C traceparent: the span is a child of it. */
  parentFrom?: string;
  /** Metric label -> context key, for all instruments of this state. Low cardinality only. */
  labels?: Record<string, string>;
  /** Gauge that is 1 while at least one actor is in this state. */
  running?: string;
  /** Gauges set to the epoch seconds of the entry / of the exit. */
  latestStart?: string;
  latestEnd?: string;
  /** Gauge set on exit to the seconds spent in the state. */
  duration?: string;
  /** Counters moved by one on entry. */
  count?: string | string[];
  /** Verdict for the nearest enclosing span; `reason` names a context key with the text of the error. */
  outcome?: "ok" | "error" | "cancelled";
  reason?: string;
  /** Name of an event added to the nearest enclosing span on entry (a retry that may still succeed). */
  event?: string;
}

export interface StateMeta {
  telemetry?: StateTelemetry;
  /** One line for the console and the docs. */
  description?: string;
}
