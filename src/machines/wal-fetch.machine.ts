// One WAL file on its way back to PostgreSQL: from the spool, else from a tier, else the unfinished file of it.
//   F1. `missing` is entered only when every tier said that it has neither the file nor, if asked for, an unfinished one. A
//       tier that could not answer makes it `failed`: PostgreSQL would end its recovery at a file that is only out of reach.
//   F2. Per attempt each tier is asked once, in the given order, and no further after one that had the file.
//   F3. The unfinished file is asked for only after every tier lacked the whole one.
//   F4. Attempts are at most `maxAttempts`, the wait before attempt n + 1 is `firstMs * 2 ** (n - 1)`, at most `limitMs`;
//       when no failure may pass by itself, nothing is tried again.
//   F5. Further files are fetched ahead only behind a whole one, and only when asked to.
import { assign, setup } from "xstate";
import type { Failure } from "../domain/outcome.ts";
import type { TierName } from "../domain/snapshots.ts";
import type { StateMeta } from "../telemetry/state-telemetry.ts";
import { unprovided } from "./unprovided.ts";

export type WalFetchInput = {
  cluster: string;
  name: string;
  tiers: [TierName, ...TierName[]];
  /** An unfinished file, padded with zeros, will do. */
  partial: boolean;
  prefetch: boolean;
  maxAttempts: number;
  firstMs: number;
  limitMs: number;
};
export type SpoolAnswer = { kind: "taken"; segmentBytes: number } | { kind: "absent" };
/** `bytes`: of the file before padding. `segmentBytes`: 0 for a file that is no segment. */
export type DownloadAnswer =
  | { kind: "stored"; tier: TierName; bytes: number; segmentBytes: number }
  | { kind: "missing" }
  | Failure;
export type WalFetchOutput =
  | { kind: "fetched"; from: TierName | "spool"; partial: boolean; bytes: number; segmentBytes: number }
  | { kind: "missing" }
  | Failure;

type Context = WalFetchInput & {
  at: number;
  attempt: number;
  failures: Failure[];
  /** Tier, or "spool"; empty until the file is in place. */
  from: TierName | "spool" | "";
  isPartial: boolean;
  bytes: number;
  segmentBytes: number;
  isMissing: boolean;
};

const cancelled: Failure = { kind: "retryable", code: "KLIO-CANCELLED", reason: "the request was withdrawn" };

