// One WAL file on its way to tier 2.
//   O1. `segment.offloaded` is emitted only after tier 2 confirmed the file's bytes, or showed that it holds them.
//   O2. A retryable failure is tried at most `maxAttempts` times, a fatal one once.
//   O3. The wait after attempt n is `backoffMs(attemptBackoff, n, spread)` milliseconds.
//   O4. A file that tier 1 has no longer counts as offloaded only when tier 2 holds it complete.
//   O5. A stop leaves no verdict: the task stays what it was.
//   O6. A failure of tier 2 as a whole is not held against the file: no `segment.abandoned`.
//   O7. A partial file of which nothing is left to relay ends well: it was completed, and the complete file has its own task, or
//       nothing of it was ever confirmed.
import { assign, emit, setup } from "xstate";
import { backoffMs } from "../domain/backoff.ts";
import type { FactOf } from "../domain/facts.ts";
import { isTierWide, type OffloadTask, type TaskVerdict } from "../domain/offload-task.ts";
import type { Failure, Outcome } from "../domain/outcome.ts";
import type { StateMeta } from "../telemetry/state-telemetry.ts";
import { unprovided } from "./unprovided.ts";

/**
 * What tier 1 has under the task's name. `name` may differ: a partial file may have been completed meanwhile. `rawBytes`: of WAL in
 * the file, a whole segment's when it is complete. `nothing`: a partial file without a confirmed byte, or without a file.
 */
export type ReadResult =
  | { kind: "read"; name: string; bytes: number; rawBytes: number }
  | { kind: "gone" }
  | { kind: "nothing" };
/** `bytes`: size of the object; `wasThere`: tier 2 had the same content already. */
export type PutResult = { bytes: number; wasThere: boolean };
export type SegmentOffloadInput = { task: OffloadTask };
type FileInput = { task: number; cluster: string; name: string };
type Context = {
  task: OffloadTask;
  cluster: string;
  name: string;
  traceparent: string;
  attempt: number;
  bytes: number;
  rawBytes: number;
  code: string;
  reason: string;
  fatal: boolean;
  verdict: TaskVerdict;
};

/** A hiccup is got over here; an outage is the queue's to wait for. */
export const maxAttempts = 3;
const attemptBackoff = { firstMs: 250, factor: 4, limitMs: 4_000 };

const failureIn = (outcome: Outcome<unknown>): Failure =>
  outcome.kind === "ok" ? { kind: "fatal", code: "KLIO-BUG", reason: "no failure" } : outcome;

const fileInput = ({ context }: { context: Context }): FileInput => ({
  task: context.task.id,
  cluster: context.cluster,
  name: context.name,
});

