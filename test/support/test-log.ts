import type { Log, LogFields, LogLevel } from "../../src/domain/log.ts";

export type TestLine = { level: LogLevel; event: string; message: string; fields: LogFields };
export type TestLog = Log & { lines: TestLine[]; events(): string[] };

/** A log that keeps its lines. With KLIO_TEST_LOG set they are printed, too. */
export function testLog(lines: TestLine[] = [], base: LogFields = {}): TestLog {
  const write =
    (level: LogLevel) =>
    (event: string, message: string, fields: LogFields = {}) => {
      lines.push({ level, event, message, fields: { ...base, ...fields } });
      if (process.env.KLIO_TEST_LOG)
        process.stderr.write(`${level} ${event} ${message} ${JSON.stringify({ ...base, ...fields })}\n`);
    };
  return {
    lines,
    events: () => lines.map((line) => line.event),
    debug: write("debug"),
    info: write("info"),
    warn: write("warn"),
    error: write("error"),
    with: (fields) => testLog(lines, { ...base, ...fields }),
  };
}
