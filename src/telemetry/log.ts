// Logs: one JSON object per line (pino), readable lines on a terminal. Trace and span id are those of the work that logs.
import { isSpanContextValid, trace } from "@opentelemetry/api";
import { pino } from "pino";
import type { Log, LogFields, LogLevel } from "../domain/log.ts";

export type LogOptions = {
  level: LogLevel;
  destination: NodeJS.WritableStream;
  /** Lines for people; otherwise JSON. */
  pretty: boolean;
  /** On every line. */
  fields?: LogFields;
};

/** Names that a line has by itself; a field of the same name is written with an underscore behind it. */
const OWN = new Set(["ts", "level", "msg", "event.name", "trace_id", "span_id"]);

function traceFields(): Record<string, string> {
  const span = trace.getActiveSpan()?.spanContext();
  return span !== undefined && isSpanContextValid(span) ? { trace_id: span.traceId, span_id: span.spanId } : {};
}

function ownNamesKept(fields: LogFields): LogFields {
  return Object.fromEntries(Object.entries(fields).map(([name, value]) => [OWN.has(name) ? `${name}_` : name, value]));
}

const COLOUR: Record<string, string> = { error: "31", warn: "33", info: "32", debug: "36", trace: "90" };
const coloured = (code: string, text: string) => `\u001b[${code}m${text}\u001b[0m`;

/** A line for people: time of day, level, sentence, then the fields. */
function prettyLine(line: string): string {
  const { ts, level, msg, ...rest }: Record<string, unknown> = JSON.parse(line);
  const fields = Object.entries(rest)
    .map(
      ([name, value]) => `${name}=${typeof value === "string" && !/[\s"]/.test(value) ? value : JSON.stringify(value)}`,
    )
    .join(" ");
  const name = String(level);
  return `${String(ts).slice(11, 23)} ${coloured(COLOUR[name] ?? "0", name.padEnd(5))} ${msg} ${coloured("90", fields)}\n`;
}

/** Never rejects; what the destination does with a full pipe is the destination's. */
export function createLog({ level, destination, pretty, fields = {} }: LogOptions): Log {
  const sink = { write: (line: string) => void destination.write(pretty ? prettyLine(line) : line) };
  const root = pino(
    {
      level,
      base: null,
      messageKey: "msg",
      timestamp: () => `,"ts":"${new Date().toISOString()}"`,
      formatters: { level: (label) => ({ level: label }) },
    },
    sink,
  );
  const logWith = (base: LogFields): Log => {
    const write =
      (to: Exclude<LogLevel, "trace">) =>
      (event: string, message: string, more: LogFields = {}) => {
        if (root.isLevelEnabled(to))
          root[to]({ "event.name": event, ...ownNamesKept({ ...base, ...more }), ...traceFields() }, message);
      };
    return {
      debug: write("debug"),
      info: write("info"),
      warn: write("warn"),
      error: write("error"),
      with: (more) => logWith({ ...base, ...more }),
    };
  };
  return logWith(fields);
}
