// Span exports that may pass when they are tried again. The gRPC exporter never does so by itself: a restart of the
// collector would cost every span that was on its way.

import { type ExportResult, ExportResultCode } from "@opentelemetry/core";
import type { ReadableSpan, SpanExporter } from "@opentelemetry/sdk-trace";

/** gRPC statuses for which the OTLP specification asks for another attempt, each with its name. */
const RETRYABLE: ReadonlyMap<number, string> = new Map([
  [1, "CANCELLED"],
  [4, "DEADLINE_EXCEEDED"],
  [8, "RESOURCE_EXHAUSTED"],
  [10, "ABORTED"],
  [11, "OUT_OF_RANGE"],
  [14, "UNAVAILABLE"],
  [15, "DATA_LOSS"],
]);

export type RetryTimes = { firstMs: number; limitMs: number; totalMs: number };
/** Below the 30 s after which a batch is given up anyway. */
const RETRY: RetryTimes = { firstMs: 500, limitMs: 5_000, totalMs: 25_000 };

function codeOf(result: ExportResult): number | undefined {
  const error = result.error;
  return error !== undefined && "code" in error && typeof error.code === "number" ? error.code : undefined;
}

export class RetryingSpanExporter implements SpanExporter {
  readonly #inner: SpanExporter;
  readonly #times: RetryTimes;
  readonly #waits = new Set<() => void>();
  #isStopped = false;

  constructor(inner: SpanExporter, times: RetryTimes = RETRY) {
    this.#inner = inner;
    this.#times = times;
  }

  export(spans: ReadableSpan[], done: (result: ExportResult) => void): void {
    const deadline = performance.now() + this.#times.totalMs;
    const attempt = (waitMs: number) =>
      this.#inner.export(spans, (result) => {
        const code = codeOf(result);
        const isOver = this.#isStopped || performance.now() + waitMs > deadline;
        if (result.code === ExportResultCode.SUCCESS || code === undefined || !RETRYABLE.has(code) || isOver) {
          done(result);
          return;
        }
        this.#wait(waitMs * (0.5 + Math.random() / 2), () =>
          this.#isStopped ? done(result) : attempt(Math.min(this.#times.limitMs, waitMs * 2)),
        );
      });
    attempt(this.#times.firstMs);
  }

  #wait(ms: number, then: () => void): void {
    const end = () => {
      clearTimeout(timer);
      this.#waits.delete(end);
      then();
    };
    const timer = setTimeout(end, ms);
    timer.unref();
    this.#waits.add(end);
  }

  /** Gives up waiting: who shuts down has seconds, not minutes. */
  async shutdown(): Promise<void> {
    this.#isStopped = true;
    for (const end of [...this.#waits]) end();
    await this.#inner.shutdown();
  }

  async forceFlush(): Promise<void> {
    await this.#inner.forceFlush?.();
  }
}