export const segmentOffload = setup({
  types: {
    input: {} as SegmentOffloadInput,
    context: {} as Context,
    events: {} as { type: "shutdown.requested" },
    emitted: {} as FactOf<"segment.offloaded"> | FactOf<"segment.abandoned">,
    output: {} as TaskVerdict,
    meta: {} as StateMeta,
  },
  actors: {
    readSegment: unprovided<Outcome<ReadResult>, FileInput>("readSegment"),
    putSegment: unprovided<Outcome<PutResult>, FileInput>("putSegment"),
    findSegment: unprovided<Outcome<{ isHeld: boolean }>, FileInput>("findSegment"),
    confirmSegment: unprovided<Outcome<void>, FileInput>("confirmSegment"),
  },
  actions: {
    countAttempt: assign({ attempt: ({ context }) => context.attempt + 1 }),
    keepFile: assign(({ context: { name, rawBytes } }, outcome: Outcome<ReadResult>) =>
      outcome.kind === "ok" && outcome.value.kind === "read"
        ? { name: outcome.value.name, rawBytes: outcome.value.rawBytes }
        : { name, rawBytes },
    ),
    keepBytes: assign((_, outcome: Outcome<PutResult>) => ({ bytes: outcome.kind === "ok" ? outcome.value.bytes : 0 })),
    keepFailure: assign((_, { kind, code, reason }: Failure) => ({ fatal: kind === "fatal", code, reason })),
    judge: assign({
      verdict: ({ context: { fatal, code, reason } }): TaskVerdict => ({
        kind: "failed",
        scope: isTierWide(code) ? "tier" : "task",
        fatal,
        code,
        reason,
      }),
    }),
    judgeDone: assign({ verdict: ({ context }): TaskVerdict => ({ kind: "done", name: context.name }) }),
    emitOffloaded: emit(
      ({ context: { cluster, name, bytes, rawBytes } }) =>
        ({ type: "segment.offloaded", cluster, name, bytes, rawBytes }) as const,
    ),
    emitAbandoned: emit(
      ({ context: { cluster, name, reason } }) => ({ type: "segment.abandoned", cluster, name, reason }) as const,
    ),
  },
  guards: {
    isRead: (_, outcome: Outcome<ReadResult>) => outcome.kind === "ok" && outcome.value.kind === "read",
    isNothing: (_, outcome: Outcome<ReadResult>) => outcome.kind === "ok" && outcome.value.kind === "nothing",
    isGone: (_, outcome: Outcome<ReadResult>) => outcome.kind === "ok" && outcome.value.kind === "gone",
    isPut: (_, outcome: Outcome<PutResult>) => outcome.kind === "ok",
    isHeld: (_, outcome: Outcome<{ isHeld: boolean }>) => outcome.kind === "ok" && outcome.value.isHeld,
    isMissing: (_, outcome: Outcome<{ isHeld: boolean }>) => outcome.kind === "ok" && !outcome.value.isHeld,
    canRetry: ({ context }) => !context.fatal && context.attempt < maxAttempts,
    isOutage: ({ context }) => isTierWide(context.code),
  },
  delays: {
    backoff: ({ context: { attempt, task } }) => backoffMs(attemptBackoff, attempt, task.spread),
  },
}).createMachine({
  id: "segmentOffload",
  context: ({ input }) => ({
    ...input,
    cluster: input.task.cluster,
    name: input.task.name,
    traceparent: input.task.traceparent,
    attempt: 0,
    bytes: 0,
    rawBytes: 0,
    code: "",
    reason: "",
    fatal: false,
    verdict: { kind: "interrupted" },
  }),
  meta: {
    telemetry: {
      span: "tier2_upload",
      tracer: "klio.consumer",
      newTrace: true,
      linkFrom: "traceparent",
      attributes: { cluster_name: "cluster", wal_name: "name" },
    },
  },
  initial: "reading",
  on: { "shutdown.requested": ".interrupted" },
  states: {
    reading: {
      meta: { description: "reads the stored file and re-wraps its header for tier 2" },
      entry: "countAttempt",
      invoke: {
        id: "readSegment",
        src: "readSegment",
        input: fileInput,
        onDone: [
          {
            guard: { type: "isRead", params: ({ event }) => event.output },
            target: "putting",
            actions: { type: "keepFile", params: ({ event }) => event.output },
          },
          { guard: { type: "isNothing", params: ({ event }) => event.output }, target: "present" },
          { guard: { type: "isGone", params: ({ event }) => event.output }, target: "searching" },
          { target: "failing", actions: { type: "keepFailure", params: ({ event }) => failureIn(event.output) } },
        ],
      },
    },
    putting: {
      meta: { description: "uploads it; the store's checksum is compared" },
      invoke: {
        id: "putSegment",
        src: "putSegment",
        input: fileInput,
        onDone: [
          {
            guard: { type: "isPut", params: ({ event }) => event.output },
            target: "confirming",
            actions: { type: "keepBytes", params: ({ event }) => event.output },
          },
          { target: "failing", actions: { type: "keepFailure", params: ({ event }) => failureIn(event.output) } },
        ],
      },
    },
    searching: {
      meta: { description: "tier 1 has it no longer: does tier 2?" },
      invoke: {
        id: "findSegment",
        src: "findSegment",
        input: fileInput,
        onDone: [
          { guard: { type: "isHeld", params: ({ event }) => event.output }, target: "present" },
          {
            guard: { type: "isMissing", params: ({ event }) => event.output },
            target: "failing",
            actions: {
              type: "keepFailure",
              params: ({ context }) =>
                ({ kind: "fatal", code: "KLIO-WAL-MISSING", reason: `neither tier has ${context.name}` }) as const,
            },
          },
          { target: "failing", actions: { type: "keepFailure", params: ({ event }) => failureIn(event.output) } },
        ],
      },
    },
    failing: {
      meta: { description: "judges the failure" },
      always: [
        { guard: "canRetry", target: "backingOff" },
        { guard: "isOutage", target: "postponed" },
        { target: "abandoned" },
      ],
    },
    backingOff: {
      meta: { description: "waits before the next attempt", telemetry: { event: "retry" } },
      after: { backoff: "reading" },
    },
    confirming: {
      meta: { description: "removes what the file supersedes on tier 2 and its dead letter" },
      invoke: {
        id: "confirmSegment",
        src: "confirmSegment",
        input: fileInput,
        // The object is confirmed; what is left over here is found again by the reconciler.
        onDone: "offloaded",
      },
    },
    offloaded: { type: "final", meta: { telemetry: { outcome: "ok" } }, entry: ["judgeDone", "emitOffloaded"] },
    present: {
      type: "final",
      meta: { description: "tier 2 held it already, or there was nothing to send", telemetry: { outcome: "ok" } },
      entry: "judgeDone",
    },
    abandoned: {
      type: "final",
      meta: { telemetry: { outcome: "error", reason: "reason" } },
      entry: ["judge", "emitAbandoned"],
    },
    postponed: {
      type: "final",
      meta: { description: "tier 2 is unreachable", telemetry: { outcome: "error", reason: "reason" } },
      entry: "judge",
    },
    interrupted: { type: "final", meta: { telemetry: { outcome: "cancelled" } } },
  },
  output: ({ context }) => context.verdict,
});
