// One backup on its way to tier 2, and the maintenance that follows every backup.
//   Y1. `relay.finished` is emitted only after the backup was copied and its verification on tier 2 found no damage.
//   Y2. Corruption on either tier ends the relay: nothing is expired and nothing unpinned then.
//   Y3. A backup is unpinned on tier 1 only after its verification on tier 2.
//   Y4. WAL that is not there yet defers the relay; it is never counted as a failure.
//   Y5. Tier 1's maintenance never fails the relay.
//   Y6. A stop leaves no verdict: the task stays what it was.
import { assign, emit, setup } from "xstate";
import type { FactOf } from "../domain/facts.ts";
import { type BackupTask, isTierWide, type OffloadTask, type TaskVerdict } from "../domain/offload-task.ts";
import type { Failure, Outcome } from "../domain/outcome.ts";
import type { StateMeta } from "../telemetry/state-telemetry.ts";
import { unprovided } from "./unprovided.ts";

/** `one`: this backup is to be relayed; `none`: nothing (left) to relay, or each waiting one got a task of its own. */
export type Choice = { kind: "one"; backup: string } | { kind: "none" };
export type Verification = { corrupt: string[] };
type BackupInput = { cluster: string; backup: string };
type TaskInput = BackupInput & { task: BackupTask };
type Context = {
  task: OffloadTask;
  cluster: string;
  backup: string;
  traceparent: string;
  looks: number;
  code: string;
  reason: string;
  fatal: boolean;
  verdict: TaskVerdict;
};

/** Looks for the WAL, `lookMs` apart, before the task is put off. */
export const maxLooks = 12;
export const lookMs = 5_000;

const backupTask = ({ task }: Context): BackupTask => task.backup ?? { sendToTier2: false };
const backupInput = ({ context }: { context: Context }): BackupInput => ({
  cluster: context.cluster,
  backup: context.backup,
});
const taskInput = ({ context }: { context: Context }): TaskInput => ({
  ...backupInput({ context }),
  task: backupTask(context),
});
const failureIn = (outcome: Outcome<unknown>): Failure =>
  outcome.kind === "ok" ? { kind: "fatal", code: "KLIO-BUG", reason: "no failure" } : outcome;

