import fc from "fast-check";
import { expect, test } from "vitest";
import { createActor } from "xstate";
import { ActorLog, type LogLimits } from "../../../src/console/actor-log.ts";
import {
  activePaths,
  countsOf,
  emptyView,
  rowsAt,
  spanText,
  stepBeside,
  stepsOf,
  tally,
  updated,
  viewOf,
} from "../../../src/console/assets/view.js";
import { small } from "./small-chart.ts";

/** A log, the page's first picture of it, and what was true after each step. */
function watched(limits: Partial<LogLimits> = {}) {
  let nowMs = 0;
  const log = new ActorLog({ limits, now: () => ++nowMs });
  const start = (id: string) =>
    createActor(small, { id, input: { cluster: id }, inspect: (event) => log.take(event) }).start();
  const picture = () =>
    viewOf({
      title: "Klio",
      nowMs,
      window: limits.stepsPerChart ?? 250,
      charts: log.summary(),
      actors: log.rows(100),
      steps: structuredClone(log.steps()),
    });
  const lastSeq = () => log.steps().at(-1)?.seq ?? 0;
  return { log, start, picture, lastSeq };
}
const isActive = (actor: ReturnType<ReturnType<typeof watched>["start"]>) => actor.getSnapshot().status === "active";
const shown = (rows: ReturnType<typeof rowsAt>) =>
  rows.map(({ id, state, status }) => [id, state, status]).sort(([a = ""], [b = ""]) => (a < b ? -1 : 1));

test("Z5: an earlier step shows each actor as it was then", () => {
  const { start, picture, lastSeq } = watched();
  const a = start("a");
  const afterA = lastSeq();
  a.send({ type: "go", bytes: 200 });
  const b = start("b");
  const bothRun = lastSeq();
  a.send({ type: "stop" });
  b.send({ type: "go", bytes: 7 });
  const view = picture();
  expect(shown(rowsAt(view, "small", afterA))).toEqual([["a", "idle", "active"]]);
  expect(shown(rowsAt(view, "small", bothRun))).toEqual([
    ["a", "busy.left.on & busy.right.on", "active"],
    ["b", "idle", "active"],
  ]);
  expect(rowsAt(view, "small", afterA)[0]?.fields).toEqual({ cluster: "a", bytes: 0 });
  expect(rowsAt(view, "small", bothRun).find(({ id }) => id === "a")?.fields).toEqual({ cluster: "a", bytes: 200 });
  expect(shown(rowsAt(view, "small", undefined))).toEqual([
    ["a", "stopped", "done"],
    ["b", "busy.left.on & busy.right.on", "active"],
  ]);
  expect(rowsAt(view, "other", afterA)).toEqual([]);
});

test("Z5: an actor whose past is no longer kept is unknown, one that has not moved since is not", () => {
  const { start, picture, lastSeq } = watched({ stepsPerChart: 3 });
  start("quiet");
  const mover = start("mover");
  const other = start("other");
  const early = lastSeq();
  mover.send({ type: "go", bytes: 1 });
  other.send({ type: "stop" });
  // Kept: the mover's last step but one, its last, and the stop of the other. The mover's start is not.
  const view = picture();
  expect(shown(rowsAt(view, "small", early + 1))).toEqual([
    ["mover", "judging", "active"],
    ["other", "", "unknown"],
    ["quiet", "idle", "active"],
  ]);
});

test("Z5: an actor that only repeated itself since was in the same state, with values that are no longer known", () => {
  const { start, picture, lastSeq } = watched({ stepsPerChart: 3 });
  const actor = start("a");
  actor.send({ type: "go", bytes: 200 });
  start("b");
  const early = lastSeq();
  start("c");
  start("d");
  actor.send({ type: "tick" });
  const [a] = rowsAt(picture(), "small", early + 1).filter(({ id }) => id === "a");
  expect(a).toMatchObject({ state: "busy.left.on & busy.right.on", status: "active" });
  expect(a?.fields).toEqual({});
});

test("Z5: an actor that ended and was forgotten is still found in its steps", () => {
  const { start, picture, lastSeq } = watched({ stepsPerChart: 3, endedPerChart: 1 });
  const [gone, kept] = [start("gone"), start("kept")];
  const early = lastSeq();
  gone.send({ type: "stop" });
  kept.send({ type: "stop" });
  const view = picture();
  expect([...view.actors.values()].map(({ id }) => id)).toEqual(["kept"]);
  expect(shown(rowsAt(view, "small", early))).toEqual([
    ["gone", "", "unknown"],
    ["kept", "idle", "active"],
  ]);
});

