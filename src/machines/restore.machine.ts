// A restore: which backup, can the target be reached from it, fetch it, make it startable.
//   S1. Nothing is written before `checkingReachable` said that the target can be reached from the chosen backup.
//   S2. The control file is fetched after all other data, and `restored` follows `finishing` only: until then PostgreSQL
//       would refuse to start on what is there.
//   S3. Tiers are tried in the given order. One is left when it has no suitable backup or fails; each time the fact
//       `tier.left` tells why.
//   S4. Once something was written, the backup stays the chosen one, whichever tier the rest comes from, and every end but
//       `restored` goes through a state that removes what was written.
//   S5. `refused` and a `cancelled` from before the first write leave the destination as it was.
//   S6. Fetching from one tier is attempted at most `maxAttempts` times, the wait before attempt n + 1 being
//       `firstMs * 2 ** (n - 1)`, at most `limitMs`. A failure of the destination itself is not taken to the next tier.
import { assign, emit, setup } from "xstate";
import type { Failure, Outcome } from "../domain/outcome.ts";
import type { TierName } from "../domain/snapshots.ts";
import type { ErrorCode } from "../errors.ts";
import type { StateMeta } from "../telemetry/state-telemetry.ts";
import { unprovided } from "./unprovided.ts";

export type RestoreInput = {
  cluster: string;
  tiers: [TierName, ...TierName[]];
  maxAttempts: number;
  firstMs: number;
  limitMs: number;
};
export type ChooseAnswer = { kind: "chosen"; backup: string } | { kind: "none"; reasons: string[] } | Failure;
export type ReachAnswer = { kind: "reachable" } | { kind: "unreachable"; missing: string[] } | Failure;
export type FetchAnswer = Outcome<{ bytes: number; files: number }>;
/** `backup`: empty unless an earlier tier already gave part of it. */
export type TierAndBackup = { tier: TierName; backup: string };
export type RestoreFact =
  | { type: "backup.chosen"; tier: TierName; backup: string }
  | { type: "tier.left"; tier: TierName; reason: string }
  | { type: "fetch.interrupted"; tier: TierName; reason: string };
export type RestoreEnd = "restored" | "refused" | "failed" | "cancelled";
export type RestoreOutput = {
  kind: RestoreEnd;
  tier: TierName;
  backup: string;
  bytes: number;
  files: number;
  code: ErrorCode;
  reasons: string[];
};

type Context = RestoreInput & Omit<RestoreOutput, "kind"> & { end: RestoreEnd; at: number; attempt: number };

/** The destination is to blame: another tier cannot help. */
const LOCAL: readonly ErrorCode[] = ["KLIO-RESTORE-TARGET", "KLIO-DISK-FULL"];
const isFailure = (answer: { kind: string }): answer is Failure =>
  answer.kind === "retryable" || answer.kind === "fatal";

