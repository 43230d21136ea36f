// Makes the tiers equal from what is stored, whatever the queue lost: cluster by cluster, in rounds.
//   R1. A round begins at the start, `periodMs` after the last one, and on request; a request during a round leads to
//       exactly one further round.
//   R2. A failure with one cluster ends only that cluster's turn, and the report names it.
//   R3. A request for one cluster looks at that cluster only.
//   R4. No round begins after `shutdown.requested`.
import { assign, emit, setup } from "xstate";
import type { FactOf } from "../domain/facts.ts";
import type { Failure, Outcome } from "../domain/outcome.ts";
import type { StateMeta } from "../telemetry/state-telemetry.ts";
import { unprovided } from "./unprovided.ts";

/** What one cluster's tiers have not in common; names are bounded, counts are not. */
export type Findings = {
  cluster: string;
  missing: number;
  /** To be sent, oldest first. */
  names: { name: string; bytes: number }[];
  stalePartials: string[];
  /** Same name, other content: never touched. */
  different: string[];
  foreign: string[];
  /** Backups that tier 2 should have and has not. */
  backups: string[];
};
export type Repairs = { enqueued: number; removed: number; enqueuedBackups: number };
/** Empty when all went well. */
type Trouble = { error: string; code: Failure["code"] | "" };
type ClusterReport = Omit<Findings, "names"> & Repairs & Trouble;
export type ReconcileReport = { round: number; cluster: string; clusters: ClusterReport[] } & Trouble;
export type ReconcilerInput = { periodMs: number };
export type ReconcilerFact =
  | { type: "reconcile.finished"; report: ReconcileReport }
  | FactOf<"reconcile.begun" | "reconcile.waiting" | "reconcile.ended">;
type Context = ReconcilerInput & {
  round: number;
  /** Empty: all clusters. */
  only: string;
  again: boolean;
  againOnly: string;
  todo: string[];
  findings: Findings;
  report: ReconcileReport;
};

const nothing: Findings = {
  cluster: "",
  missing: 0,
  names: [],
  stalePartials: [],
  different: [],
  foreign: [],
  backups: [],
};
const noRepairs: Repairs = { enqueued: 0, removed: 0, enqueuedBackups: 0 };

/** What this loop is called in its metrics. */
const CONTROLLER = "tiers";

function hasFailed({ error, clusters }: ReconcileReport): boolean {
  return error !== "" || clusters.some((cluster) => cluster.error !== "");
}

const troubleOf = (outcome: Outcome<unknown>): Trouble =>
  outcome.kind === "ok" ? { error: "", code: "" } : { error: outcome.reason, code: outcome.code };

function reported(context: Context, repairs: Repairs, outcome: Outcome<unknown>): Partial<Context> {
  const { names: _, ...findings } = context.findings;
  const entry: ClusterReport = { ...findings, ...repairs, ...troubleOf(outcome) };
  return { todo: context.todo.slice(1), report: { ...context.report, clusters: [...context.report.clusters, entry] } };
}

