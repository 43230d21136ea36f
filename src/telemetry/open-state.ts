// One annotated state while an actor is in it: its span, its gauges, and the verdict on it.
import {
  type Attributes,
  type Context,
  type Link,
  type Span,
  SpanStatusCode,
  type Tracer,
  trace,
} from "@opentelemetry/api";
import type { Instruments, Labels } from "./instruments.ts";
import type { StateTelemetry, TracerName } from "./state-telemetry.ts";
import { contextFrom, parseTraceparent } from "./traceparent.ts";

export type Verdict = "ok" | "error" | "cancelled" | "stopped" | "crashed";
/** What went wrong: `code` as in errors.ts where it is known. */
export type Reason = { code?: string | undefined; message: string; error?: unknown };
export type SpanTools = {
  tracer: (name: TracerName) => Tracer;
  instruments: Instruments;
  /** Milliseconds since the epoch. */
  now: () => number;
  /** Runs what must not disturb the machine. */
  safely: (act: () => void) => void;
};

type Data = Record<string, unknown>;

/** The values of context keys; a key that is absent or empty says nothing yet. */
export function valuesOf(keys: Record<string, string> | undefined, data: Data): Labels {
  const values: Labels = {};
  for (const name in keys) {
    const value = data[keys[name] ?? name];
    if (value === "") continue;
    if (typeof value === "string" || typeof value === "number" || typeof value === "boolean") values[name] = value;
  }
  return values;
}

/** The text behind a context key: of a string, a failure, an error, or the last of several. */
export function reasonOf(value: unknown): Reason | undefined {
  if (typeof value === "string") return value === "" ? undefined : { message: value };
  if (Array.isArray(value)) return reasonOf(value.at(-1));
  if (typeof value !== "object" || value === null) return undefined;
  const { code, reason, message } = value as { code?: unknown; reason?: unknown; message?: unknown };
  const text = reason ?? message;
  if (typeof text !== "string") return undefined;
  return { message: text, code: typeof code === "string" ? code : undefined, error: value };
}

/** Where a span belongs: below the enclosing one, below a remote one, or at the root of its own trace. */
function placeOf(telemetry: StateTelemetry, data: Data, enclosing: Context): { parent: Context; links: Link[] } {
  const links: Link[] = [];
  let parent = enclosing;
  const text = (key: string | undefined) => {
    const value = key === undefined ? undefined : data[key];
    return typeof value === "string" ? value : undefined;
  };
  if (telemetry.newTrace) {
    const around = trace.getSpanContext(enclosing);
    if (around !== undefined) links.push({ context: around, attributes: { "klio.link": "belongs_to" } });
    parent = trace.deleteSpan(enclosing);
  }
  parent = contextFrom(parent, text(telemetry.parentFrom));
  const followed = parseTraceparent(text(telemetry.linkFrom));
  if (followed !== undefined) links.push({ context: followed, attributes: { "klio.link": "follows" } });
  return { parent, links };
}

export class OpenState {
  readonly id: string;
  readonly telemetry: StateTelemetry;
  /** Labels as they were on entry: what went up on a series goes down on the same. */
  readonly labels: Labels;
  /** The context of what runs in this state. */
  readonly context: Context;
  /** Opened before its entry actions ran, because its children start before them. */
  early: boolean;
  verdict: Verdict | undefined;
  reason: Reason | undefined;
  /** The exception is recorded here, at the span that failed, and not on those above it. */
  isOrigin = false;
  readonly #tools: SpanTools;
  readonly #span: Span | undefined;
  readonly #startedMs: number;
  #described: Labels = {};
  #leftMs: number | undefined;

