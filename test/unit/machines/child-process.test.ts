import { expect, test } from "vitest";
import { createActor, fromCallback, SimulatedClock } from "xstate";
import { getShortestPaths } from "xstate/graph";
import { type ChildEvent, type ChildFact, childProcess } from "../../../src/machines/child-process.machine.ts";
import { checkTransitionTable, stateName, type Table } from "../../support/transition-table.ts";

const input = { name: "kopia", firstMs: 100, limitMs: 400, stableMs: 10_000 };

function start() {
  const clock = new SimulatedClock();
  const lives: ((event: ChildEvent) => void)[] = [];
  let stops = 0;
  const runChild = fromCallback<{ type: "shutdown.requested" }, { name: string }>(({ sendBack }) => {
    lives.push(sendBack);
    return () => {
      stops += 1;
    };
  });
  const facts: ChildFact[] = [];
  const actor = createActor(childProcess.provide({ actors: { runChild } }), { id: "childProcess/kopia", clock, input });
  actor.on("*", (fact) => facts.push(fact));
  actor.start();
  return { actor, clock, facts, lives, stops: () => stops, child: (event: ChildEvent) => lives.at(-1)?.(event) };
}

const events = {
  "child.ready": { type: "child.ready", pid: 7 },
  "child.ended": { type: "child.ended", reason: "signal SIGKILL" },
  "child.refused": { type: "child.refused", reason: "port busy" },
  "shutdown.requested": { type: "shutdown.requested" },
  backoff: { type: "xstate.after.backoff.childProcess.restarting" },
  stable: { type: "xstate.after.stable.childProcess.running.ready" },
};
const ignored = "ignored";
const ends = { "child.ended": "restarting", "child.refused": "failed", "shutdown.requested": "stopped" };
const transitionTable: Table = {
  "running.starting": { ...ends, "child.ready": "running.ready", backoff: ignored, stable: ignored },
  "running.ready": { ...ends, "child.ready": ignored, backoff: ignored, stable: ignored },
  restarting: {
    "child.ready": ignored,
    "child.ended": ignored,
    "child.refused": ignored,
    "shutdown.requested": "stopped",
    backoff: "running.starting",
    stable: ignored,
  },
};

test("every state answers every event as the table says", () => {
  checkTransitionTable(childProcess, { ...input, ends: 0, pid: 0, reason: "" }, transitionTable, events);
});

test("every state is reachable", () => {
  const reached = getShortestPaths(childProcess, {
    input,
    events: Object.values(events) as never,
    stopWhen: (state) => state.context.ends > 2,
  }).map((path) => stateName(path.state.value));
  expect(new Set(reached)).toEqual(new Set(["running.starting", "running.ready", "restarting", "failed", "stopped"]));
});

test("C1: the waits double up to the limit and begin anew after a stable time", () => {
  const { clock, lives, child, actor } = start();
  for (const wait of [100, 200, 400, 400]) {
    const before = lives.length;
    child({ type: "child.ended", reason: "exit status 1" });
    clock.increment(wait - 1);
    expect(lives.length).toBe(before);
    clock.increment(1);
    expect(lives.length).toBe(before + 1);
  }
  child({ type: "child.ready", pid: 8 });
  clock.increment(input.stableMs);
  expect(actor.getSnapshot().context.ends).toBe(0);
  child({ type: "child.ended", reason: "exit status 1" });
  clock.increment(100);
  expect(actor.getSnapshot().value).toEqual({ running: "starting" });
});

test("C2: a refusal is final and told with its reason", () => {
  const { actor, child, facts, clock, lives } = start();
  child({ type: "child.refused", reason: "port busy" });
  expect(actor.getSnapshot().value).toBe("failed");
  expect(facts).toEqual([{ type: "child.failed", name: "kopia", reason: "port busy" }]);
  clock.increment(1_000_000);
  expect(lives).toHaveLength(1);
});

test("C3: after a shutdown no further child is started", () => {
  for (const end of [true, false]) {
    const { actor, clock, child, lives, stops } = start();
    if (end) child({ type: "child.ended", reason: "x" });
    actor.send({ type: "shutdown.requested" });
    clock.increment(1_000_000);
    expect(actor.getSnapshot().value).toBe("stopped");
    expect(lives).toHaveLength(1);
    expect(stops()).toBe(1);
  }
});
