import { expect, test } from "vitest";
import { createActor, getInitialSnapshot, getNextSnapshot } from "xstate";
import { ActorLog } from "../../../src/console/actor-log.ts";
import { chartOf, edgeId, eventText, stateText } from "../../../src/console/chart.ts";
import { walStream } from "../../../src/machines/wal-stream.machine.ts";
import { recordedTelemetry } from "../../support/span-tree.ts";
import { small } from "./small-chart.ts";

test("Z1: states are named by their path, transitions by source, event and place", () => {
  const chart = chartOf(small);
  expect(chart.root.states.map(({ id, kind }) => [id, kind])).toEqual([
    ["small.idle", "atomic"],
    ["small.judging", "atomic"],
    ["small.busy", "parallel"],
    ["small.stopped", "final"],
  ]);
  expect(chart.root).toMatchObject({ name: "small", initial: "small.idle" });
  expect(chart.root.states[0]).toMatchObject({ description: "nothing to do", invokes: [] });
  expect(chart.root.states[2]?.invokes).toEqual(["work"]);
  expect(chart.edges.map(({ id }) => id)).toEqual([
    "small|stop|0",
    "small.idle|go|0",
    "small.idle|go|1",
    "small.judging||0",
    "small.busy|tick|0",
    "small.busy|xstate.done.state.small.busy|0",
    "small.busy|xstate.done.actor.work|0",
    "small.busy|xstate.after.patience.small.busy|0",
    "small.busy.left.on|left.done|0",
  ]);
  expect(chart.edges[1]).toMatchObject({
    source: "small.idle",
    targets: ["small.judging"],
    event: "go",
    guard: "isLarge",
    actions: ["keep"],
  });
  expect(chart.edges[4]).toMatchObject({ targets: [], actions: ["count"] });
});

test("Z1: a machine with the same chart but other actors gives the same chart", () => {
  expect(chartOf(small.provide({ delays: { patience: 5 } }))).toEqual(chartOf(small));
});

test("Z1: what telemetry put into a machine is no part of its chart", async () => {
  await using recorded = await recordedTelemetry();
  const log = new ActorLog();
  const actor = recorded.telemetry.start(small, { id: "small", input: { cluster: "a" } });
  const machine = (actor as { logic?: unknown }).logic as typeof small;
  expect(chartOf(machine)).toEqual(chartOf(small));
  const watched = createActor(machine, {
    id: "watched",
    input: { cluster: "a" },
    inspect: (event) => log.take(event),
  }).start();
  watched.send({ type: "go", bytes: 200 });
  expect(log.steps().map(({ edges }) => edges)).toEqual([[], ["small.idle|go|0"], ["small.judging||0"]]);
  watched.stop();
  actor.stop();
});

test("Z1: each transition of a real machine finds its own name again", () => {
  const ids = chartOf(walStream).edges.map(({ id }) => id);
  expect(new Set(ids).size).toBe(ids.length);
  const walk = (node: typeof walStream.root): string[] => [
    ...[...node.transitions.values()].flat().map(edgeId),
    ...(node.always ?? []).map(edgeId),
    ...Object.values(node.states).flatMap((child) => walk(child as typeof node)),
  ];
  expect(walk(walStream.root).sort()).toEqual([...ids].sort());
});

test("states are written as paths, regions side by side", () => {
  const idle = getInitialSnapshot(small, { cluster: "a" });
  expect(stateText(idle.value)).toBe("idle");
  const busy = getNextSnapshot(small, idle, { type: "go", bytes: 1 });
  expect(stateText(busy.value)).toBe("busy.left.on & busy.right.on");
  expect(stateText({})).toBe("");
});

test.each([
  ["xstate.done.actor.putSegment", "putSegment done"],
  ["xstate.error.actor.a.b:c", "a.b:c failed"],
  ["xstate.done.actor.*", "any actor done"],
  ["xstate.snapshot.actor.child", "child changed"],
  ["xstate.done.state.backup.run", "all done"],
  ["xstate.after.backoff.small.busy", "after backoff"],
  ["shutdown.requested", "shutdown.requested"],
  ["", ""],
])("an event %j reads %j", (type, text) => expect(eventText(type)).toBe(text));