export const walFetch = setup({
  types: {
    input: {} as WalFetchInput,
    context: {} as Context,
    events: {} as { type: "shutdown.requested" },
    output: {} as WalFetchOutput,
    meta: {} as StateMeta,
  },
  actors: {
    takeSpooled: unprovided<SpoolAnswer, { name: string }>("takeSpooled"),
    downloadWal: unprovided<DownloadAnswer, { name: string; tier: TierName }>("downloadWal"),
    downloadPartial: unprovided<DownloadAnswer, { name: string; tiers: TierName[] }>("downloadPartial"),
    fetchAhead: unprovided<null, { name: string; segmentBytes: number }>("fetchAhead"),
  },
  actions: {
    keepSpooled: assign((_, answer: SpoolAnswer) =>
      answer.kind === "taken"
        ? { from: "spool" as const, bytes: answer.segmentBytes, segmentBytes: answer.segmentBytes }
        : {},
    ),
    keepStored: assign((_, answer: DownloadAnswer) =>
      answer.kind === "stored" ? { from: answer.tier, bytes: answer.bytes, segmentBytes: answer.segmentBytes } : {},
    ),
    tellPartial: assign({ isPartial: true }),
    noteAnswer: assign({
      failures: ({ context }, answer: DownloadAnswer) =>
        answer.kind === "retryable" || answer.kind === "fatal" ? [...context.failures, answer] : context.failures,
    }),
    nextTier: assign({ at: ({ context }) => context.at + 1 }),
    tellMissing: assign({ isMissing: true }),
    tellCancelled: assign({ failures: ({ context }) => [...context.failures, cancelled] }),
    beginAttempt: assign({ at: 0, failures: [], attempt: ({ context }) => context.attempt + 1 }),
  },
  guards: {
    isTaken: (_, answer: SpoolAnswer) => answer.kind === "taken",
    isTakenAndAhead: ({ context }, answer: SpoolAnswer) => answer.kind === "taken" && context.prefetch,
    isStored: (_, answer: DownloadAnswer) => answer.kind === "stored",
    isStoredAndAhead: ({ context }, answer: DownloadAnswer) => answer.kind === "stored" && context.prefetch,
    hasNextTier: ({ context }) => context.at + 1 < context.tiers.length,
    isMissingEverywhere: ({ context }, answer: DownloadAnswer) =>
      answer.kind === "missing" && context.failures.length === 0,
    isPartialWanted: ({ context }, answer: DownloadAnswer) =>
      answer.kind === "missing" && context.failures.length === 0 && context.partial,
    canRetry: ({ context }, answer: DownloadAnswer) =>
      context.attempt < context.maxAttempts &&
      (answer.kind === "retryable" || context.failures.some(({ kind }) => kind === "retryable")),
  },
  delays: {
    backoff: ({ context }) => Math.min(context.limitMs, context.firstMs * 2 ** (context.attempt - 1)),
  },
}).createMachine({
  id: "walFetch",
  context: ({ input }) => ({
    ...input,
    at: 0,
    attempt: 1,
    failures: [],
    from: "",
    isPartial: false,
    bytes: 0,
    segmentBytes: 0,
    isMissing: false,
  }),
  meta: {
    telemetry: {
      span: "fetch_wal",
      tracer: "klio.wal_client",
      attributes: { cluster_name: "cluster", wal_name: "name", tier: "from" },
    },
  },
  initial: "spooled",
  output: ({ context }): WalFetchOutput => {
    const { from, isPartial, bytes, segmentBytes, isMissing, failures } = context;
    if (from !== "") return { kind: "fetched", from, partial: isPartial, bytes, segmentBytes };
    if (isMissing) return { kind: "missing" };
    return mergeFailures(failures);
  },
  states: {
    spooled: {
      meta: { description: "looking for the file among those fetched ahead" },
      on: { "shutdown.requested": { target: "cancelled", actions: "tellCancelled" } },
      invoke: {
        id: "takeSpooled",
        src: "takeSpooled",
        input: ({ context: { name } }) => ({ name }),
        onDone: [
          {
            guard: { type: "isTakenAndAhead", params: ({ event }) => event.output },
            target: "prefetching",
            actions: { type: "keepSpooled", params: ({ event }) => event.output },
          },
          {
            guard: { type: "isTaken", params: ({ event }) => event.output },
            target: "fetched",
            actions: { type: "keepSpooled", params: ({ event }) => event.output },
          },
          { target: "downloading" },
        ],
      },
    },
    downloading: {
      meta: { description: "asking the tiers for the whole file, one after the other" },
      on: { "shutdown.requested": { target: "cancelled", actions: "tellCancelled" } },
      invoke: {
        id: "downloadWal",
        src: "downloadWal",
        input: ({ context: { name, tiers, at } }) => ({ name, tier: tiers[at] ?? tiers[0] }),
        onDone: [
          {
            guard: { type: "isStoredAndAhead", params: ({ event }) => event.output },
            target: "prefetching",
            actions: { type: "keepStored", params: ({ event }) => event.output },
          },
          {
            guard: { type: "isStored", params: ({ event }) => event.output },
            target: "fetched",
            actions: { type: "keepStored", params: ({ event }) => event.output },
          },
          {
            guard: "hasNextTier",
            target: "downloading",
            reenter: true,
            actions: [{ type: "noteAnswer", params: ({ event }) => event.output }, "nextTier"],
          },
          { guard: { type: "isPartialWanted", params: ({ event }) => event.output }, target: "downloadingPartial" },
          { guard: { type: "isMissingEverywhere", params: ({ event }) => event.output }, target: "missing" },
          {
            guard: { type: "canRetry", params: ({ event }) => event.output },
            target: "backingOff",
            actions: { type: "noteAnswer", params: ({ event }) => event.output },
          },
          { target: "failed", actions: { type: "noteAnswer", params: ({ event }) => event.output } },
        ],
      },
    },
    downloadingPartial: {
      meta: { description: "asking all tiers for the unfinished file; the longest is padded with zeros" },
      on: { "shutdown.requested": { target: "cancelled", actions: "tellCancelled" } },
      invoke: {
        id: "downloadPartial",
        src: "downloadPartial",
        input: ({ context: { name, tiers } }) => ({ name, tiers }),
        onDone: [
          {
            guard: { type: "isStored", params: ({ event }) => event.output },
            target: "fetched",
            actions: [{ type: "keepStored", params: ({ event }) => event.output }, "tellPartial"],
          },
          { guard: { type: "isMissingEverywhere", params: ({ event }) => event.output }, target: "missing" },
          {
            guard: { type: "canRetry", params: ({ event }) => event.output },
            target: "backingOff",
            actions: { type: "noteAnswer", params: ({ event }) => event.output },
          },
          { target: "failed", actions: { type: "noteAnswer", params: ({ event }) => event.output } },
        ],
      },
    },
    backingOff: {
      meta: { description: "a tier could not answer; waiting before all are asked again" },
      after: { backoff: { target: "downloading", actions: "beginAttempt" } },
      on: { "shutdown.requested": { target: "cancelled", actions: "tellCancelled" } },
    },
    prefetching: {
      meta: { description: "the file is in place; the next ones are ordered" },
      invoke: {
        id: "fetchAhead",
        src: "fetchAhead",
        input: ({ context: { name, segmentBytes } }) => ({ name, segmentBytes }),
        onDone: "fetched",
      },
      on: { "shutdown.requested": "fetched" },
    },
    fetched: { type: "final", meta: { telemetry: { outcome: "ok" } } },
    missing: { type: "final", entry: "tellMissing", meta: { telemetry: { outcome: "ok" } } },
    failed: { type: "final", meta: { telemetry: { outcome: "error" } } },
    cancelled: { type: "final", meta: { telemetry: { outcome: "cancelled" } } },
  },
});

/** One failure that tells of all: it may pass when one of them may. */
function mergeFailures(failures: readonly Failure[]): Failure {
  const last = failures.findLast(({ code }) => code === "KLIO-CANCELLED") ?? failures.at(-1);
  if (last === undefined) return { kind: "fatal", code: "KLIO-TIER-MISSING", reason: "no tier to ask" };
  const worst = failures.find(({ kind }) => kind === "retryable") ?? last;
  return {
    kind: worst.kind,
    code: last.code === "KLIO-CANCELLED" ? last.code : worst.code,
    reason: [...new Set(failures.map(({ reason }) => reason))].join("; "),
  };
}
