import { diag } from "@opentelemetry/api";
import { type ExportResult, ExportResultCode } from "@opentelemetry/core";
import type { ReadableSpan, SpanExporter } from "@opentelemetry/sdk-trace";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { countingWarner, installDiagnostics } from "../../../src/telemetry/diagnostics.ts";
import { RetryingSpanExporter } from "../../../src/telemetry/span-retry.ts";
import { testLog } from "../../support/test-log.ts";

beforeEach(() => {
  vi.useFakeTimers();
});
afterEach(() => {
  vi.useRealTimers();
});

test("the first complaint is told at once, the next minute's with one line and their number", () => {
  const log = testLog();
  const { warn, close } = countingWarner(log);
  for (let i = 0; i < 100; i++) warn(`refused ${i}`);
  expect(log.lines.map(({ message }) => message)).toEqual(["telemetry failed: refused 0"]);
  vi.advanceTimersByTime(60_000);
  expect(log.lines.map(({ message }) => message)).toEqual([
    "telemetry failed: refused 0",
    "telemetry failed 99 more times: refused 99",
  ]);
  vi.advanceTimersByTime(60_000);
  warn("again");
  expect(log.lines).toHaveLength(3);
  warn("held");
  close();
  expect(log.lines.at(-1)?.message).toBe("telemetry failed 1 more times: held");
  warn("too late");
  expect(log.lines).toHaveLength(4);
});

test("the packages' own messages are told, whatever their shape", () => {
  const told: string[] = [];
  const uninstall = installDiagnostics((text) => told.push(text));
  diag.error(JSON.stringify({ stack: "…", message: "connect ECONNREFUSED" }));
  diag.warn("queue", { full: true });
  diag.error("plain", new Error("because"));
  diag.info("not interesting");
  uninstall();
  diag.error("nobody listens");
  expect(told).toEqual(["connect ECONNREFUSED", 'queue {"full":true}', "plain because"]);
});

function exporterAnswering(results: ExportResult[]) {
  let calls = 0;
  const inner: SpanExporter = {
    export: (_spans: ReadableSpan[], done) => {
      calls += 1;
      done(results.shift() ?? { code: ExportResultCode.SUCCESS });
    },
    shutdown: async () => undefined,
  };
  return { inner, calls: () => calls };
}
const refused = (code: number): ExportResult => ({
  code: ExportResultCode.FAILED,
  error: Object.assign(new Error("refused"), { code }),
});
const times = { firstMs: 500, limitMs: 5_000, totalMs: 25_000 };

test("a batch that the collector refused for now is sent again until it is taken", () => {
  const { inner, calls } = exporterAnswering([refused(14), refused(8)]);
  const done = vi.fn();
  new RetryingSpanExporter(inner, times).export([], done);
  expect(calls()).toBe(1);
  vi.advanceTimersByTime(500);
  expect(calls()).toBe(2);
  vi.advanceTimersByTime(1_000);
  expect(calls()).toBe(3);
  expect(done).toHaveBeenCalledExactlyOnceWith({ code: ExportResultCode.SUCCESS });
});

test("a refusal for good is not repeated", () => {
  const { inner, calls } = exporterAnswering([refused(3)]);
  const done = vi.fn();
  new RetryingSpanExporter(inner, times).export([], done);
  vi.advanceTimersByTime(60_000);
  expect(calls()).toBe(1);
  expect(done).toHaveBeenCalledExactlyOnceWith(refused(3));
});

test("attempts end before the batch is given up anyway, and at once when telemetry ends", async () => {
  const { inner } = exporterAnswering(Array.from({ length: 100 }, () => refused(14)));
  const done = vi.fn();
  new RetryingSpanExporter(inner, times).export([], done);
  vi.advanceTimersByTime(25_000);
  expect(done).toHaveBeenCalledOnce();

  const stopping = new RetryingSpanExporter(exporterAnswering([refused(14), refused(14)]).inner, times);
  const ended = vi.fn();
  stopping.export([], ended);
  await stopping.shutdown();
  expect(ended).toHaveBeenCalledOnce();
});
