// What the OpenTelemetry packages complain about, as log lines: the first at once, then at most one a minute that counts
// the rest. A collector that is down must not fill the log.
import { type DiagLogger, DiagLogLevel, diag } from "@opentelemetry/api";
import type { Log } from "../domain/log.ts";
import { errorText } from "../errors.ts";

const REPEAT_MS = 60_000;

/** The part of a complaint that says something: packages hand over errors, JSON texts of errors, or several values. */
function complaintOf(values: readonly unknown[]): string {
  const text = values
    .map((value) =>
      value instanceof Error ? errorText(value) : typeof value === "string" ? value : JSON.stringify(value),
    )
    .join(" ");
  try {
    const parsed: unknown = JSON.parse(text);
    if (typeof parsed === "object" && parsed !== null && "message" in parsed) return String(parsed.message);
  } catch {
    return text; // not JSON
  }
  return text;
}

/** The counting itself; `close` tells what was still held back. */
export function countingWarner(log: Log, repeatMs = REPEAT_MS): { warn: (text: string) => void; close: () => void } {
  let timer: NodeJS.Timeout | undefined;
  let held = 0;
  let latest = "";
  let isClosed = false;
  const tell = () => {
    timer = undefined;
    if (held === 0) return;
    log.warn("telemetry.failed", `telemetry failed ${held} more times: ${latest}`, { failures: held });
    held = 0;
    hold();
  };
  const hold = () => {
    timer = setTimeout(tell, repeatMs);
    timer.unref();
  };
  return {
    warn(text) {
      if (isClosed) return; // what was abandoned at the end may still fail
      if (timer === undefined) {
        log.warn("telemetry.failed", `telemetry failed: ${text}`, { failures: 1 });
        hold();
        return;
      }
      held += 1;
      latest = text;
    },
    close() {
      isClosed = true;
      clearTimeout(timer);
      timer = undefined;
      if (held > 0) log.warn("telemetry.failed", `telemetry failed ${held} more times: ${latest}`, { failures: held });
      held = 0;
    },
  };
}

/** Routes the packages' own messages to `warn`; they print nothing otherwise. */
export function installDiagnostics(warn: (text: string) => void): () => void {
  const ignore = () => undefined;
  const tell = (...values: unknown[]) => warn(complaintOf(values));
  const logger: DiagLogger = { error: tell, warn: tell, info: ignore, debug: ignore, verbose: ignore };
  diag.setLogger(logger, { logLevel: DiagLogLevel.WARN, suppressOverrideMessage: true });
  return () => diag.disable();
}
