import { expect, test } from "vitest";
import { createActor, fromPromise, SimulatedClock } from "xstate";
import { getShortestPaths } from "xstate/graph";
import type { Failure } from "../../../src/domain/outcome.ts";
import type { TierName } from "../../../src/domain/snapshots.ts";
import {
  type DownloadAnswer,
  type SpoolAnswer,
  type WalFetchInput,
  walFetch,
} from "../../../src/machines/wal-fetch.machine.ts";
import { settle } from "../../support/eventually.ts";
import { checkTransitionTable, stateName, type Table } from "../../support/transition-table.ts";

const input: WalFetchInput = {
  cluster: "main",
  name: "000000010000000000000001",
  tiers: ["tier1", "tier2"],
  partial: true,
  prefetch: true,
  maxAttempts: 2,
  firstMs: 100,
  limitMs: 150,
};
const down: Failure = { kind: "retryable", code: "KLIO-SERVER-DOWN", reason: "connection refused" };
const refused: Failure = { kind: "fatal", code: "KLIO-SERVER-REFUSED", reason: "wrong certificate" };
const missing: DownloadAnswer = { kind: "missing" };
const stored = (tier: TierName, bytes = 16 << 20): DownloadAnswer => ({
  kind: "stored",
  tier,
  bytes,
  segmentBytes: 16 << 20,
});
const absent: SpoolAnswer = { kind: "absent" };
const taken: SpoolAnswer = { kind: "taken", segmentBytes: 16 << 20 };

/** `tiers`: what each tier answers, one answer per attempt; the last one stays. */
function fetch(
  answers: { spool?: SpoolAnswer; tier1?: DownloadAnswer[]; tier2?: DownloadAnswer[]; partial?: DownloadAnswer[] },
  values: Partial<WalFetchInput> = {},
) {
  const clock = new SimulatedClock();
  const calls: string[] = [];
  const next = (list: DownloadAnswer[] = [missing]) =>
    list.length > 1 ? (list.shift() ?? missing) : (list[0] ?? missing);
  const actors = {
    takeSpooled: fromPromise<SpoolAnswer, { name: string }>(async () => answers.spool ?? absent),
    downloadWal: fromPromise<DownloadAnswer, { name: string; tier: TierName }>(async ({ input: { tier } }) => {
      calls.push(tier);
      return next(answers[tier]);
    }),
    downloadPartial: fromPromise<DownloadAnswer, { name: string; tiers: TierName[] }>(async () => {
      calls.push("partial");
      return next(answers.partial);
    }),
    fetchAhead: fromPromise<null, { name: string; segmentBytes: number }>(async ({ input: { segmentBytes } }) => {
      calls.push(`ahead ${segmentBytes}`);
      return null;
    }),
  };
  const actor = createActor(walFetch.provide({ actors }), { id: "walFetch", clock, input: { ...input, ...values } });
  return { actor: actor.start(), clock, calls };
}

test("F1: missing only when every tier lacks the file and its beginning", async () => {
  const { actor, calls } = fetch({});
  await settle(6);
  expect(actor.getSnapshot().output).toEqual({ kind: "missing" });
  expect(calls).toEqual(["tier1", "tier2", "partial"]);
});

test.each([
  ["the first", { tier1: [down] }],
  ["the last", { tier2: [down] }],
  ["any, for the unfinished file", { partial: [down] }],
])("F1: a tier that could not answer (%s) makes it failed, not missing", async (_, answers) => {
  const { actor } = fetch(answers, { maxAttempts: 1 });
  await settle(6);
  expect(actor.getSnapshot().output).toEqual(down);
});

test("F2: tiers are asked in order, and none behind the one that had it", async () => {
  const first = fetch({ tier1: [stored("tier1")], tier2: [stored("tier2")] });
  const turned = fetch({ tier2: [stored("tier2")] }, { tiers: ["tier2", "tier1"] });
  const second = fetch({ tier1: [refused], tier2: [stored("tier2")] });
  await settle(6);
  expect(first.calls).toEqual(["tier1", "ahead 16777216"]);
  expect(turned.calls).toEqual(["tier2", "ahead 16777216"]);
  expect(second.calls).toEqual(["tier1", "tier2", "ahead 16777216"]);
  expect(second.actor.getSnapshot().output).toMatchObject({ kind: "fetched", from: "tier2", partial: false });
});

test("F3: the unfinished file is asked for last, and only when it will do", async () => {
  const wanted = fetch({ partial: [stored("tier2", 8192)] });
  const unwanted = fetch({ partial: [stored("tier2", 8192)] }, { partial: false });
  await settle(6);
  expect(wanted.calls).toEqual(["tier1", "tier2", "partial"]);
  expect(wanted.actor.getSnapshot().output).toEqual({
    kind: "fetched",
    from: "tier2",
    partial: true,
    bytes: 8192,
    segmentBytes: 16 << 20,
  });
  expect(unwanted.actor.getSnapshot().output).toEqual({ kind: "missing" });
});

test("F4: the second attempt comes after firstMs, asks all tiers again, and is the last", async () => {
  const { actor, clock, calls } = fetch({ tier1: [down] });
  await settle(6);
  clock.increment(99);
  expect(actor.getSnapshot().value).toBe("backingOff");
  clock.increment(1);
  expect(actor.getSnapshot().value).toBe("downloading");
  await settle(6);
  expect(calls).toEqual(["tier1", "tier2", "tier1", "tier2"]);
  expect(actor.getSnapshot().output).toEqual(down);
});