export const reconciler = setup({
  types: {
    input: {} as ReconcilerInput,
    context: {} as Context,
    events: {} as { type: "reconcile.requested"; cluster: string } | { type: "shutdown.requested" },
    emitted: {} as ReconcilerFact,
    meta: {} as StateMeta,
  },
  actors: {
    listClusters: unprovided<Outcome<string[]>, { only: string }>("listClusters"),
    compareCluster: unprovided<Outcome<Findings>, { cluster: string }>("compareCluster"),
    repairCluster: unprovided<Outcome<Repairs>, { findings: Findings }>("repairCluster"),
  },
  actions: {
    beginRound: assign(({ context }) => ({
      round: context.round + 1,
      todo: [],
      report: { round: context.round + 1, cluster: context.only, error: "", code: "", clusters: [] },
    })),
    keepRequest: assign((_, { cluster }: { cluster: string }) => ({ only: cluster })),
    keepAgain: assign(({ context }, { cluster }: { cluster: string }) => ({
      again: true,
      againOnly: context.again && context.againOnly !== cluster ? "" : cluster,
    })),
    takeAgain: assign(({ context }) => ({ only: context.againOnly, again: false, againOnly: "" })),
    forgetRequest: assign({ only: "" }),
    keepClusters: assign((_, outcome: Outcome<string[]>) => ({ todo: outcome.kind === "ok" ? outcome.value : [] })),
    keepFindings: assign((_, outcome: Outcome<Findings>) => ({
      findings: outcome.kind === "ok" ? outcome.value : nothing,
    })),
    reportFailedRound: assign(({ context }, outcome: Outcome<unknown>) => ({
      report: { ...context.report, ...troubleOf(outcome) },
    })),
    reportFailedCluster: assign(({ context }, outcome: Outcome<unknown>) =>
      reported({ ...context, findings: { ...nothing, cluster: context.todo[0] ?? "" } }, noRepairs, outcome),
    ),
    reportCluster: assign(({ context }, outcome: Outcome<Repairs>) =>
      reported(context, outcome.kind === "ok" ? outcome.value : noRepairs, outcome),
    ),
    emitBegun: emit(
      ({ context }) =>
        ({ type: "reconcile.begun", controller: CONTROLLER, retried: hasFailed(context.report) }) as const,
    ),
    emitWaiting: emit({ type: "reconcile.waiting", controller: CONTROLLER } as const),
    emitEnded: emit(
      ({ context }) =>
        ({ type: "reconcile.ended", controller: CONTROLLER, failed: hasFailed(context.report) }) as const,
    ),
    emitFinished: emit(({ context }) => ({ type: "reconcile.finished", report: context.report }) as const),
  },
  guards: {
    isOk: (_, outcome: Outcome<unknown>) => outcome.kind === "ok",
    hasMore: ({ context }) => context.todo.length > 0,
    isRequestedAgain: ({ context }) => context.again,
  },
  delays: { period: ({ context }) => context.periodMs },
}).createMachine({
  id: "reconciler",
  context: ({ input }) => ({
    ...input,
    round: 0,
    only: "",
    again: false,
    againOnly: "",
    todo: [],
    findings: nothing,
    report: { round: 0, cluster: "", error: "", code: "", clusters: [] },
  }),
  initial: "working",
  on: { "shutdown.requested": ".stopped" },
  states: {
    working: {
      entry: ["emitBegun", "beginRound"],
      initial: "listing",
      on: {
        "reconcile.requested": { actions: [{ type: "keepAgain", params: ({ event }) => event }, "emitWaiting"] },
      },
      states: {
        listing: {
          meta: { description: "which clusters are there, on either tier" },
          invoke: {
            id: "listClusters",
            src: "listClusters",
            input: ({ context }) => ({ only: context.only }),
            onDone: [
              {
                guard: { type: "isOk", params: ({ event }) => event.output },
                target: "choosing",
                actions: { type: "keepClusters", params: ({ event }) => event.output },
              },
              {
                target: "#reconciler.reporting",
                actions: { type: "reportFailedRound", params: ({ event }) => event.output },
              },
            ],
          },
        },
        choosing: { always: [{ guard: "hasMore", target: "comparing" }, { target: "#reconciler.reporting" }] },
        comparing: {
          meta: { description: "lists one cluster on both tiers" },
          invoke: {
            id: "compareCluster",
            src: "compareCluster",
            input: ({ context }) => ({ cluster: context.todo[0] ?? "" }),
            onDone: [
              {
                guard: { type: "isOk", params: ({ event }) => event.output },
                target: "repairing",
                actions: { type: "keepFindings", params: ({ event }) => event.output },
              },
              { target: "choosing", actions: { type: "reportFailedCluster", params: ({ event }) => event.output } },
            ],
          },
        },
        repairing: {
          meta: { description: "sends what is missing, removes what is superseded" },
          invoke: {
            id: "repairCluster",
            src: "repairCluster",
            input: ({ context }) => ({ findings: context.findings }),
            onDone: { target: "choosing", actions: { type: "reportCluster", params: ({ event }) => event.output } },
          },
        },
      },
    },
    reporting: {
      entry: ["emitEnded", "emitFinished"],
      always: [
        { guard: "isRequestedAgain", target: "working", actions: "takeAgain" },
        { target: "resting", actions: "forgetRequest" },
      ],
    },
    resting: {
      meta: { description: "waits for the next round" },
      after: { period: "working" },
      on: {
        "reconcile.requested": { target: "working", actions: { type: "keepRequest", params: ({ event }) => event } },
      },
    },
    stopped: { type: "final" },
  },
});
