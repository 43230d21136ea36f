// A base backup, from its start on PostgreSQL to the maintenance after it.
//   B1. The control file is copied after all other data, and the metadata, which alone make the backup exist, are stored
//       after PostgreSQL has left backup mode.
//   B2. `completed` is reached only when the WAL range of the backup is stored (unless nobody waits for it) and no
//       verification found damage.
//   B3. Every end but `completed` goes through a state that abandons what was stored: a failed backup is never listed.
//   B4. Corruption fails the backup at once. Any other failure of the verification is tried again, at most
//       `maxVerifications` times, the wait before attempt n + 1 being `verifyWaitMs * 2 ** (n - 1)`, and then lets the backup
//       succeed unverified.
//   B5. Missing WAL is looked for at most `maxLooks` times, `lookMs` apart.
//   B6. Maintenance never fails a backup, and a stop during it does not either.
import { assign, emit, setup } from "xstate";
import type { Failure, Outcome } from "../domain/outcome.ts";
import type { StateMeta } from "../telemetry/state-telemetry.ts";
import type {
  BackupContext,
  BackupFact,
  BackupInput,
  BackupOutput,
  BackupRole,
  BackupVerification,
  MissingWal,
} from "./base-backup-events.ts";
import { unprovided } from "./unprovided.ts";

const isFailure = (outcome: Outcome<unknown>): outcome is Failure => outcome.kind !== "ok";
const reasonOf = (outcome: Outcome<unknown>): string => (isFailure(outcome) ? outcome.reason : "");

/** Goes on when the answer is ok, else fails with it. */
const thenTo = <Target extends string>(target: Target) =>
  [
    { guard: { type: "isOk", params: ({ event }: Answer) => event.output }, target },
    {
      target: "#baseBackup.active.failing",
      actions: { type: "keepFailure", params: ({ event }: Answer) => event.output },
    },
  ] as const;
type Answer = { event: { output: Outcome<unknown> } };