test("F4: a third attempt waits no longer than limitMs, and what came back then is fetched", async () => {
  const { actor, clock } = fetch({ tier1: [down, down, stored("tier1")] }, { maxAttempts: 3 });
  await settle(6);
  clock.increment(100);
  await settle(6);
  clock.increment(149);
  expect(actor.getSnapshot().value).toBe("backingOff");
  clock.increment(1);
  await settle(6);
  expect(actor.getSnapshot().output).toMatchObject({ kind: "fetched", from: "tier1" });
});

test("F4: what only a person can mend is not tried again", async () => {
  const { actor, calls } = fetch({ tier1: [refused], tier2: [refused] });
  await settle(6);
  expect(calls).toEqual(["tier1", "tier2"]);
  expect(actor.getSnapshot().output).toEqual(refused);
});

test("F5: nothing is fetched ahead of an unfinished file, nor when it is switched off", async () => {
  const spooled = fetch({ spool: taken });
  const off = fetch({ tier1: [stored("tier1")] }, { prefetch: false });
  const offSpooled = fetch({ spool: taken }, { prefetch: false });
  const partial = fetch({ partial: [stored("tier1", 1)] });
  await settle(6);
  expect(spooled.calls).toEqual(["ahead 16777216"]);
  expect(spooled.actor.getSnapshot().output).toMatchObject({ kind: "fetched", from: "spool" });
  expect(off.calls).toEqual(["tier1"]);
  expect(offSpooled.calls).toEqual([]);
  expect(partial.calls).toEqual(["tier1", "tier2", "partial"]);
});

test("a shutdown withdraws the request", async () => {
  const { actor } = fetch({ tier1: [down] });
  await settle(6);
  actor.send({ type: "shutdown.requested" });
  expect(actor.getSnapshot().output).toMatchObject({ kind: "retryable", code: "KLIO-CANCELLED" });
});

const done = (id: string, output: unknown) => ({ type: `xstate.done.actor.${id}`, output, actorId: id });
const events = {
  "shutdown.requested": { type: "shutdown.requested" },
  "takeSpooled/taken": done("takeSpooled", taken),
  "takeSpooled/absent": done("takeSpooled", absent),
  "downloadWal/stored": done("downloadWal", stored("tier1")),
  "downloadWal/missing": done("downloadWal", missing),
  "downloadWal/retryable": done("downloadWal", down),
  "downloadWal/fatal": done("downloadWal", refused),
  "downloadPartial/stored": done("downloadPartial", stored("tier1", 1)),
  "downloadPartial/missing": done("downloadPartial", missing),
  "downloadPartial/retryable": done("downloadPartial", down),
  "downloadPartial/fatal": done("downloadPartial", refused),
  fetchAhead: done("fetchAhead", null),
  backoff: { type: "xstate.after.backoff.walFetch.backingOff" },
};
const ignored = "ignored";
const row = (cells: Partial<Record<keyof typeof events, string>>) => ({
  ...(Object.fromEntries(Object.keys(events).map((key) => [key, ignored])) as Record<keyof typeof events, string>),
  "shutdown.requested": "cancelled",
  ...cells,
});
const transitionTable: Table = {
  spooled: row({ "takeSpooled/taken": "prefetching", "takeSpooled/absent": "downloading" }),
  downloading: row({
    "downloadWal/stored": "prefetching",
    "downloadWal/missing": "downloadingPartial",
    "downloadWal/retryable": "backingOff",
    "downloadWal/fatal": "failed",
  }),
  downloadingPartial: row({
    "downloadPartial/stored": "fetched",
    "downloadPartial/missing": "missing",
    "downloadPartial/retryable": "backingOff",
    "downloadPartial/fatal": "failed",
  }),
  backingOff: row({ backoff: "downloading" }),
  prefetching: row({ "shutdown.requested": "fetched", fetchAhead: "fetched" }),
};
const context = {
  ...input,
  at: 1,
  attempt: 1,
  failures: [],
  from: "" as const,
  isPartial: false,
  bytes: 0,
  segmentBytes: 0,
  isMissing: false,
};

test("every state answers every event as the table says", () => {
  checkTransitionTable(walFetch, context, transitionTable, events);
});

test("every state is reachable, and no path spends more than maxAttempts (F4)", () => {
  const reached = getShortestPaths(walFetch, { input, events: Object.values(events) as never }).map(
    ({ state }) => state,
  );
  expect(new Set(reached.map((state) => stateName(state.value)))).toEqual(
    new Set([...Object.keys(transitionTable), "fetched", "missing", "failed", "cancelled"]),
  );
  for (const state of reached) expect(state.context.attempt).toBeLessThanOrEqual(input.maxAttempts);
});

test("no tier is asked twice in an attempt, whatever the answers (F1, F2)", () => {
  const paths = getShortestPaths(walFetch, { input, events: Object.values(events) as never });
  for (const { state } of paths) {
    expect(state.context.at).toBeLessThan(input.tiers.length);
    if (state.value === "missing") expect(state.context.failures).toEqual([]);
  }
});