export const backupRelay = setup({
  types: {
    input: {} as { task: OffloadTask },
    context: {} as Context,
    events: {} as { type: "shutdown.requested" },
    emitted: {} as FactOf<"relay.verified"> | FactOf<"relay.corrupt"> | FactOf<"relay.finished">,
    output: {} as TaskVerdict,
    meta: {} as StateMeta,
  },
  actors: {
    /** Also nothing of a backup that is no longer there, whose WAL may never come. `looks`: 1 at the first. */
    findMissingWal: unprovided<Outcome<{ missing: number; first: string }>, TaskInput & { looks: number }>(
      "findMissingWal",
    ),
    chooseBackup: unprovided<Outcome<Choice>, TaskInput>("chooseBackup"),
    verifySource: unprovided<Outcome<Verification>, BackupInput>("verifySource"),
    copyBackup: unprovided<Outcome<{ bytes: number }>, BackupInput>("copyBackup"),
    verifyCopy: unprovided<Outcome<Verification>, BackupInput>("verifyCopy"),
    applyRetention: unprovided<Outcome<void>, TaskInput>("applyRetention"),
    unpinBackup: unprovided<Outcome<void>, BackupInput>("unpinBackup"),
    maintainTier1: unprovided<Outcome<void>, BackupInput>("maintainTier1"),
  },
  actions: {
    countLook: assign({ looks: ({ context }) => context.looks + 1 }),
    keepMissing: assign((_, outcome: Outcome<{ missing: number; first: string }>) => ({
      reason:
        outcome.kind === "ok" ? `${outcome.value.missing} WAL files are missing, first ${outcome.value.first}` : "",
    })),
    keepBackup: assign(({ context }, outcome: Outcome<Choice>) => ({
      backup: outcome.kind === "ok" && outcome.value.kind === "one" ? outcome.value.backup : context.backup,
    })),
    keepFailure: assign((_, outcome: Outcome<unknown>) => {
      const { kind, code, reason } = failureIn(outcome);
      return { fatal: kind === "fatal", code, reason };
    }),
    keepCorruption: assign((_, { outcome, tier }: { outcome: Outcome<Verification>; tier: string }) => ({
      fatal: true,
      code: "KLIO-BACKUP-CORRUPT",
      reason: outcome.kind === "ok" ? `${tier}: ${outcome.value.corrupt.slice(0, 3).join("; ")}` : "",
    })),
    judgeDone: assign({ verdict: ({ context }): TaskVerdict => ({ kind: "done", name: context.backup }) }),
    judgeDeferred: assign({ verdict: ({ context }): TaskVerdict => ({ kind: "deferred", reason: context.reason }) }),
    judgeFailed: assign({
      verdict: ({ context: { fatal, code, reason } }): TaskVerdict => ({
        kind: "failed",
        scope: isTierWide(code) ? "tier" : "task",
        fatal,
        code,
        reason,
      }),
    }),
    emitVerified: emit(({ context: { cluster, backup } }) => ({ type: "relay.verified", cluster, backup }) as const),
    emitCorrupt: emit(
      ({ context: { cluster, backup, reason } }) => ({ type: "relay.corrupt", cluster, backup, reason }) as const,
    ),
    emitFinished: emit(({ context: { cluster, backup } }) => ({ type: "relay.finished", cluster, backup }) as const),
  },
  guards: {
    hasRange: ({ context }) => backupTask(context).range !== undefined,
    isWanted: ({ context }) => backupTask(context).sendToTier2,
    isComplete: (_, outcome: Outcome<{ missing: number }>) => outcome.kind === "ok" && outcome.value.missing === 0,
    canLook: ({ context }, outcome: Outcome<{ missing: number }>) => outcome.kind === "ok" && context.looks < maxLooks,
    isOk: (_, outcome: Outcome<unknown>) => outcome.kind === "ok",
    isOne: (_, outcome: Outcome<Choice>) => outcome.kind === "ok" && outcome.value.kind === "one",
    isSound: (_, outcome: Outcome<Verification>) => outcome.kind === "ok" && outcome.value.corrupt.length === 0,
    isCorrupt: (_, outcome: Outcome<Verification>) => outcome.kind === "ok" && outcome.value.corrupt.length > 0,
    hasFailed: ({ context }) => context.code !== "",
    isFatal: ({ context }) => context.fatal,
  },
  delays: { look: lookMs },
}).createMachine({
  id: "backupRelay",
  context: ({ input }) => ({
    ...input,
    cluster: input.task.cluster,
    backup: input.task.name,
    traceparent: input.task.traceparent,
    looks: 0,
    code: "",
    reason: "",
    fatal: false,
    verdict: { kind: "interrupted" },
  }),
  initial: "awaitingWal",
  on: { "shutdown.requested": ".interrupted" },
  states: {
    awaitingWal: {
      meta: { description: "is the WAL range of the backup stored on tier 1?" },
      initial: "deciding",
      states: {
        deciding: { always: [{ guard: "hasRange", target: "looking" }, { target: "#backupRelay.relaying" }] },
        looking: {
          entry: "countLook",
          invoke: {
            id: "findMissingWal",
            src: "findMissingWal",
            input: ({ context }) => ({ ...taskInput({ context }), looks: context.looks }),
            onDone: [
              { guard: { type: "isComplete", params: ({ event }) => event.output }, target: "#backupRelay.relaying" },
              {
                guard: { type: "canLook", params: ({ event }) => event.output },
                target: "waiting",
                actions: { type: "keepMissing", params: ({ event }) => event.output },
              },
              {
                guard: { type: "isOk", params: ({ event }) => event.output },
                target: "#backupRelay.deferred",
                actions: { type: "keepMissing", params: ({ event }) => event.output },
              },
              {
                target: "#backupRelay.failed",
                actions: { type: "keepFailure", params: ({ event }) => event.output },
              },
            ],
          },
        },
        waiting: { after: { look: "looking" } },
      },
    },
    relaying: {
      meta: {
        description: "copies, verifies, and tidies up",
        telemetry: {
          span: "tier2_backup",
          tracer: "klio.consumer",
          newTrace: true,
          linkFrom: "traceparent",
          attributes: { cluster_name: "cluster", "backup.name": "backup" },
        },
      },
      initial: "deciding",
      states: {
        deciding: { always: [{ guard: "isWanted", target: "choosing" }, { target: "maintaining" }] },
        choosing: {
          meta: { description: "finds the backup on both tiers" },
          invoke: {
            id: "chooseBackup",
            src: "chooseBackup",
            input: taskInput,
            onDone: [
              {
                guard: { type: "isOne", params: ({ event }) => event.output },
                target: "verifyingSource",
                actions: { type: "keepBackup", params: ({ event }) => event.output },
              },
              { guard: { type: "isOk", params: ({ event }) => event.output }, target: "maintaining" },
              {
                // Also without tier 2 the tier that is there is maintained (Y5).
                target: "maintaining",
                actions: { type: "keepFailure", params: ({ event }) => event.output },
              },
            ],
          },
        },
        verifyingSource: {
          meta: { description: "is the backup sound on tier 1?" },
          invoke: {
            id: "verifySource",
            src: "verifySource",
            input: backupInput,
            onDone: [
              { guard: { type: "isSound", params: ({ event }) => event.output }, target: "copying" },
              {
                guard: { type: "isCorrupt", params: ({ event }) => event.output },
                target: "corrupt",
                actions: {
                  type: "keepCorruption",
                  params: ({ event }) => ({ outcome: event.output, tier: "tier 1" }),
                },
              },
              { target: "broken", actions: { type: "keepFailure", params: ({ event }) => event.output } },
            ],
          },
        },
        copying: {
          meta: {
            description: "copies the backup's snapshots to tier 2",
            telemetry: { span: "tier2_backup_migrate", tracer: "klio.consumer" },
          },
          invoke: {
            id: "copyBackup",
            src: "copyBackup",
            input: backupInput,
            onDone: [
              { guard: { type: "isOk", params: ({ event }) => event.output }, target: "verifying" },
              { target: "broken", actions: { type: "keepFailure", params: ({ event }) => event.output } },
            ],
          },
        },
        verifying: {
          meta: {
            description: "reads the copy back",
            telemetry: { span: "tier2_backup_verify", tracer: "klio.consumer" },
          },
          invoke: {
            id: "verifyCopy",
            src: "verifyCopy",
            input: backupInput,
            onDone: [
              {
                guard: { type: "isSound", params: ({ event }) => event.output },
                target: "applyingRetention",
                actions: "emitVerified",
              },
              {
                guard: { type: "isCorrupt", params: ({ event }) => event.output },
                target: "corrupt",
                actions: [
                  { type: "keepCorruption", params: ({ event }) => ({ outcome: event.output, tier: "tier 2" }) },
                  "emitCorrupt",
                ],
              },
              { target: "broken", actions: { type: "keepFailure", params: ({ event }) => event.output } },
            ],
          },
        },
        applyingRetention: {
          meta: {
            description: "expires backups on tier 2 and prunes its WAL",
            telemetry: { span: "tier2_backup_retention", tracer: "klio.consumer" },
          },
          invoke: {
            id: "applyRetention",
            src: "applyRetention",
            input: taskInput,
            onDone: [
              { guard: { type: "isOk", params: ({ event }) => event.output }, target: "unpinning" },
              { target: "broken", actions: { type: "keepFailure", params: ({ event }) => event.output } },
            ],
          },
        },
        unpinning: {
          meta: { description: "lets tier 1 expire the backup from now on" },
          invoke: {
            id: "unpinBackup",
            src: "unpinBackup",
            input: backupInput,
            onDone: [
              {
                guard: { type: "isOk", params: ({ event }) => event.output },
                target: "maintaining",
                actions: "emitFinished",
              },
              { target: "broken", actions: { type: "keepFailure", params: ({ event }) => event.output } },
            ],
          },
        },
        maintaining: {
          meta: { description: "expires backups on tier 1 and prunes its WAL" },
          // Y5: whatever came of it, the relay's own verdict stands.
          invoke: { id: "maintainTier1", src: "maintainTier1", input: backupInput, onDone: "judging" },
        },
        judging: {
          always: [{ guard: "hasFailed", target: "broken" }, { target: "settled" }],
        },
        settled: { type: "final", meta: { telemetry: { outcome: "ok" } } },
        corrupt: { type: "final", meta: { telemetry: { outcome: "error", reason: "reason" } } },
        broken: { type: "final", meta: { telemetry: { outcome: "error", reason: "reason" } } },
      },
      onDone: [{ guard: "hasFailed", target: "failed" }, { target: "relayed" }],
    },
    failed: { always: [{ guard: "isFatal", target: "deadLettered" }, { target: "postponed" }] },
    relayed: { type: "final", entry: "judgeDone" },
    deferred: {
      type: "final",
      meta: { description: "WAL is missing: looked for again later" },
      entry: "judgeDeferred",
    },
    deadLettered: { type: "final", meta: { description: "only a person can help" }, entry: "judgeFailed" },
    postponed: { type: "final", meta: { description: "tried again later" }, entry: "judgeFailed" },
    interrupted: { type: "final" },
  },
  output: ({ context }) => context.verdict,
});