export const baseBackup = setup({
  types: {
    input: {} as BackupInput,
    context: {} as BackupContext,
    events: {} as { type: "shutdown.requested" },
    emitted: {} as BackupFact,
    output: {} as BackupOutput,
    meta: {} as StateMeta,
  },
  actors: {
    startBackup: unprovided<Outcome<{ role: BackupRole }>, null>("startBackup"),
    copyTablespaces: unprovided<Outcome<null>, null>("copyTablespaces"),
    copyData: unprovided<Outcome<null>, null>("copyData"),
    copyControlFile: unprovided<Outcome<null>, null>("copyControlFile"),
    stopBackup: unprovided<Outcome<null>, null>("stopBackup"),
    storeManifest: unprovided<Outcome<null>, null>("storeManifest"),
    closeBackup: unprovided<Outcome<MissingWal>, null>("closeBackup"),
    verifyBackup: unprovided<Outcome<BackupVerification>, null>("verifyBackup"),
    maintainBackups: unprovided<Outcome<null>, null>("maintainBackups"),
    abandonBackup: unprovided<Outcome<null>, null>("abandonBackup"),
  },
  actions: {
    keepRole: assign({
      role: ({ context }, outcome: Outcome<{ role: BackupRole }>) =>
        outcome.kind === "ok" ? outcome.value.role : context.role,
    }),
    keepFailure: assign(({ context }, outcome: Outcome<unknown>) =>
      isFailure(outcome)
        ? { end: "failed" as const, code: outcome.code, reason: outcome.reason }
        : { end: context.end, code: context.code, reason: context.reason },
    ),
    keepMissing: assign(({ context }, outcome: Outcome<MissingWal>) => ({
      end: "failed" as const,
      code: isFailure(outcome) ? outcome.code : ("KLIO-BACKUP-FAILED" as const),
      reason: isFailure(outcome)
        ? outcome.reason
        : `${outcome.value.missing} WAL files of backup ${context.name} did not reach the server, first ${outcome.value.first}; is its WAL streamed?`,
    })),
    keepCorruption: assign(({ context }, outcome: Outcome<BackupVerification>) => ({
      end: "failed" as const,
      code: "KLIO-BACKUP-CORRUPT" as const,
      reason: `backup ${context.name} is damaged: ${outcome.kind === "ok" ? outcome.value.corrupt.slice(0, 3).join("; ") : ""}`,
    })),
    keepCancelled: assign({ end: "cancelled", code: "KLIO-CANCELLED", reason: "the backup was cancelled" }),
    keepReason: assign({ reason: (_, outcome: Outcome<unknown>) => reasonOf(outcome) }),
    keepUnverified: assign({ unverified: true }),
    keepCompleted: assign({ end: "completed", reason: "" }),
    countLook: assign({ looks: ({ context }) => context.looks + 1 }),
    countVerification: assign({ verifications: ({ context }) => context.verifications + 1 }),
    tellAwaited: emit((_, outcome: Outcome<MissingWal>) => ({
      type: "wal.awaited" as const,
      ...(outcome.kind === "ok" ? outcome.value : { missing: 0, first: outcome.reason }),
    })),
    tellVerified: emit((_, outcome: Outcome<BackupVerification>) => ({
      type: "backup.verified" as const,
      coverage: outcome.kind === "ok" ? outcome.value.coverage : 0,
    })),
    tellVerificationFailed: emit(({ context }) => ({
      type: "verification.failed" as const,
      attempt: context.verifications,
      reason: context.reason,
    })),
    tellUnverified: emit(({ context }) => ({ type: "backup.unverified" as const, reason: context.reason })),
    tellCompleted: emit(({ context: { unverified } }) => ({ type: "backup.completed" as const, unverified })),
    tellMaintenanceFailed: emit(({ context }) => ({ type: "maintenance.failed" as const, reason: context.reason })),
    tellAbandoned: emit((_, outcome: Outcome<null>) => ({
      type: "backup.abandoned" as const,
      reason: reasonOf(outcome),
    })),
  },
  guards: {
    isOk: (_, outcome: Outcome<unknown>) => outcome.kind === "ok",
    isStored: ({ context }, outcome: Outcome<MissingWal>) =>
      outcome.kind === "ok" && (outcome.value.missing === 0 || !context.waitForWals),
    mayLook: ({ context }, outcome: Outcome<MissingWal>) =>
      outcome.kind !== "fatal" && context.looks < context.maxLooks,
    isSound: (_, outcome: Outcome<BackupVerification>) => outcome.kind === "ok" && outcome.value.corrupt.length === 0,
    isCorrupt: (_, outcome: Outcome<BackupVerification>) => outcome.kind === "ok",
    mayVerify: ({ context }) => context.verifications < context.maxVerifications,
  },
  delays: {
    look: ({ context }) => context.lookMs,
    verifyWait: ({ context }) => context.verifyWaitMs * 2 ** (context.verifications - 1),
  },
}).createMachine({
  id: "baseBackup",
  context: ({ input }) => ({
    ...input,
    role: "",
    looks: 0,
    verifications: 0,
    unverified: false,
    end: "failed",
    code: "KLIO-BACKUP-FAILED",
    reason: "",
  }),
  initial: "active",
  states: {
    active: {
      meta: {
        description: "the whole life of one backup",
        telemetry: {
          span: "backup",
          tracer: "klio.backup",
          newTrace: true,
          attributes: { "backup.name": "name", "backup.role": "role" },
          running: "klio.backup.running",
          latestStart: "klio.backup.latest_start_time",
          duration: "klio.backup.latest_duration_seconds",
        },
      },
      initial: "running",
      on: { "shutdown.requested": { target: ".cancelling", actions: "keepCancelled" } },
      states: {
        running: {
          meta: {
            description: "copies the cluster while PostgreSQL is in backup mode",
            telemetry: { span: "backup_run", tracer: "klio.backup" },
          },
          initial: "starting",
          states: {
            starting: {
              meta: { description: "connects, and brings PostgreSQL into backup mode" },
              invoke: {
                id: "startBackup",
                src: "startBackup",
                input: null,
                onDone: [
                  {
                    guard: { type: "isOk", params: ({ event }) => event.output },
                    target: "copyingTablespaces",
                    actions: { type: "keepRole", params: ({ event }) => event.output },
                  },
                  {
                    target: "#baseBackup.active.failing",
                    actions: { type: "keepFailure", params: ({ event }) => event.output },
                  },
                ],
              },
            },
            copyingTablespaces: {
              meta: { description: "snapshots of all tablespaces" },
              invoke: { id: "copyTablespaces", src: "copyTablespaces", input: null, onDone: thenTo("copyingData") },
            },
            copyingData: {
              meta: { description: "snapshot of the data directory" },
              invoke: { id: "copyData", src: "copyData", input: null, onDone: thenTo("copyingControlFile") },
            },
            copyingControlFile: {
              meta: { description: "the control file, last and alone" },
              invoke: { id: "copyControlFile", src: "copyControlFile", input: null, onDone: thenTo("stopping") },
            },
            stopping: {
              meta: { description: "PostgreSQL leaves backup mode and gives label and end" },
              invoke: { id: "stopBackup", src: "stopBackup", input: null, onDone: thenTo("storingManifest") },
            },
            storingManifest: {
              meta: { description: "stores the metadata: from now on the backup exists" },
              invoke: { id: "storeManifest", src: "storeManifest", input: null, onDone: thenTo("awaitingWal") },
            },
            awaitingWal: {
              meta: { description: "until the server has all WAL that a restore of this backup needs" },
              initial: "closing",
              states: {
                closing: {
                  entry: "countLook",
                  invoke: {
                    id: "closeBackup",
                    src: "closeBackup",
                    input: null,
                    onDone: [
                      {
                        guard: { type: "isStored", params: ({ event }) => event.output },
                        target: "#baseBackup.active.verifying",
                      },
                      {
                        guard: { type: "mayLook", params: ({ event }) => event.output },
                        target: "waiting",
                        actions: { type: "tellAwaited", params: ({ event }) => event.output },
                      },
                      {
                        target: "#baseBackup.active.failing",
                        actions: { type: "keepMissing", params: ({ event }) => event.output },
                      },
                    ],
                  },
                },
                waiting: { after: { look: "closing" } },
              },
            },
          },
        },
        verifying: {
          meta: {
            description: "reads the stored backup back",
            telemetry: { span: "backup_verify", tracer: "klio.backup" },
          },
          initial: "reading",
          states: {
            reading: {
              entry: "countVerification",
              invoke: {
                id: "verifyBackup",
                src: "verifyBackup",
                input: null,
                onDone: [
                  {
                    guard: { type: "isSound", params: ({ event }) => event.output },
                    target: "sound",
                    actions: { type: "tellVerified", params: ({ event }) => event.output },
                  },
                  {
                    guard: { type: "isCorrupt", params: ({ event }) => event.output },
                    target: "corrupt",
                    actions: [
                      { type: "keepCorruption", params: ({ event }) => event.output },
                      { type: "tellVerified", params: ({ event }) => event.output },
                    ],
                  },
                  {
                    guard: "mayVerify",
                    target: "waiting",
                    actions: [{ type: "keepReason", params: ({ event }) => event.output }, "tellVerificationFailed"],
                  },
                  {
                    target: "unverified",
                    actions: [
                      { type: "keepReason", params: ({ event }) => event.output },
                      "keepUnverified",
                      "tellUnverified",
                    ],
                  },
                ],
              },
            },
            waiting: {
              meta: {
                description: "could not be read, though nothing is known to be damaged",
                telemetry: { event: "verification.failed", reason: "reason" },
              },
              after: { verifyWait: "reading" },
            },
            sound: {
              meta: { telemetry: { count: "klio.backup.verifications", outcome: "ok" } },
              always: "#baseBackup.active.maintaining",
            },
            corrupt: {
              meta: {
                telemetry: {
                  count: ["klio.backup.verifications", "klio.backup.verification_failures"],
                  outcome: "error",
                  reason: "reason",
                },
              },
              always: "#baseBackup.active.failing",
            },
            unverified: {
              meta: {
                description: "every attempt failed: the backup counts, with a warning",
                telemetry: { event: "backup.unverified", outcome: "ok", reason: "reason" },
              },
              always: "#baseBackup.active.maintaining",
            },
          },
        },
        maintaining: {
          meta: {
            description: "the server applies retention and sweeps what no backup needs",
            telemetry: { span: "backup_maintenance", tracer: "klio.backup" },
          },
          initial: "working",
          on: { "shutdown.requested": { target: "#baseBackup.completed", actions: "keepCompleted" } },
          states: {
            working: {
              invoke: {
                id: "maintainBackups",
                src: "maintainBackups",
                input: null,
                onDone: [
                  {
                    guard: { type: "isOk", params: ({ event }) => event.output },
                    target: "#baseBackup.completed",
                    actions: "keepCompleted",
                  },
                  {
                    target: "failed",
                    actions: [{ type: "keepReason", params: ({ event }) => event.output }, "tellMaintenanceFailed"],
                  },
                ],
              },
            },
            failed: {
              meta: { telemetry: { outcome: "error", reason: "reason" } },
              always: { target: "#baseBackup.completed", actions: "keepCompleted" },
            },
          },
        },
        failing: {
          meta: {
            description: "what was stored is abandoned",
            telemetry: { outcome: "error", reason: "reason" },
          },
          invoke: {
            id: "abandonFailed",
            src: "abandonBackup",
            input: null,
            onDone: {
              target: "#baseBackup.failed",
              actions: { type: "tellAbandoned", params: ({ event }) => event.output },
            },
          },
          on: { "shutdown.requested": {} },
        },
        cancelling: {
          meta: { description: "what was stored is abandoned", telemetry: { outcome: "cancelled" } },
          invoke: {
            id: "abandonCancelled",
            src: "abandonBackup",
            input: null,
            onDone: {
              target: "#baseBackup.cancelled",
              actions: { type: "tellAbandoned", params: ({ event }) => event.output },
            },
          },
          on: { "shutdown.requested": {} },
        },
      },
    },
    completed: {
      type: "final",
      entry: "tellCompleted",
      meta: {
        telemetry: {
          count: "klio.backup.successes",
          latestStart: "klio.backup.latest_completion_time",
          outcome: "ok",
        },
      },
    },
    failed: {
      type: "final",
      meta: {
        telemetry: {
          count: "klio.backup.failures",
          latestStart: "klio.backup.latest_failure_time",
          outcome: "error",
          reason: "reason",
        },
      },
    },
    cancelled: { type: "final", meta: { telemetry: { outcome: "cancelled" } } },
  },
  output: ({ context: { end, code, reason } }) => ({ kind: end, code, reason }),
});
