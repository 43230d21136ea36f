import { expect, test } from "vitest";
import { createActor, fromPromise, SimulatedClock } from "xstate";
import { getShortestPaths } from "xstate/graph";
import { failure, type Outcome, ok } from "../../../src/domain/outcome.ts";
import {
  type Findings,
  type ReconcileReport,
  type Repairs,
  reconciler,
} from "../../../src/machines/reconciler.machine.ts";
import { settle } from "../../support/eventually.ts";
import { checkTransitionTable, stateName } from "../../support/transition-table.ts";

const down = failure("KLIO-S3-DOWN", "no answer");
const findings = (cluster: string): Findings => ({
  cluster,
  missing: 2,
  names: [{ name: "000000010000000000000001", bytes: 1 }],
  stalePartials: [],
  different: [],
  foreign: [],
  backups: [],
});
const repairs: Repairs = { enqueued: 1, removed: 0, enqueuedBackups: 0 };

function start(script: { clusters?: Outcome<string[]>; broken?: string; unrepaired?: string } = {}) {
  const clock = new SimulatedClock();
  const reports: ReconcileReport[] = [];
  const asked: string[] = [];
  const machine = reconciler.provide({
    actors: {
      listClusters: fromPromise(async ({ input: { only } }) =>
        only !== "" ? ok([only]) : (script.clusters ?? ok(["a", "b"])),
      ),
      compareCluster: fromPromise(async ({ input: { cluster } }): Promise<Outcome<Findings>> => {
        asked.push(cluster);
        return cluster === script.broken ? down : ok(findings(cluster));
      }),
      repairCluster: fromPromise(
        async ({ input }): Promise<Outcome<Repairs>> =>
          input.findings.cluster === script.unrepaired ? down : ok(repairs),
      ),
    },
  });
  const actor = createActor(machine, { id: "reconciler", clock, input: { periodMs: 1_000 } });
  actor.on("reconcile.finished", ({ report }) => void reports.push(report));
  actor.start();
  const request = (cluster = "") => actor.send({ type: "reconcile.requested", cluster });
  return { actor, clock, reports, asked, request };
}
const rest = () => settle(12);

test("R1: a round at the start, after each period, and on request", async () => {
  const { clock, reports, request } = start();
  await rest();
  expect(reports.length).toBe(1);
  clock.increment(999);
  await rest();
  expect(reports.length).toBe(1);
  clock.increment(1);
  await rest();
  expect(reports.length).toBe(2);
  request();
  await rest();
  expect(reports.map(({ round }) => round)).toEqual([1, 2, 3]);
});

test("R1: requests during a round lead to exactly one further round", async () => {
  const { reports, request } = start();
  request();
  request();
  await settle(24);
  expect(reports.length).toBe(2);
});

test("R2: one cluster's failure ends its own turn only, and is named", async () => {
  const compared = start({ broken: "a" });
  await rest();
  expect(compared.reports[0]?.clusters).toMatchObject([
    { cluster: "a", error: "no answer", enqueued: 0 },
    { cluster: "b", error: "", enqueued: 1, missing: 2 },
  ]);
  const repaired = start({ unrepaired: "b" });
  await rest();
  expect(repaired.reports[0]?.clusters).toMatchObject([
    { cluster: "a", error: "" },
    { cluster: "b", error: "no answer" },
  ]);
  const none = start({ clusters: down });
  await rest();
  expect(none.reports[0]).toMatchObject({ error: "no answer", clusters: [] });
});

test("R3: a request for one cluster looks at that one; the next periodic round at all again", async () => {
  const { clock, asked, request } = start();
  await rest();
  request("z");
  await rest();
  expect(asked).toEqual(["a", "b", "z"]);
  clock.increment(1_000);
  await rest();
  expect(asked).toEqual(["a", "b", "z", "a", "b"]);
});

test("R4: no round after a stop", async () => {
  const { actor, clock, reports } = start();
  await rest();
  actor.send({ type: "shutdown.requested" });
  clock.increment(10_000);
  await rest();
  expect(reports.length).toBe(1);
  expect(actor.getSnapshot().status).toBe("done");
});

const events = {
  "listed/ok": { type: "xstate.done.actor.listClusters", output: ok(["a"]) },
  "listed/none": { type: "xstate.done.actor.listClusters", output: ok([]) },
  "listed/failed": { type: "xstate.done.actor.listClusters", output: down },
  "compared/ok": { type: "xstate.done.actor.compareCluster", output: ok(findings("a")) },
  "compared/failed": { type: "xstate.done.actor.compareCluster", output: down },
  "repaired/ok": { type: "xstate.done.actor.repairCluster", output: ok(repairs) },
  "repaired/failed": { type: "xstate.done.actor.repairCluster", output: down },
  period: { type: "xstate.after.period.reconciler.resting" },
  "reconcile.requested": { type: "reconcile.requested", cluster: "" },
  "shutdown.requested": { type: "shutdown.requested" },
};
type State = "working.listing" | "working.comparing" | "working.repairing" | "resting";
const ignored = Object.fromEntries(Object.keys(events).map((key) => [key, "ignored"])) as Record<
  keyof typeof events,
  string
>;
const stop = { "shutdown.requested": "stopped" };

export const transitionTable: Record<State, Record<keyof typeof events, string>> = {
  "working.listing": {
    ...ignored,
    ...stop,
    "reconcile.requested": "working.listing",
    "listed/ok": "working.comparing",
    "listed/none": "resting",
    "listed/failed": "resting",
  },
  "working.comparing": {
    ...ignored,
    ...stop,
    "reconcile.requested": "working.comparing",
    "compared/ok": "working.repairing",
    "compared/failed": "resting",
  },
  "working.repairing": {
    ...ignored,
    ...stop,
    "reconcile.requested": "working.repairing",
    "repaired/ok": "resting",
    "repaired/failed": "resting",
  },
  resting: { ...ignored, ...stop, period: "working.listing", "reconcile.requested": "working.listing" },
};

const { context } = createActor(reconciler, { id: "x", input: { periodMs: 1_000 } }).getSnapshot();

test("each round is told with its begin and its end, a request that waits, and a round after a failed one", async () => {
  const { actor, clock, request } = start({ broken: "b" });
  const told: object[] = [];
  for (const type of ["reconcile.begun", "reconcile.waiting", "reconcile.ended"] as const)
    actor.on(type, (fact) => void told.push(fact));
  await rest();
  clock.increment(1_000);
  request();
  await rest();
  const controller = "tiers";
  expect(told).toEqual([
    { type: "reconcile.ended", controller, failed: true },
    { type: "reconcile.begun", controller, retried: true },
    { type: "reconcile.waiting", controller },
    { type: "reconcile.ended", controller, failed: true },
    { type: "reconcile.begun", controller, retried: true },
    { type: "reconcile.ended", controller, failed: true },
  ]);
});

test("every event in every state", () => {
  checkTransitionTable(reconciler, { ...context, todo: ["a"] }, transitionTable, events);
});

test("every state is reachable", () => {
  const reached = getShortestPaths(reconciler, {
    input: { periodMs: 1_000 },
    events: Object.values(events) as never,
    stopWhen: (state) => state.context.round > 2,
  });
  expect(new Set(reached.map(({ state }) => stateName(state.value)))).toEqual(
    new Set(["working.listing", "working.comparing", "working.repairing", "resting", "stopped"]),
  );
});
