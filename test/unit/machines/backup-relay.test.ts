import { expect, test } from "vitest";
import { createActor, fromPromise, SimulatedClock, toPromise } from "xstate";
import { getShortestPaths } from "xstate/graph";
import { failure, type Outcome, ok } from "../../../src/domain/outcome.ts";
import {
  backupRelay,
  type Choice,
  lookMs,
  maxLooks,
  type Verification,
} from "../../../src/machines/backup-relay.machine.ts";
import { settle } from "../../support/eventually.ts";
import { relayTask } from "../../support/relay-task.ts";
import { checkTransitionTable, stateName } from "../../support/transition-table.ts";

const range = { startWal: "000000010000000000000001", endWal: "000000010000000000000002", segmentBytes: 16 << 20 };
const wanted = relayTask({ sendToTier2: true, range });
const sound = ok<Verification>({ corrupt: [] });
const corrupt = ok<Verification>({ corrupt: ["base/1 is damaged", "base/2", "base/3", "base/4"] });
const down = failure("KLIO-REPOSITORY-DOWN", "no answer");
const done = ok(undefined) as Outcome<void>;
const never = new Promise<never>(() => undefined);

type Script = {
  missing?: number[];
  choice?: Outcome<Choice>;
  source?: Outcome<Verification>;
  copied?: Outcome<{ bytes: number }> | "hangs";
  verified?: Outcome<Verification>;
  retained?: Outcome<void>;
  unpinned?: Outcome<void>;
  maintained?: Outcome<void>;
};

function relay(script: Script, task = wanted) {
  const clock = new SimulatedClock();
  const calls: string[] = [];
  const facts: string[] = [];
  let looks = 0;
  const answer = <T>(name: string, value: T) =>
    fromPromise<T, never>(async () => {
      calls.push(name);
      return value;
    }) as never;
  const machine = backupRelay.provide({
    actors: {
      findMissingWal: fromPromise(async () => {
        calls.push("look");
        const missing = script.missing?.[Math.min(looks++, script.missing.length - 1)] ?? 0;
        return ok({ missing, first: missing === 0 ? "" : range.endWal });
      }),
      chooseBackup: answer("choose", script.choice ?? ok<Choice>({ kind: "one", backup: "b1" })),
      verifySource: answer("source", script.source ?? sound),
      copyBackup: fromPromise(async () => {
        calls.push("copy");
        return script.copied === "hangs" ? never : (script.copied ?? ok({ bytes: 1 }));
      }),
      verifyCopy: answer("verify", script.verified ?? sound),
      applyRetention: answer("retain", script.retained ?? done),
      unpinBackup: answer("unpin", script.unpinned ?? done),
      maintainTier1: answer("maintain", script.maintained ?? done),
    },
  });
  const actor = createActor(machine, { id: "backupRelay", clock, input: { task } });
  actor.on("*", (fact) => void facts.push(fact.type));
  actor.start();
  return { actor, clock, calls, facts };
}

test("Y1, Y3: copied, verified, then unpinned, then finished", async () => {
  const { actor, calls, facts } = relay({});
  expect(await toPromise(actor)).toEqual({ kind: "done", name: "b1" });
  expect(calls).toEqual(["look", "choose", "source", "copy", "verify", "retain", "unpin", "maintain"]);
  expect(facts).toEqual(["relay.verified", "relay.finished"]);
});

test("Y2: corruption on either tier is final, expires nothing and unpins nothing", async () => {
  const copy = relay({ verified: corrupt });
  expect(await toPromise(copy.actor)).toEqual({
    kind: "failed",
    scope: "task",
    fatal: true,
    code: "KLIO-BACKUP-CORRUPT",
    reason: "tier 2: base/1 is damaged; base/2; base/3",
  });
  expect(copy.calls).toEqual(["look", "choose", "source", "copy", "verify"]);
  expect(copy.facts).toEqual(["relay.corrupt"]);
  const source = relay({ source: corrupt });
  expect(await toPromise(source.actor)).toMatchObject({ fatal: true, code: "KLIO-BACKUP-CORRUPT" });
  expect(source.calls).toEqual(["look", "choose", "source"]);
  expect(source.facts).toEqual([]);
});

test("Y3: a verification that could not be done unpins nothing, and is tried again when the tier is back", async () => {
  const { actor, calls, facts } = relay({ verified: down });
  expect(await toPromise(actor)).toMatchObject({ kind: "failed", scope: "tier", fatal: false });
  expect(calls).not.toContain("unpin");
  expect(facts).toEqual([]);
});

test("Y4: missing WAL is looked for again and again, then the relay is deferred, not failed", async () => {
  const late = relay({ missing: [2, 1, 0] });
  for (let i = 0; i < 2; i++) {
    await settle();
    late.clock.increment(lookMs);
  }
  expect(await toPromise(late.actor)).toMatchObject({ kind: "done" });
  const lost = relay({ missing: [1] });
  for (let i = 0; i < maxLooks; i++) {
    await settle();
    lost.clock.increment(lookMs);
  }
  expect(await toPromise(lost.actor)).toEqual({
    kind: "deferred",
    reason: `1 WAL files are missing, first ${range.endWal}`,
  });
  expect(lost.calls.filter((call) => call !== "look")).toEqual([]);
});