test("Z5: at every step the page shows what was true then", () => {
  fc.assert(
    fc.property(
      fc.array(fc.tuple(fc.nat(3), fc.constantFrom("go", "tick", "left.done", "stop", "start")), { maxLength: 40 }),
      (moves) => {
        const { log, start, picture, lastSeq } = watched();
        const actors: ReturnType<typeof start>[] = [start("0")];
        const truth = new Map<number, unknown>();
        for (const [index, type] of moves) {
          if (type === "start") actors.push(start(String(actors.length)));
          else actors.filter(isActive)[index]?.send({ type, bytes: index * 60 } as never);
          truth.set(lastSeq(), shown(log.rows(100)));
        }
        const view = picture();
        for (const [seq, rows] of truth) expect(shown(rowsAt(view, "small", seq))).toEqual(rows);
      },
    ),
  );
});

test("Z4: the page keeps no more steps per chart than the server", () => {
  const { log, start, picture } = watched({ stepsPerChart: 6 });
  const actor = start("a");
  let view = picture();
  for (let i = 0; i < 20; i++) {
    actor.send({ type: "go", bytes: i });
    actor.send({ type: "left.done" });
    const steps = structuredClone(log.steps().slice(-4));
    view = updated(view, { charts: log.summary(), actors: log.rows(10), gone: [], steps });
    expect(view.steps).toEqual(log.steps());
  }
});

test("an update changes rows, forgets those that are gone and replaces a step that repeats", () => {
  const { log, start, picture } = watched();
  const [a] = [start("a"), start("b")];
  a.send({ type: "go", bytes: 1 });
  a.send({ type: "tick" });
  const before = picture();
  a.send({ type: "tick" });
  const update = { charts: log.summary(), actors: log.rows(10), gone: [2], steps: log.steps().slice(-1) };
  const after = updated(before, update);
  expect(after.steps.map(({ times }) => times)).toEqual([1, 1, 1, 1, 2]);
  expect([...after.actors.keys()]).toEqual([1]);
  expect(before.actors.size).toBe(2);
  expect(stepsOf(after, "", 0)).toHaveLength(5);
  expect(stepsOf(after, "small", 2).map(({ event }) => event)).toEqual(["started"]);
});

test("states of several actors are counted by path, regions and outer states too", () => {
  expect(activePaths("m", "a.b & a.c.d")).toEqual(["m", "m.a", "m.a.b", "m.a.c", "m.a.c.d"]);
  expect(activePaths("m", "")).toEqual(["m"]);
  const { start, picture } = watched();
  start("a").send({ type: "go", bytes: 1 });
  start("b");
  start("c").send({ type: "stop" });
  const counts = countsOf("small", tally(rowsAt(picture(), "small", undefined)));
  expect(Object.fromEntries(counts)).toEqual({
    small: 2,
    "small.idle": 1,
    "small.busy": 1,
    "small.busy.left": 1,
    "small.busy.left.on": 1,
    "small.busy.right": 1,
    "small.busy.right.on": 1,
  });
});

test("the way through time ends live, and at the oldest step", () => {
  const { start, picture } = watched();
  start("a").send({ type: "go", bytes: 1 });
  const { steps } = picture();
  expect(stepBeside(steps, undefined, -1)).toBe(3);
  expect(stepBeside(steps, 3, -1)).toBe(2);
  expect(stepBeside(steps, 1, -1)).toBe(1);
  expect(stepBeside(steps, 2, 1)).toBe(3);
  expect(stepBeside(steps, 3, 1)).toBeUndefined();
  expect(stepBeside([], undefined, -1)).toBeUndefined();
  expect(rowsAt(emptyView(), "small", undefined)).toEqual([]);
});

test.each([
  [-5, "0 s"],
  [59_999, "59 s"],
  [61_000, "1 min 1 s"],
  [3_600_000, "1 h 0 min"],
  [49 * 3_600_000, "2 d 1 h"],
])("%d ms are %j", (ms, text) => expect(spanText(ms)).toBe(text));
