import { expect, test } from "vitest";
import { createActor, fromPromise, toPromise } from "xstate";
import { getShortestPaths } from "xstate/graph";
import { failure, type Outcome, ok } from "../../../src/domain/outcome.ts";
import {
  type ExpiryPlan,
  type ExpiryResult,
  type PruneResult,
  retention,
} from "../../../src/machines/retention.machine.ts";
import { settle } from "../../support/eventually.ts";
import { checkTransitionTable } from "../../support/transition-table.ts";

const plan = ok<ExpiryPlan>({ expired: ["b1"], kept: { b2: ["latest-1"] }, orphans: 2 });
const expired = ok<ExpiryResult>({ backups: ["b1"], orphans: 2 });
const pruned = ok<PruneResult>({ files: 7, first: "000000010000000000000003", heldBy: "" });
const down = failure("KLIO-REPOSITORY-DOWN", "no answer");
const input = { cluster: "a", tier: "tier1" as const, dryRun: false };
const never = new Promise<never>(() => undefined);

type Script = {
  plan?: Outcome<ExpiryPlan>;
  expired?: Outcome<ExpiryResult> | "hangs";
  pruned?: Outcome<PruneResult>;
};

function run(script: Script, dryRun = false) {
  const calls: string[] = [];
  const machine = retention.provide({
    actors: {
      decideExpiry: fromPromise(async () => {
        calls.push("decide");
        return script.plan ?? plan;
      }),
      expireBackups: fromPromise(async ({ input: { names } }) => {
        calls.push(`expire ${names}`);
        return script.expired === "hangs" ? never : (script.expired ?? expired);
      }),
      pruneWal: fromPromise(async ({ input: { without, dryRun: dry } }) => {
        calls.push(`prune ${dry ? "dry" : "wet"} without ${without}`);
        return script.pruned ?? pruned;
      }),
    },
  });
  const actor = createActor(machine, { id: "retention", input: { ...input, dryRun } }).start();
  return { actor, calls };
}

test("T1: WAL is pruned after the expiry, by what remains; a failed expiry prunes nothing", async () => {
  const { actor, calls } = run({});
  expect(await toPromise(actor)).toEqual({
    kind: "ok",
    value: {
      kept: { b2: ["latest-1"] },
      deletedBackups: ["b1"],
      deletedOrphans: 2,
      deletedWalFiles: 7,
      firstWal: "000000010000000000000003",
      heldBy: "",
    },
  });
  expect(calls).toEqual(["decide", "expire b1", "prune wet without "]);
  const failed = run({ expired: down });
  expect(await toPromise(failed.actor)).toEqual(down);
  expect(failed.calls).toEqual(["decide", "expire b1"]);
});

test("T2: a dry run expires nothing, and counts WAL as if it had", async () => {
  const { actor, calls } = run({}, true);
  expect(await toPromise(actor)).toMatchObject({
    value: { deletedBackups: ["b1"], deletedOrphans: 2, deletedWalFiles: 7 },
  });
  expect(calls).toEqual(["decide", "prune dry without b1"]);
});

test("where nothing expires nothing is listed again to be deleted, and WAL is pruned", async () => {
  const none = ok<ExpiryPlan>({ expired: [], kept: { b2: ["latest-1"] }, orphans: 0 });
  const { actor, calls } = run({ plan: none });
  expect(await toPromise(actor)).toMatchObject({
    value: { kept: { b2: ["latest-1"] }, deletedBackups: [], deletedOrphans: 0, deletedWalFiles: 7 },
  });
  expect(calls).toEqual(["decide", "prune wet without "]);
  const orphans = run({ plan: ok<ExpiryPlan>({ expired: [], kept: {}, orphans: 1 }) });
  await toPromise(orphans.actor);
  expect(orphans.calls).toEqual(["decide", "expire ", "prune wet without "]);
});

test("T3: the first failure is the outcome", async () => {
  expect(await toPromise(run({ plan: down }).actor)).toEqual(down);
  expect(await toPromise(run({ pruned: down }).actor)).toEqual(down);
});

test("T4: a stop removes nothing further", async () => {
  const { actor, calls } = run({ expired: "hangs" });
  await settle();
  actor.send({ type: "shutdown.requested" });
  expect(await toPromise(actor)).toMatchObject({ kind: "retryable", code: "KLIO-CANCELLED" });
  expect(calls).toEqual(["decide", "expire b1"]);
});

const events = {
  "decided/ok": { type: "xstate.done.actor.decideExpiry", output: plan },
  "decided/nothing": {
    type: "xstate.done.actor.decideExpiry",
    output: ok<ExpiryPlan>({ expired: [], kept: {}, orphans: 0 }),
  },
  "decided/failed": { type: "xstate.done.actor.decideExpiry", output: down },
  "expired/ok": { type: "xstate.done.actor.expireBackups", output: expired },
  "expired/failed": { type: "xstate.done.actor.expireBackups", output: down },
  "pruned/ok": { type: "xstate.done.actor.pruneWal", output: pruned },
  "pruned/failed": { type: "xstate.done.actor.pruneWal", output: down },
  "shutdown.requested": { type: "shutdown.requested" },
};
type State = "deciding" | "expiring" | "pruningWal";
const ignored = Object.fromEntries(Object.keys(events).map((key) => [key, "ignored"])) as Record<
  keyof typeof events,
  string
>;

export const transitionTable: Record<State, Record<keyof typeof events, string>> = {
  deciding: {
    ...ignored,
    "decided/ok": "expiring",
    "decided/nothing": "pruningWal",
    "decided/failed": "failed",
    "shutdown.requested": "failed",
  },
  expiring: { ...ignored, "expired/ok": "pruningWal", "expired/failed": "failed", "shutdown.requested": "failed" },
  pruningWal: { ...ignored, "pruned/ok": "finished", "pruned/failed": "failed", "shutdown.requested": "failed" },
};

test("every event in every state", () => {
  const { context } = createActor(retention, { id: "x", input }).getSnapshot();
  checkTransitionTable(retention, context, transitionTable, events);
});

test("every state is reachable", () => {
  const reached = getShortestPaths(retention, { input, events: Object.values(events) as never });
  expect(new Set(reached.map(({ state }) => state.value))).toEqual(
    new Set(["deciding", "expiring", "pruningWal", "finished", "failed"]),
  );
});
