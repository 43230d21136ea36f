// What may go from one cluster's archive on one tier: whole backups by policy, orphaned snapshots, and the WAL that no
// remaining backup needs.
//   T1. WAL is pruned only after the expiry, if there is one, has succeeded, by the backups that remain then.
//   T2. A dry run expires nothing and removes nothing; it names what would go.
//   T3. A failing step ends the run; its outcome is the run's.
//   T4. A stop between two steps leaves the archive whole: nothing further is removed.
import { assign, setup } from "xstate";
import type { Failure, Outcome } from "../domain/outcome.ts";
import type { StateMeta } from "../telemetry/state-telemetry.ts";
import { unprovided } from "./unprovided.ts";

export type RetentionInput = { cluster: string; tier: "tier1" | "tier2"; dryRun: boolean };
export type ExpiryPlan = { expired: string[]; kept: Record<string, string[]>; orphans: number };
export type ExpiryResult = { backups: string[]; orphans: number };
export type PruneResult = { files: number; first: string; heldBy: string };
export type RetentionReport = {
  kept: Record<string, string[]>;
  deletedBackups: string[];
  deletedOrphans: number;
  deletedWalFiles: number;
  /** First segment that stayed, or empty when WAL was not pruned; then `heldBy` says why. */
  firstWal: string;
  heldBy: string;
};

type Context = RetentionInput & {
  expired: string[];
  report: RetentionReport;
  failure: Failure | undefined;
  reason: string;
};

export const retention = setup({
  types: {
    input: {} as RetentionInput,
    context: {} as Context,
    events: {} as { type: "shutdown.requested" },
    output: {} as Outcome<RetentionReport>,
    meta: {} as StateMeta,
  },
  actors: {
    decideExpiry: unprovided<Outcome<ExpiryPlan>, RetentionInput>("decideExpiry"),
    expireBackups: unprovided<Outcome<ExpiryResult>, RetentionInput & { names: string[] }>("expireBackups"),
    pruneWal: unprovided<Outcome<PruneResult>, RetentionInput & { without: string[] }>("pruneWal"),
  },
  actions: {
    keepPlan: assign(({ context }, outcome: Outcome<ExpiryPlan>) =>
      outcome.kind === "ok"
        ? {
            expired: outcome.value.expired,
            report: {
              ...context.report,
              kept: outcome.value.kept,
              ...(context.dryRun && { deletedBackups: outcome.value.expired, deletedOrphans: outcome.value.orphans }),
            },
          }
        : {},
    ),
    keepExpired: assign(({ context }, outcome: Outcome<ExpiryResult>) =>
      outcome.kind === "ok"
        ? {
            report: {
              ...context.report,
              deletedBackups: outcome.value.backups,
              deletedOrphans: outcome.value.orphans,
            },
          }
        : {},
    ),
    keepPruned: assign(({ context }, outcome: Outcome<PruneResult>) =>
      outcome.kind === "ok"
        ? {
            report: {
              ...context.report,
              deletedWalFiles: outcome.value.files,
              firstWal: outcome.value.first,
              heldBy: outcome.value.heldBy,
            },
          }
        : {},
    ),
    keepFailure: assign((_, outcome: Outcome<unknown>) =>
      outcome.kind === "ok" ? {} : { failure: outcome, reason: outcome.reason },
    ),
    keepStop: assign({
      failure: { kind: "retryable", code: "KLIO-CANCELLED", reason: "stopped" } as const,
      reason: "stopped",
    }),
  },
  guards: {
    isOk: (_, outcome: Outcome<unknown>) => outcome.kind === "ok",
    expiresNothing: ({ context }, outcome: Outcome<ExpiryPlan>) =>
      outcome.kind === "ok" && (context.dryRun || outcome.value.expired.length + outcome.value.orphans === 0),
  },
}).createMachine({
  id: "retention",
  context: ({ input }) => ({
    ...input,
    expired: [],
    report: { kept: {}, deletedBackups: [], deletedOrphans: 0, deletedWalFiles: 0, firstWal: "", heldBy: "" },
    failure: undefined,
    reason: "",
  }),
  initial: "deciding",
  on: { "shutdown.requested": { target: ".failed", actions: "keepStop" } },
  states: {
    deciding: {
      meta: { description: "lists the backups and applies the policy" },
      invoke: {
        id: "decideExpiry",
        src: "decideExpiry",
        input: ({ context: { cluster, tier, dryRun } }) => ({ cluster, tier, dryRun }),
        onDone: [
          {
            guard: { type: "expiresNothing", params: ({ event }) => event.output },
            target: "pruningWal",
            actions: { type: "keepPlan", params: ({ event }) => event.output },
          },
          {
            guard: { type: "isOk", params: ({ event }) => event.output },
            target: "expiring",
            actions: { type: "keepPlan", params: ({ event }) => event.output },
          },
          { target: "failed", actions: { type: "keepFailure", params: ({ event }) => event.output } },
        ],
      },
    },
    expiring: {
      meta: { description: "deletes expired backups whole, and orphaned snapshots" },
      invoke: {
        id: "expireBackups",
        src: "expireBackups",
        input: ({ context: { cluster, tier, dryRun, expired } }) => ({ cluster, tier, dryRun, names: expired }),
        onDone: [
          {
            guard: { type: "isOk", params: ({ event }) => event.output },
            target: "pruningWal",
            actions: { type: "keepExpired", params: ({ event }) => event.output },
          },
          { target: "failed", actions: { type: "keepFailure", params: ({ event }) => event.output } },
        ],
      },
    },
    pruningWal: {
      meta: { description: "removes WAL that no remaining backup needs" },
      invoke: {
        id: "pruneWal",
        src: "pruneWal",
        input: ({ context: { cluster, tier, dryRun, expired } }) => ({
          cluster,
          tier,
          dryRun,
          without: dryRun ? expired : [],
        }),
        onDone: [
          {
            guard: { type: "isOk", params: ({ event }) => event.output },
            target: "finished",
            actions: { type: "keepPruned", params: ({ event }) => event.output },
          },
          { target: "failed", actions: { type: "keepFailure", params: ({ event }) => event.output } },
        ],
      },
    },
    finished: { type: "final", meta: { telemetry: { outcome: "ok" } } },
    failed: { type: "final", meta: { telemetry: { outcome: "error", reason: "reason" } } },
  },
  output: ({ context }): Outcome<RetentionReport> => context.failure ?? { kind: "ok", value: context.report },
});
