import { expect, test, vi } from "vitest";
import { Actor, type AnyStateMachine, assign, createActor, type InspectionEvent, setup } from "xstate";
import { ActorLog, type ActorRow, type LogLimits, type Step } from "../../../src/console/actor-log.ts";
import { settle } from "../../support/eventually.ts";
import { small } from "./small-chart.ts";

/** A log on a clock that moves by a millisecond with each look at it. */
function newLog(limits: Partial<LogLimits> = {}) {
  let nowMs = 0;
  return new ActorLog({ limits, now: () => ++nowMs });
}
function start(log: ActorLog, id = "small:1") {
  return createActor(small, { id, input: { cluster: "main" }, inspect: (event) => log.take(event) }).start();
}
const told = (steps: Step[]) => steps.map(({ event, state, times }) => [event, state, times]);

/** A parent whose children are told apart by what they do when asked. */
const child = setup({
  types: { events: {} as { type: "end" } | { type: "break" } },
  actions: {
    fail: () => {
      throw new Error("hunter2");
    },
  },
}).createMachine({
  id: "child",
  initial: "on",
  states: { on: { on: { end: "off", break: { actions: "fail" } } }, off: { type: "final" } },
});
const parent = setup({ actors: { child }, types: { events: {} as { type: "stopChild" } } }).createMachine({
  id: "parent",
  initial: "up",
  states: {
    up: {
      invoke: { id: "child:1", src: "child", onDone: "down", onError: "down" },
      on: { stopChild: "down" },
    },
    down: {},
  },
});

test("each transition is recorded with its state, also those that nobody stays in", () => {
  const log = newLog();
  const actor = start(log);
  actor.send({ type: "go", bytes: 200 });
  const steps = log.steps();
  expect(told(steps)).toEqual([
    ["started", "idle", 1],
    ["go", "judging", 1],
    ["go", "busy.left.on & busy.right.on", 1],
  ]);
  expect(steps.map(({ edges }) => edges)).toEqual([[], ["small.idle|go|0"], ["small.judging||0"]]);
  expect(steps.map(({ seq, actor: key, chart, id }) => [seq, key, chart, id])).toEqual(
    [1, 2, 3].map((seq) => [seq, 1, "small", "small:1"]),
  );
  expect(log.rows(10)).toEqual([
    {
      key: 1,
      parent: 0,
      chart: "small",
      id: "small:1",
      state: "busy.left.on & busy.right.on",
      sinceMs: steps[2]!.atMs - 1,
      status: "active",
      fields: { cluster: "main", bytes: 200 },
    } satisfies ActorRow,
  ]);
  expect(log.machine("small")?.id).toBe("small");
});

test("Z8: neither payloads nor context outside the list are kept", () => {
  const log = newLog();
  const actor = start(log);
  actor.send({ type: "go", bytes: 200, token: "hunter2" } as never);
  actor.send({ type: "unheard", token: "hunter2" } as never);
  const kept = JSON.stringify([log.steps(), log.rows(10), log.summary()]);
  expect(kept).not.toContain("hunter2");
  expect(kept).not.toContain("token");
  expect(log.steps().at(-1)).toMatchObject({ event: "unheard", edges: [] });
});

test("Z6: steps, ended and living actors are bounded", () => {
  const log = newLog({ stepsPerChart: 5, endedPerChart: 3, living: 4 });
  const actors = Array.from({ length: 10 }, (_, index) => start(log, `small:${index}`));
  expect(log.steps()).toHaveLength(5);
  expect(log.rows(100).map(({ id }) => id)).toEqual(["small:6", "small:7", "small:8", "small:9"]);
  expect(log.summary()).toEqual([{ chart: "small", living: 4, ended: 0, inState: { idle: 4 } }]);
  for (const actor of actors) actor.send({ type: "stop" });
  expect(log.steps()).toHaveLength(5);
  expect(log.rows(100).map(({ id, status }) => [id, status])).toEqual([
    ["small:7", "done"],
    ["small:8", "done"],
    ["small:9", "done"],
  ]);
  expect(log.summary()).toEqual([{ chart: "small", living: 0, ended: 4, inState: {} }]);
});

test("Z6: an actor that falls out is told to the one who watches", () => {
  const log = newLog({ endedPerChart: 1, living: 2 });
  const gone: number[] = [];
  log.listener = {
    step: () => undefined,
    row: (key, row) => {
      if (row === undefined) gone.push(key);
    },
  };
  const [, second, third] = [start(log), start(log), start(log)];
  expect(gone).toEqual([1]);
  second?.send({ type: "stop" });
  third?.send({ type: "stop" });
  expect(gone).toEqual([1, 2]);
});

test("Z6: rows beyond the limit are those that changed longest ago", () => {
  const log = newLog();
  const actors = ["a", "b", "c"].map((id) => start(log, id));
  actors[0]?.send({ type: "go", bytes: 1 });
  expect(log.rows(2).map(({ id }) => id)).toEqual(["a", "c"]);
  expect(log.summary()[0]).toMatchObject({
    living: 3,
    inState: { idle: 2, "busy.left.on & busy.right.on": 1 },
  });
});

