import { expect, test } from "vitest";
import { createActor, fromPromise, SimulatedClock } from "xstate";
import { getShortestPaths } from "xstate/graph";
import { failure, type Outcome, ok } from "../../../src/domain/outcome.ts";
import { type SlotFact, type SlotLook, slotGuard } from "../../../src/machines/slot-guard.machine.ts";
import { settle } from "../../support/eventually.ts";
import { checkTransitionTable, stateName, type Table } from "../../support/transition-table.ts";

const input = {
  cluster: "main",
  slot: "klio",
  pollMs: 1_000,
  lagPart: 0.25,
  nearPart: 0.75,
  lagBytes: 1_000,
  soonSeconds: 60,
};
const unknown = { safeBytes: null, freeBytes: null, secondsToFull: null };
const present = (values: Partial<Extract<SlotLook, { kind: "present" }>> = {}): Outcome<SlotLook> =>
  ok({ kind: "present", active: true, status: "reserved", retainedBytes: 10, ...unknown, ...values });
const looks = {
  well: present(),
  behind: present({ retainedBytes: 1_001, active: false }),
  close: present({ retainedBytes: 301, safeBytes: 99, freeBytes: 9_000 }),
  soon: present({ safeBytes: 5_000, freeBytes: 2_000, secondsToFull: 59 }),
  unreserved: present({ status: "unreserved" }),
  missing: ok<SlotLook>({ kind: "missing" }),
  lost: present({ status: "lost" }),
  down: failure("KLIO-SOURCE-DOWN", "connection refused"),
} satisfies Record<string, Outcome<SlotLook>>;

function guard(answers: Outcome<SlotLook>[]) {
  const clock = new SimulatedClock();
  const facts: SlotFact[] = [];
  const readSlot = fromPromise<Outcome<SlotLook>, { slot: string }>(async () => answers.shift() ?? looks.well);
  const actor = createActor(slotGuard.provide({ actors: { readSlot } }), { id: "slotGuard", clock, input });
  actor.on("slot.changed", (fact) => facts.push(fact));
  actor.start();
  const look = async () => {
    clock.increment(input.pollMs);
    await settle();
  };
  return { actor, clock, facts, look };
}

const done = (output: Outcome<SlotLook>) => ({ type: "xstate.done.actor.readSlot", output });
const after = (state: string) => ({ type: `xstate.after.poll.slotGuard.${state}` });
const levels = ["watching", "lagging", "endangered", "lost"] as const;
const events = {
  ...Object.fromEntries(Object.entries(looks).map(([name, look]) => [`done/${name}`, done(look)])),
  ...Object.fromEntries(levels.map((level) => [`poll/${level}`, after(level)])),
  "shutdown.requested": { type: "shutdown.requested" },
};
const ignored = Object.fromEntries(Object.keys(events).map((name) => [name, "ignored"]));
const transitionTable: Table = {
  reading: {
    ...ignored,
    "done/well": "watching",
    "done/behind": "lagging",
    "done/close": "endangered",
    "done/soon": "endangered",
    "done/unreserved": "endangered",
    "done/missing": "endangered",
    "done/lost": "lost",
    "done/down": "watching",
    "shutdown.requested": "stopped",
  },
  ...Object.fromEntries(
    levels.map((level) => [level, { ...ignored, [`poll/${level}`]: "reading", "shutdown.requested": "stopped" }]),
  ),
};

test("every state answers every event as the table says", () => {
  const amounts = { status: "", retainedBytes: 0, ...unknown };
  const context = { ...input, ...amounts, level: "watching" as const, active: false, isPresent: false };
  checkTransitionTable(slotGuard, context, transitionTable, events);
});

test("every state is reachable", () => {
  const reached = getShortestPaths(slotGuard, {
    input,
    events: Object.values(events) as never,
    stopWhen: (state) => state.status !== "active",
  }).map((path) => stateName(path.state.value));
  expect(new Set(reached)).toEqual(new Set(["reading", ...levels, "stopped"]));
});

test("G1: lost comes from PostgreSQL's word, stays while it says so, and goes with it", async () => {
  const { actor, look } = guard([looks.lost, looks.down, looks.lost, looks.well]);
  const seen: unknown[] = [];
  for (let i = 0; i < 4; i++) {
    await look();
    seen.push(actor.getSnapshot().value);
  }
  expect(seen).toEqual(["lost", "lost", "lost", "watching"]);
});

test("G2: a look that fails leaves level and amounts as they were", async () => {
  const { actor, look, facts } = guard([looks.behind, looks.down]);
  await look();
  await look();
  expect(actor.getSnapshot().value).toBe("lagging");
  expect(actor.getSnapshot().context.retainedBytes).toBe(1_001);
  expect(facts).toHaveLength(1);
});

test("G3: a fact comes with each change of level, none without", async () => {
  const { look, facts } = guard([looks.well, looks.behind, looks.behind, looks.close, looks.unreserved, looks.well]);
  for (let i = 0; i < 6; i++) await look();
  expect(facts.map(({ level, retainedBytes }) => [level, retainedBytes])).toEqual([
    ["lagging", 1_001],
    ["endangered", 301],
    ["watching", 10],
  ]);
});

test("G4: a missing slot is endangered", async () => {
  const { actor, look } = guard([looks.missing]);
  await look();
  expect(actor.getSnapshot().value).toBe("endangered");
  expect(actor.getSnapshot().context).toMatchObject({ isPresent: false, retainedBytes: 0 });
});

test("G4: on a standby that is only waited for no slot is due; promoted without one it is endangered", async () => {
  const { actor, look } = guard([ok({ kind: "notDue" }), looks.missing]);
  await look();
  expect(actor.getSnapshot().value).toBe("watching");
  expect(actor.getSnapshot().context).toMatchObject({ isPresent: false, retainedBytes: 0 });
  await look();
  expect(actor.getSnapshot().value).toBe("endangered");
});

test("G5: a forecast within the limit endangers the slot, one beyond it does not; the amounts are told", async () => {
  const { actor, look, facts } = guard([present({ freeBytes: 9_000, secondsToFull: 60 }), looks.soon]);
  await look();
  expect(actor.getSnapshot().value).toBe("watching");
  await look();
  expect(actor.getSnapshot().value).toBe("endangered");
  expect(facts).toEqual([
    {
      type: "slot.changed",
      slot: "klio",
      level: "endangered",
      status: "reserved",
      retainedBytes: 10,
      safeBytes: 5_000,
      freeBytes: 2_000,
      secondsToFull: 59,
    },
  ]);
});

test.each<[string, number, number | null, number | null]>([
  ["watching", 1_000, null, null],
  ["lagging", 1_001, null, null],
  ["watching", 250, 750, 9_000],
  ["lagging", 251, 749, 9_000],
  ["lagging", 251, 9_000, 749],
  ["lagging", 750, 250, null],
  ["endangered", 751, 249, null],
  ["endangered", 751, null, 249],
  ["endangered", 10, 0, 9_000],
  ["watching", 100_000, 400_000, 900_000],
])("G6: %s with %d bytes kept, %s until the slot's limit, %s free on the volume", async (level, ...bytes) => {
  const [retainedBytes, safeBytes, freeBytes] = bytes;
  const { actor, look } = guard([present({ retainedBytes, safeBytes, freeBytes })]);
  await look();
  expect(actor.getSnapshot().value).toBe(level);
});

test("the source is looked at once per interval, not before", async () => {
  const { actor, clock } = guard([]);
  clock.increment(999);
  expect(actor.getSnapshot().value).toBe("watching");
  clock.increment(1);
  expect(actor.getSnapshot().value).toBe("reading");
});