export const restore = setup({
  types: {
    input: {} as RestoreInput,
    context: {} as Context,
    events: {} as { type: "shutdown.requested" },
    emitted: {} as RestoreFact,
    output: {} as RestoreOutput,
    meta: {} as StateMeta,
  },
  actors: {
    chooseBackup: unprovided<ChooseAnswer, TierAndBackup>("chooseBackup"),
    checkReachable: unprovided<ReachAnswer, TierAndBackup>("checkReachable"),
    fetchTablespaces: unprovided<FetchAnswer, TierAndBackup>("fetchTablespaces"),
    fetchData: unprovided<FetchAnswer, TierAndBackup>("fetchData"),
    fetchControlFile: unprovided<FetchAnswer, TierAndBackup>("fetchControlFile"),
    finishRestore: unprovided<Outcome<null>, TierAndBackup>("finishRestore"),
    clearDestination: unprovided<Outcome<null>, null>("clearDestination"),
  },
  actions: {
    keepChosen: assign({
      backup: ({ context }, answer: ChooseAnswer) => (answer.kind === "chosen" ? answer.backup : context.backup),
    }),
    tellChosen: emit(({ context }) => ({
      type: "backup.chosen" as const,
      tier: context.tier,
      backup: context.backup,
    })),
    addFetched: assign(({ context }, answer: FetchAnswer) =>
      answer.kind === "ok"
        ? { bytes: context.bytes + answer.value.bytes, files: context.files + answer.value.files }
        : {},
    ),
    noteReasons: assign(({ context }, answer: ChooseAnswer | ReachAnswer | FetchAnswer | Outcome<null>) => {
      const told = (reasons: string[], code: ErrorCode) => ({
        code,
        reasons: [...context.reasons, ...reasons.map((reason) => `${context.tier}: ${reason}`)],
      });
      if (isFailure(answer))
        return LOCAL.includes(answer.code)
          ? { code: answer.code, reasons: [...context.reasons, answer.reason] }
          : told([answer.reason], answer.code);
      if (answer.kind === "none") return told(answer.reasons, "KLIO-RESTORE-REFUSED");
      if (answer.kind === "unreachable")
        return { code: "KLIO-RESTORE-REFUSED" as const, reasons: [...context.reasons, ...answer.missing] };
      return {};
    }),
    tellLeft: emit(({ context }) => ({
      type: "tier.left" as const,
      tier: context.tier,
      reason: context.reasons.at(-1) ?? "",
    })),
    tellInterrupted: emit(({ context }, answer: FetchAnswer | Outcome<null>) => ({
      type: "fetch.interrupted" as const,
      tier: context.tier,
      reason: isFailure(answer) ? answer.reason : "",
    })),
    nextTier: assign(({ context: { at, tier, tiers } }) => ({ at: at + 1, tier: tiers[at + 1] ?? tier, attempt: 1 })),
    forgetBackup: assign({ backup: "" }),
    beginAttempt: assign({ attempt: ({ context }) => context.attempt + 1 }),
    forgetFetched: assign({ bytes: 0, files: 0 }),
    endWith: assign({ end: (_, { end }: { end: RestoreEnd }) => end }),
    tellCancelled: assign({
      code: "KLIO-CANCELLED",
      reasons: ({ context }) => [...context.reasons, "the restore was cancelled"],
    }),
  },
  guards: {
    isChosen: (_, answer: ChooseAnswer) => answer.kind === "chosen",
    isReachable: (_, answer: ReachAnswer) => answer.kind === "reachable",
    isUnreachable: (_, answer: ReachAnswer) => answer.kind === "unreachable",
    isOk: (_, answer: FetchAnswer | Outcome<null>) => answer.kind === "ok",
    hasNextTier: ({ context }) => context.at + 1 < context.tiers.length,
    canTakeOver: ({ context }) => context.at + 1 < context.tiers.length && !LOCAL.includes(context.code),
    isElsewhere: ({ context }, answer: ReachAnswer) =>
      isFailure(answer) && !LOCAL.includes(answer.code) && context.at + 1 < context.tiers.length,
    canRetry: ({ context }, answer: FetchAnswer | Outcome<null>) =>
      answer.kind === "retryable" && context.attempt < context.maxAttempts,
  },
  delays: { backoff: ({ context }) => Math.min(context.limitMs, context.firstMs * 2 ** (context.attempt - 1)) },
}).createMachine({
  id: "restore",
  context: ({ input }) => ({
    ...input,
    at: 0,
    tier: input.tiers[0],
    attempt: 1,
    backup: "",
    bytes: 0,
    files: 0,
    code: "KLIO-RESTORE-REFUSED",
    reasons: [],
    end: "refused",
  }),
  meta: {
    telemetry: {
      span: "restore",
      tracer: "klio.backup",
      attributes: { cluster_name: "cluster", "backup.name": "backup", tier: "tier" },
    },
  },
  initial: "choosing",
  output: ({ context }) => ({
    kind: context.end,
    tier: context.tier,
    backup: context.backup,
    bytes: context.bytes,
    files: context.files,
    code: context.code,
    reasons: context.reasons,
  }),
  states: {
    choosing: {
      meta: { description: "looking for the latest backup that the target can be reached from" },
      on: { "shutdown.requested": { target: "cancelled", actions: "tellCancelled" } },
      invoke: {
        id: "chooseBackup",
        src: "chooseBackup",
        input: ({ context }) => ({ tier: context.tier, backup: context.backup }),
        onDone: [
          {
            guard: { type: "isChosen", params: ({ event }) => event.output },
            target: "checkingReachable",
            actions: [{ type: "keepChosen", params: ({ event }) => event.output }, "tellChosen"],
          },
          {
            guard: "hasNextTier",
            target: "choosing",
            reenter: true,
            actions: [{ type: "noteReasons", params: ({ event }) => event.output }, "tellLeft", "nextTier"],
          },
          { target: "refused", actions: { type: "noteReasons", params: ({ event }) => event.output } },
        ],
      },
    },
    checkingReachable: {
      meta: { description: "is the destination free, and is all WAL from the backup to the target stored" },
      on: { "shutdown.requested": { target: "cancelled", actions: "tellCancelled" } },
      invoke: {
        id: "checkReachable",
        src: "checkReachable",
        input: ({ context }) => ({ tier: context.tier, backup: context.backup }),
        onDone: [
          { guard: { type: "isReachable", params: ({ event }) => event.output }, target: "writing" },
          {
            guard: { type: "isElsewhere", params: ({ event }) => event.output },
            target: "choosing",
            actions: [
              { type: "noteReasons", params: ({ event }) => event.output },
              "tellLeft",
              "nextTier",
              "forgetBackup",
            ],
          },
          { target: "refused", actions: { type: "noteReasons", params: ({ event }) => event.output } },
        ],
      },
    },
    writing: {
      meta: { description: "the destination is being filled" },
      initial: "fetchingTablespaces",
      on: { "shutdown.requested": { target: "withdrawing", actions: "tellCancelled" } },
      states: {
        fetchingTablespaces: {
          meta: { telemetry: { span: "restore_tablespaces", tracer: "klio.backup" } },
          invoke: {
            id: "fetchTablespaces",
            src: "fetchTablespaces",
            input: ({ context }) => ({ tier: context.tier, backup: context.backup }),
            onDone: [
              {
                guard: { type: "isOk", params: ({ event }) => event.output },
                target: "fetchingData",
                actions: { type: "addFetched", params: ({ event }) => event.output },
              },
              {
                guard: { type: "canRetry", params: ({ event }) => event.output },
                target: "#restore.backingOff",
                actions: { type: "tellInterrupted", params: ({ event }) => event.output },
              },
              {
                target: "#restore.clearing",
                actions: { type: "noteReasons", params: ({ event }) => event.output },
              },
            ],
          },
        },
        fetchingData: {
          meta: { telemetry: { span: "restore_data", tracer: "klio.backup" } },
          invoke: {
            id: "fetchData",
            src: "fetchData",
            input: ({ context }) => ({ tier: context.tier, backup: context.backup }),
            onDone: [
              {
                guard: { type: "isOk", params: ({ event }) => event.output },
                target: "fetchingControlFile",
                actions: { type: "addFetched", params: ({ event }) => event.output },
              },
              {
                guard: { type: "canRetry", params: ({ event }) => event.output },
                target: "#restore.backingOff",
                actions: { type: "tellInterrupted", params: ({ event }) => event.output },
              },
              {
                target: "#restore.clearing",
                actions: { type: "noteReasons", params: ({ event }) => event.output },
              },
            ],
          },
        },
        fetchingControlFile: {
          meta: { description: "last, so that nothing can start on an incomplete copy" },
          invoke: {
            id: "fetchControlFile",
            src: "fetchControlFile",
            input: ({ context }) => ({ tier: context.tier, backup: context.backup }),
            onDone: [
              {
                guard: { type: "isOk", params: ({ event }) => event.output },
                target: "finishing",
                actions: { type: "addFetched", params: ({ event }) => event.output },
              },
              {
                guard: { type: "canRetry", params: ({ event }) => event.output },
                target: "#restore.backingOff",
                actions: { type: "tellInterrupted", params: ({ event }) => event.output },
              },
              {
                target: "#restore.clearing",
                actions: { type: "noteReasons", params: ({ event }) => event.output },
              },
            ],
          },
        },
        finishing: {
          meta: { description: "label, tablespace map, directories, recovery settings; all of it made durable" },
          invoke: {
            id: "finishRestore",
            src: "finishRestore",
            input: ({ context }) => ({ tier: context.tier, backup: context.backup }),
            onDone: [
              { guard: { type: "isOk", params: ({ event }) => event.output }, target: "#restore.restored" },
              {
                guard: { type: "canRetry", params: ({ event }) => event.output },
                target: "#restore.backingOff",
                actions: { type: "tellInterrupted", params: ({ event }) => event.output },
              },
              {
                target: "#restore.clearing",
                actions: { type: "noteReasons", params: ({ event }) => event.output },
              },
            ],
          },
        },
      },
    },
    backingOff: {
      meta: { description: "the fetch was interrupted; waiting before it starts again" },
      after: { backoff: { target: "writing", actions: ["beginAttempt", "forgetFetched"] } },
      on: { "shutdown.requested": { target: "withdrawing", actions: "tellCancelled" } },
    },
    clearing: {
      meta: { description: "removing what was written; then the next tier, if there is one" },
      invoke: {
        id: "clearDestination",
        src: "clearDestination",
        input: null,
        onDone: [
          {
            guard: "canTakeOver",
            target: "choosing",
            actions: ["tellLeft", "nextTier", "forgetFetched"],
          },
          { target: "failed" },
        ],
      },
      on: { "shutdown.requested": { target: "withdrawing", actions: "tellCancelled" } },
    },
    withdrawing: {
      meta: { description: "removing what was written, after a cancellation" },
      invoke: { id: "clearDestination", src: "clearDestination", input: null, onDone: "cancelled" },
    },
    restored: {
      type: "final",
      entry: { type: "endWith", params: { end: "restored" } },
      meta: { telemetry: { outcome: "ok" } },
    },
    refused: {
      type: "final",
      entry: { type: "endWith", params: { end: "refused" } },
      meta: { telemetry: { outcome: "error" } },
    },
    failed: {
      type: "final",
      entry: { type: "endWith", params: { end: "failed" } },
      meta: { telemetry: { outcome: "error" } },
    },
    cancelled: {
      type: "final",
      entry: { type: "endWith", params: { end: "cancelled" } },
      meta: { telemetry: { outcome: "cancelled" } },
    },
  },
});
