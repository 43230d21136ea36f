// W3C trace context as text: what travels in gRPC metadata, in queue messages and in the context of machines.
import { type Context, createTraceState, isSpanContextValid, type SpanContext, trace } from "@opentelemetry/api";

/** `00-<32 hex>-<16 hex>-<2 hex>`; later versions may append fields, which are left alone. */
const PATTERN = /^(?!ff)([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(?:-.*)?$/;

/** The remote span that a traceparent names; undefined when it is none. Never throws, whatever a peer sent. */
export function parseTraceparent(traceparent: string | undefined, tracestate?: string): SpanContext | undefined {
  const match = PATTERN.exec(traceparent?.trim() ?? "");
  if (match === null) return undefined;
  const [, version = "", traceId = "", spanId = "", flags = ""] = match;
  if (version === "00" && traceparent?.trim().length !== 55) return undefined;
  const span: SpanContext = {
    traceId,
    spanId,
    traceFlags: Number.parseInt(flags, 16) & 1,
    isRemote: true,
    ...(tracestate !== undefined && tracestate !== "" && { traceState: createTraceState(tracestate) }),
  };
  return isSpanContextValid(span) ? span : undefined;
}

export function formatTraceparent({ traceId, spanId, traceFlags }: SpanContext): string {
  return `00-${traceId}-${spanId}-${(traceFlags & 0xff).toString(16).padStart(2, "0")}`;
}

/** The traceparent of the span of a context; undefined when it has none. */
export function traceparentIn(context: Context): string | undefined {
  const span = trace.getSpanContext(context);
  return span !== undefined && isSpanContextValid(span) ? formatTraceparent(span) : undefined;
}

/** `context` with the remote span as the parent of what is started in it; `context` itself when the text is none. */
export function contextFrom(context: Context, traceparent: string | undefined, tracestate?: string): Context {
  const span = parseTraceparent(traceparent, tracestate);
  return span === undefined ? context : trace.setSpanContext(context, span);
}