  constructor(
    tools: SpanTools,
    state: { id: string; machine: string; telemetry: StateTelemetry },
    data: Data,
    enclosing: Context,
    early: boolean,
  ) {
    const { telemetry } = state;
    this.id = state.id;
    this.telemetry = telemetry;
    this.early = early;
    this.labels = valuesOf(telemetry.labels, data);
    this.#tools = tools;
    this.#startedMs = tools.now();
    let span: Span | undefined;
    let inner = enclosing;
    const name = telemetry.span;
    if (name !== undefined)
      tools.safely(() => {
        const { parent, links } = placeOf(telemetry, data, enclosing);
        this.#described = valuesOf(telemetry.attributes, data);
        const tracer = tools.tracer(telemetry.tracer ?? "klio.backup");
        const begun = tracer.startSpan(name, { links, startTime: this.#startedMs }, parent);
        // Not with the start, which checks and copies them twice; no sampler of ours looks at them.
        begun.setAttribute("klio.machine", state.machine).setAttribute("klio.state", state.id);
        begun.setAttributes(this.#described);
        span = begun;
        inner = trace.setSpan(parent, begun);
      });
    this.#span = span;
    this.context = inner;
    if (telemetry.running !== undefined) tools.instruments.flag(telemetry.running, 1, this.labels);
  }

  get hasSpan(): boolean {
    return this.telemetry.span !== undefined;
  }

  /** What counts at the entry itself, once the entry actions run. */
  entered(): void {
    const { latestStart, count } = this.telemetry;
    const { instruments } = this.#tools;
    if (latestStart !== undefined) instruments.set(latestStart, this.#startedMs / 1000, this.labels);
    for (const name of count === undefined ? [] : [count].flat()) instruments.add(name, 1, this.labels);
  }

  /** Tells the span what has changed since its attributes were last read. */
  describe(data: Data): void {
    const span = this.#span;
    if (span === undefined) return;
    const values = valuesOf(this.telemetry.attributes, data);
    for (const [name, value] of Object.entries(values))
      if (this.#described[name] !== value) this.#tools.safely(() => span.setAttribute(name, value));
    this.#described = values;
  }

  event(name: string, attributes: Attributes): void {
    this.#tools.safely(() => this.#span?.addEvent(name, attributes, this.#tools.now()));
  }

  /** An explicit verdict of the machine stands against one that was only concluded. */
  judge(verdict: Verdict, reason: Reason | undefined, isOrigin: boolean): void {
    this.verdict = verdict;
    this.reason = reason ?? this.reason;
    this.isOrigin = isOrigin;
  }

  /** The state is left: the metrics move now, the span waits for the verdict until `end`. */
  leave(): void {
    if (this.#leftMs !== undefined) return;
    this.#leftMs = this.#tools.now();
    const { running, latestEnd, duration } = this.telemetry;
    const { instruments } = this.#tools;
    if (running !== undefined) instruments.flag(running, -1, this.labels);
    if (latestEnd !== undefined) instruments.set(latestEnd, this.#leftMs / 1000, this.labels);
    if (duration !== undefined) instruments.set(duration, (this.#leftMs - this.#startedMs) / 1000, this.labels);
  }

  /** Ends the span with the time at which the state was left. */
  end(): void {
    this.leave();
    const { span: stage } = this.telemetry;
    const leftMs = this.#leftMs ?? this.#startedMs;
    if (stage === undefined) return;
    const outcome = this.verdict ?? "ok";
    this.#tools.instruments.record("klio.stage.duration", (leftMs - this.#startedMs) / 1000, { stage, outcome });
    this.#tools.safely(() => {
      const span = this.#span;
      if (span === undefined) return;
      span.setAttribute("klio.outcome", outcome);
      if (outcome === "error" || outcome === "crashed") this.#fail(span, leftMs);
      span.end(leftMs);
    });
  }

  #fail(span: Span, atMs: number): void {
    const { message = "", code, error } = this.reason ?? {};
    if (code !== undefined) span.setAttribute("error.type", code);
    if (this.isOrigin && this.reason !== undefined)
      span.recordException(
        error instanceof Error ? error : { name: code ?? "Error", message, ...(code !== undefined && { code }) },
        atMs,
      );
    span.setStatus({ code: SpanStatusCode.ERROR, message });
  }
}
