import { expect, test } from "vitest";
import { createActor, fromPromise, SimulatedClock } from "xstate";
import { getShortestPaths } from "xstate/graph";
import type { Failure, Outcome } from "../../../src/domain/outcome.ts";
import {
  type ChooseAnswer,
  type FetchAnswer,
  type ReachAnswer,
  type RestoreInput,
  restore,
  type TierAndBackup,
} from "../../../src/machines/restore.machine.ts";
import { settle } from "../../support/eventually.ts";
import { checkTransitionTable, stateName, type Table } from "../../support/transition-table.ts";

const input: RestoreInput = {
  cluster: "main",
  tiers: ["tier1", "tier2"],
  maxAttempts: 2,
  firstMs: 100,
  limitMs: 150,
};
const down: Failure = { kind: "retryable", code: "KLIO-REPOSITORY-DOWN", reason: "connection refused" };
const corrupt: Failure = { kind: "fatal", code: "KLIO-BACKUP-CORRUPT", reason: "content not found" };
const occupied: Failure = { kind: "fatal", code: "KLIO-RESTORE-TARGET", reason: "the directory is not empty" };
const chosen: ChooseAnswer = { kind: "chosen", backup: "backup-1" };
const none: ChooseAnswer = { kind: "none", reasons: ["no backup is stored"] };
const reachable: ReachAnswer = { kind: "reachable" };
const unreachable: ReachAnswer = { kind: "unreachable", missing: ["000000010000000000000002 is not stored"] };
const fetched: FetchAnswer = { kind: "ok", value: { bytes: 10, files: 1 } };
const finished: Outcome<null> = { kind: "ok", value: null };

type Answers = {
  choose: ChooseAnswer[];
  reach: ReachAnswer[];
  tablespaces: FetchAnswer[];
  data: FetchAnswer[];
  control: FetchAnswer[];
  finish: Outcome<null>[];
  clear: Outcome<null>[];
};

/** One answer per call; the last one stays. */
function begin(answers: Partial<Answers> = {}, values: Partial<RestoreInput> = {}) {
  const clock = new SimulatedClock();
  const calls: string[] = [];
  const facts: string[] = [];
  const answer = <K extends keyof Answers>(key: K, usual: Answers[K][number]) =>
    fromPromise<Answers[K][number], TierAndBackup>(async ({ input: asked }) => {
      calls.push(`${key} ${asked.tier} ${asked.backup}`.trim());
      const list = answers[key] as Answers[K][number][] | undefined;
      return (list !== undefined && list.length > 1 ? list.shift() : list?.[0]) ?? usual;
    });
  const actors = {
    chooseBackup: answer("choose", chosen),
    checkReachable: answer("reach", reachable),
    fetchTablespaces: answer("tablespaces", fetched),
    fetchData: answer("data", fetched),
    fetchControlFile: answer("control", fetched),
    finishRestore: answer("finish", finished),
    clearDestination: fromPromise<Outcome<null>, null>(async () => {
      calls.push("clear");
      return answers.clear?.[0] ?? finished;
    }),
  };
  const actor = createActor(restore.provide({ actors: actors as never }), {
    id: "restore",
    clock,
    input: { ...input, ...values },
  });
  actor.on("*", (fact) => facts.push(`${fact.type} ${fact.tier} ${"reason" in fact ? fact.reason : fact.backup}`));
  return { actor: actor.start(), clock, calls, facts };
}
const writes = (calls: string[]) => calls.filter((call) => !/^(choose|reach|clear)/.test(call));

test("P3, S1, S5: nothing is written when the target cannot be reached; the restore says what is missing", async () => {
  const { actor, calls } = begin({ reach: [unreachable] });
  await settle(8);
  expect(writes(calls)).toEqual([]);
  expect(calls).not.toContain("clear");
  expect(actor.getSnapshot().output).toMatchObject({
    kind: "refused",
    code: "KLIO-RESTORE-REFUSED",
    reasons: ["000000010000000000000002 is not stored"],
  });
});

test("S2: control file after all data, finishing after it, then restored", async () => {
  const { actor, calls } = begin();
  await settle(8);
  expect(calls).toEqual([
    "choose tier1",
    "reach tier1 backup-1",
    "tablespaces tier1 backup-1",
    "data tier1 backup-1",
    "control tier1 backup-1",
    "finish tier1 backup-1",
  ]);
  expect(actor.getSnapshot().output).toMatchObject({ kind: "restored", tier: "tier1", bytes: 30, files: 3 });
});