test("Z10: a step that repeats is counted, not kept again", () => {
  const log = newLog();
  const actor = start(log);
  actor.send({ type: "go", bytes: 1 });
  for (let i = 0; i < 400; i++) actor.send({ type: "tick" });
  actor.send({ type: "left.done" });
  actor.send({ type: "tick" });
  const last = log.steps().filter(({ event }) => event === "tick" || event === "left.done");
  expect(told(last)).toEqual([
    ["tick", "busy.left.on & busy.right.on", 400],
    ["left.done", "busy.left.off & busy.right.on", 1],
    ["tick", "busy.left.off & busy.right.on", 1],
  ]);
  expect(last.map(({ fields }) => fields.bytes)).toEqual([400, 400, 401]);
  expect(log.steps()).toHaveLength(7);
});

test("Z10: what repeats a step that is kept no longer is kept again", () => {
  const log = newLog({ stepsPerChart: 2 });
  const busy = start(log);
  busy.send({ type: "go", bytes: 1 });
  busy.send({ type: "tick" });
  start(log);
  start(log);
  expect(log.steps().map(({ event }) => event)).toEqual(["started", "started"]);
  busy.send({ type: "tick" });
  expect(told(log.steps()).at(-1)).toEqual(["tick", "busy.left.on & busy.right.on", 1]);
});

test("a stop ends an actor, from outside and by its parent", () => {
  const log = newLog();
  const alone = start(log);
  alone.stop();
  const family = createActor(parent, { id: "parent", inspect: (event) => log.take(event) }).start();
  family.send({ type: "stopChild" });
  expect(log.rows(10).map(({ id, status, parent: of }) => [id, status, of])).toEqual([
    ["parent", "active", 0],
    ["small:1", "stopped", 0],
    ["child:1", "stopped", expect.any(Number)],
  ]);
});

test("an exception ends an actor: a child's at once, a root's at the next look", async () => {
  const log = newLog();
  const family = createActor(parent, { id: "parent", inspect: (event) => log.take(event) }).start();
  family.system.get("child:1");
  family.getSnapshot().children["child:1"]?.send({ type: "break" });
  expect(log.rows(10).find(({ id }) => id === "child:1")).toMatchObject({ status: "error" });
  expect(log.steps().find(({ id, event }) => id === "child:1" && event === "exception")).toBeDefined();
  const root = createActor(child, { id: "root", inspect: (event) => log.take(event) });
  const errors: unknown[] = [];
  root.subscribe({ error: (error) => errors.push(error) });
  root.start();
  root.send({ type: "break" });
  await settle();
  log.look();
  log.look();
  expect(log.rows(10).find(({ id }) => id === "root")).toMatchObject({ status: "error" });
  expect(log.steps().filter(({ id, event }) => id === "root" && event === "exception")).toHaveLength(1);
  expect(errors).toHaveLength(1);
  expect(JSON.stringify(log.steps())).not.toContain("hunter2");
});

test("Z7: an inspected actor runs as one that is not, and its errors still reach its owner", () => {
  const log = newLog({ stepsPerChart: 2, endedPerChart: 1, living: 1 });
  const run = (machine: AnyStateMachine, inspect: boolean) => {
    const actor = createActor(machine, {
      id: "a",
      input: { cluster: "a" },
      ...(inspect && { inspect: (event) => log.take(event) }),
    });
    const seen: unknown[] = [];
    actor.subscribe({ next: ({ value }) => seen.push(value), error: (error) => seen.push(String(error)) });
    actor.start();
    for (const type of ["go", "tick", "unheard", "break", "stop"])
      if (actor.getSnapshot().status === "active") actor.send({ type, bytes: 200 });
    return [seen, actor.getSnapshot().status];
  };
  for (const machine of [small, child]) expect(run(machine, true)).toEqual(run(machine, false));
});

test("Z7: no actor is subscribed to: that would hide its errors from its owner", () => {
  const subscribe = vi.spyOn(Actor.prototype, "subscribe");
  const log = newLog();
  start(log).send({ type: "stop" });
  log.look();
  expect(subscribe).not.toHaveBeenCalled();
  subscribe.mockRestore();
});

test("without XState's private list of transitions states and steps are still right", () => {
  const log = newLog();
  const swing = setup({}).createMachine({
    id: "swing",
    initial: "a",
    states: { a: { on: { next: "b" } }, b: { on: { next: "a" } } },
  });
  const inspect = (event: InspectionEvent) => log.take({ ...event, _transitions: undefined } as never);
  const actor = createActor(swing, { id: "swing", inspect }).start();
  for (let i = 0; i < 3; i++) actor.send({ type: "next" });
  expect(told(log.steps())).toEqual([
    ["started", "a", 1],
    ["next", "b", 1],
    ["next", "a", 1],
    ["next", "b", 1],
  ]);
});

test("Z7: an ended actor is not kept", () => {
  const log = newLog();
  start(log).send({ type: "stop" });
  expect([...Object.values(log)].filter((part) => part instanceof Map).map((map) => map.size)).toEqual([1, 0, 1]);
  expect(log.rows(1)).toEqual([expect.not.objectContaining({ ref: expect.anything() })]);
});

test("a chart that ends as it begins is shown as ended", () => {
  const log = newLog();
  const brief = setup({ actions: { nothing: assign({}) } }).createMachine({
    id: "brief",
    initial: "end",
    states: { end: { type: "final", entry: "nothing" } },
  });
  createActor(brief, { id: "brief", inspect: (event) => log.take(event) }).start();
  expect(log.rows(1)).toMatchObject([{ id: "brief", state: "end", status: "done" }]);
});