test("Y5: tier 1's maintenance follows every relay and fails none; without tier 2 it is all that is done", async () => {
  expect(await toPromise(relay({ maintained: down }).actor)).toMatchObject({ kind: "done" });
  const local = relay({}, relayTask({ sendToTier2: false, range }));
  expect(await toPromise(local.actor)).toMatchObject({ kind: "done" });
  expect(local.calls).toEqual(["look", "maintain"]);
  expect(local.facts).toEqual([]);
  const impossible = relay({ choice: failure("KLIO-TIER-MISSING", "no tier 2") });
  expect(await toPromise(impossible.actor)).toMatchObject({
    kind: "failed",
    scope: "task",
    fatal: true,
    code: "KLIO-TIER-MISSING",
  });
  expect(impossible.calls).toEqual(["look", "choose", "maintain"]);
  const gone = relay({ choice: ok<Choice>({ kind: "none" }) });
  expect(await toPromise(gone.actor)).toMatchObject({ kind: "done" });
  expect(gone.calls).toEqual(["look", "choose", "maintain"]);
});

test("Y6: a stop in mid copy leaves no verdict", async () => {
  const { actor, facts } = relay({ copied: "hangs" });
  await settle(10);
  expect(stateName(actor.getSnapshot().value)).toBe("relaying.copying");
  actor.send({ type: "shutdown.requested" });
  expect(await toPromise(actor)).toEqual({ kind: "interrupted" });
  expect(facts).toEqual([]);
});

test("a task without a WAL range (of an older peer) goes on at once", async () => {
  const { actor, calls } = relay({}, relayTask({ sendToTier2: true }));
  await toPromise(actor);
  expect(calls[0]).toBe("choose");
});

const fromActor = (src: string, output: unknown) => ({ type: `xstate.done.actor.${src}`, output });
const events = {
  "found/complete": fromActor("findMissingWal", ok({ missing: 0, first: "" })),
  "found/missing": fromActor("findMissingWal", ok({ missing: 1, first: "x" })),
  "found/failed": fromActor("findMissingWal", down),
  "chosen/one": fromActor("chooseBackup", ok({ kind: "one", backup: "b1" })),
  "chosen/none": fromActor("chooseBackup", ok({ kind: "none" })),
  "source/sound": fromActor("verifySource", sound),
  "source/corrupt": fromActor("verifySource", corrupt),
  "source/failed": fromActor("verifySource", down),
  "copied/ok": fromActor("copyBackup", ok({ bytes: 1 })),
  "copied/failed": fromActor("copyBackup", down),
  "verified/sound": fromActor("verifyCopy", sound),
  "verified/corrupt": fromActor("verifyCopy", corrupt),
  "verified/failed": fromActor("verifyCopy", down),
  "retained/ok": fromActor("applyRetention", done),
  "retained/failed": fromActor("applyRetention", down),
  "unpinned/ok": fromActor("unpinBackup", done),
  "unpinned/failed": fromActor("unpinBackup", down),
  maintained: fromActor("maintainTier1", done),
  look: { type: "xstate.after.look.backupRelay.awaitingWal.waiting" },
  "shutdown.requested": { type: "shutdown.requested" },
};
type State =
  | "awaitingWal.looking"
  | "awaitingWal.waiting"
  | `relaying.${"choosing" | "verifyingSource" | "copying" | "verifying" | "applyingRetention" | "unpinning" | "maintaining"}`;
const ignored = Object.fromEntries(Object.keys(events).map((key) => [key, "ignored"])) as Record<
  keyof typeof events,
  string
>;
const stop = { "shutdown.requested": "interrupted" };

export const transitionTable: Record<State, Record<keyof typeof events, string>> = {
  "awaitingWal.looking": {
    ...ignored,
    ...stop,
    "found/complete": "relaying.choosing",
    "found/missing": "awaitingWal.waiting",
    "found/failed": "postponed",
  },
  "awaitingWal.waiting": { ...ignored, ...stop, look: "awaitingWal.looking" },
  "relaying.choosing": {
    ...ignored,
    ...stop,
    "chosen/one": "relaying.verifyingSource",
    "chosen/none": "relaying.maintaining",
  },
  "relaying.verifyingSource": {
    ...ignored,
    ...stop,
    "source/sound": "relaying.copying",
    "source/corrupt": "deadLettered",
    "source/failed": "postponed",
  },
  "relaying.copying": { ...ignored, ...stop, "copied/ok": "relaying.verifying", "copied/failed": "postponed" },
  "relaying.verifying": {
    ...ignored,
    ...stop,
    "verified/sound": "relaying.applyingRetention",
    "verified/corrupt": "deadLettered",
    "verified/failed": "postponed",
  },
  "relaying.applyingRetention": {
    ...ignored,
    ...stop,
    "retained/ok": "relaying.unpinning",
    "retained/failed": "postponed",
  },
  "relaying.unpinning": { ...ignored, ...stop, "unpinned/ok": "relaying.maintaining", "unpinned/failed": "postponed" },
  "relaying.maintaining": { ...ignored, ...stop, maintained: "relayed" },
};

const { context } = createActor(backupRelay, { id: "x", input: { task: wanted } }).getSnapshot();

test("every event in every state", () => {
  checkTransitionTable(backupRelay, { ...context, looks: 1 }, transitionTable, events);
});

test("every state is reachable", () => {
  const reached = getShortestPaths(backupRelay, {
    input: { task: wanted },
    events: Object.values(events) as never,
  });
  expect(new Set(reached.map(({ state }) => stateName(state.value)))).toEqual(
    new Set([...Object.keys(transitionTable), "relayed", "deferred", "deadLettered", "postponed", "interrupted"]),
  );
});