test("S3: a tier that is down or has nothing suitable is left with its reason; the last one's reasons end it", async () => {
  const { actor, facts } = begin({ choose: [down, none] });
  await settle(8);
  expect(facts).toEqual(["tier.left tier1 tier1: connection refused"]);
  expect(actor.getSnapshot().output).toMatchObject({
    kind: "refused",
    reasons: ["tier1: connection refused", "tier2: no backup is stored"],
  });
});

test("S3: the second tier restores what the first cannot list", async () => {
  const { actor, facts } = begin({ choose: [down, chosen] });
  await settle(10);
  expect(facts).toEqual(["tier.left tier1 tier1: connection refused", "backup.chosen tier2 backup-1"]);
  expect(actor.getSnapshot().output).toMatchObject({ kind: "restored", tier: "tier2" });
});

test("S4: a damaged backup is cleared away and fetched from the other tier, the same backup", async () => {
  const { actor, calls } = begin({ data: [corrupt, fetched] });
  await settle(14);
  expect(calls.slice(2)).toEqual([
    "tablespaces tier1 backup-1",
    "data tier1 backup-1",
    "clear",
    "choose tier2 backup-1",
    "reach tier2 backup-1",
    "tablespaces tier2 backup-1",
    "data tier2 backup-1",
    "control tier2 backup-1",
    "finish tier2 backup-1",
  ]);
  expect(actor.getSnapshot().output).toMatchObject({ kind: "restored", tier: "tier2", bytes: 30 });
});

test("S4: without another tier the destination is cleared and the restore has failed", async () => {
  const { actor, calls } = begin({ control: [corrupt] }, { tiers: ["tier1"] });
  await settle(10);
  expect(calls.at(-1)).toBe("clear");
  expect(actor.getSnapshot().output).toMatchObject({ kind: "failed", code: "KLIO-BACKUP-CORRUPT" });
});

test("S5: cancelled before the first write, the destination is not touched; after it, it is cleared", async () => {
  const early = begin();
  early.actor.send({ type: "shutdown.requested" });
  await settle(8);
  expect(early.calls).toEqual(["choose tier1"]);
  expect(early.actor.getSnapshot().output).toMatchObject({ kind: "cancelled", code: "KLIO-CANCELLED" });
  const late = begin({ data: [down] });
  await settle(8);
  expect(late.actor.getSnapshot().value).toBe("backingOff");
  late.actor.send({ type: "shutdown.requested" });
  await settle(8);
  expect(late.calls.at(-1)).toBe("clear");
  expect(late.actor.getSnapshot().output).toMatchObject({ kind: "cancelled" });
});

test("S5: an occupied destination is refused at once, without asking the other tier", async () => {
  const { actor, calls } = begin({ reach: [occupied] });
  await settle(8);
  expect(calls).toEqual(["choose tier1", "reach tier1 backup-1"]);
  expect(actor.getSnapshot().output).toMatchObject({
    kind: "refused",
    code: "KLIO-RESTORE-TARGET",
    reasons: ["the directory is not empty"],
  });
});

test("S6: an interrupted fetch starts again after firstMs, maxAttempts times, then the tier is left", async () => {
  const { actor, clock, calls, facts } = begin({ data: [down, down, fetched] });
  await settle(8);
  clock.increment(99);
  expect(actor.getSnapshot().value).toBe("backingOff");
  clock.increment(1);
  await settle(14);
  expect(calls.filter((call) => call.startsWith("data"))).toEqual([
    "data tier1 backup-1",
    "data tier1 backup-1",
    "data tier2 backup-1",
  ]);
  expect(facts).toContain("fetch.interrupted tier1 connection refused");
  expect(actor.getSnapshot().output).toMatchObject({ kind: "restored", tier: "tier2" });
});

test("S6: what an interrupted attempt fetched does not count", async () => {
  const { actor, clock } = begin({ control: [down, fetched] });
  await settle(8);
  clock.increment(100);
  await settle(8);
  expect(actor.getSnapshot().output).toMatchObject({ kind: "restored", tier: "tier1", bytes: 30, files: 3 });
});

test("S6: a full disk is not taken to the other tier, and waits no longer than limitMs", async () => {
  const full: Failure = { kind: "retryable", code: "KLIO-DISK-FULL", reason: "no space left" };
  const { actor, clock, calls } = begin({ data: [full] }, { maxAttempts: 3 });
  await settle(8);
  clock.increment(100);
  await settle(8);
  clock.increment(149);
  expect(actor.getSnapshot().value).toBe("backingOff");
  clock.increment(1);
  await settle(10);
  expect(calls.filter((call) => call.includes("tier2"))).toEqual([]);
  expect(actor.getSnapshot().output).toMatchObject({ kind: "failed", code: "KLIO-DISK-FULL" });
});

const done = (id: string, output: unknown) => ({ type: `xstate.done.actor.${id}`, output, actorId: id });
const fetches = ["fetchTablespaces", "fetchData", "fetchControlFile", "finishRestore"] as const;
const events = {
  "shutdown.requested": { type: "shutdown.requested" },
  "chooseBackup/chosen": done("chooseBackup", chosen),
  "chooseBackup/none": done("chooseBackup", none),
  "chooseBackup/failed": done("chooseBackup", down),
  "checkReachable/reachable": done("checkReachable", reachable),
  "checkReachable/unreachable": done("checkReachable", unreachable),
  "checkReachable/down": done("checkReachable", down),
  "checkReachable/occupied": done("checkReachable", occupied),
  ...Object.fromEntries(
    fetches.flatMap((id) => [
      [`${id}/ok`, done(id, fetched)],
      [`${id}/retryable`, done(id, down)],
      [`${id}/fatal`, done(id, corrupt)],
    ]),
  ),
  clearDestination: done("clearDestination", finished),
  backoff: { type: "xstate.after.backoff.restore.backingOff" },
};
const row = (cells: Record<string, string>) => ({
  ...Object.fromEntries(Object.keys(events).map((key) => [key, "ignored"])),
  ...cells,
});
const fetchRow = (id: string, next: string) =>
  row({
    "shutdown.requested": "withdrawing",
    [`${id}/ok`]: next,
    [`${id}/retryable`]: "backingOff",
    [`${id}/fatal`]: "clearing",
  });
const transitionTable: Table = {
  choosing: row({
    "shutdown.requested": "cancelled",
    "chooseBackup/chosen": "checkingReachable",
    "chooseBackup/none": "choosing",
    "chooseBackup/failed": "choosing",
  }),
  checkingReachable: row({
    "shutdown.requested": "cancelled",
    "checkReachable/reachable": "writing.fetchingTablespaces",
    "checkReachable/unreachable": "refused",
    "checkReachable/down": "choosing",
    "checkReachable/occupied": "refused",
  }),
  "writing.fetchingTablespaces": fetchRow("fetchTablespaces", "writing.fetchingData"),
  "writing.fetchingData": fetchRow("fetchData", "writing.fetchingControlFile"),
  "writing.fetchingControlFile": fetchRow("fetchControlFile", "writing.finishing"),
  "writing.finishing": fetchRow("finishRestore", "restored"),
  backingOff: row({ "shutdown.requested": "withdrawing", backoff: "writing.fetchingTablespaces" }),
  clearing: row({ "shutdown.requested": "withdrawing", clearDestination: "choosing" }),
  withdrawing: row({ clearDestination: "cancelled" }),
};
const context = {
  ...input,
  at: 0,
  tier: "tier1" as const,
  attempt: 1,
  backup: "",
  bytes: 0,
  files: 0,
  code: "KLIO-BACKUP-CORRUPT" as const,
  reasons: [],
  end: "refused" as const,
};

test("every state answers every event as the table says", () => {
  checkTransitionTable(restore, context, transitionTable, events);
});

test("every state is reachable; restored is reached only behind finishing (S2), within maxAttempts (S6)", () => {
  const bounded = { input, events: Object.values(events) as never, serializeState: withoutTexts };
  const paths = getShortestPaths(restore, bounded as never);
  expect(new Set(paths.map(({ state }) => stateName(state.value)))).toEqual(
    new Set([...Object.keys(transitionTable), "restored", "refused", "failed", "cancelled"]),
  );
  for (const { state, steps } of paths) {
    expect(state.context.attempt).toBeLessThanOrEqual(input.maxAttempts);
    const taken: string[] = steps.map((step) => step.event.type);
    if (state.value === "restored") expect(taken).toContain("xstate.done.actor.finishRestore");
    if (taken.some((type) => /fetchTablespaces/.test(type)))
      expect(taken.indexOf("xstate.done.actor.checkReachable")).toBeGreaterThanOrEqual(0);
  }
});

/** Reasons and sums grow without changing what comes next. */
function withoutTexts(state: {
  value: unknown;
  context: { at: number; attempt: number; backup: string; code: string };
}) {
  const { at, attempt, backup, code } = state.context;
  return JSON.stringify([state.value, at, attempt, backup, code]);
}
