import { expect, test } from "vitest";
import { createActor, fromPromise, SimulatedClock } from "xstate";
import { getShortestPaths } from "xstate/graph";
import type { Failure, Outcome } from "../../../src/domain/outcome.ts";
import { role } from "../../../src/machines/role.machine.ts";
import { settle } from "../../support/eventually.ts";
import { checkTransitionTable, stateName, type Table } from "../../support/transition-table.ts";

const input = { name: "server", drainLimitMs: 1000 };
const failed: Failure = { kind: "fatal", code: "KLIO-PORT-BUSY", reason: "port 52000 is in use" };
const ok: Outcome<null> = { kind: "ok", value: null };
const never = <T>() => new Promise<T>(() => undefined);

function start(parts: {
  open?: () => Promise<Outcome<null>>;
  watch?: () => Promise<Failure>;
  close?: () => Promise<null>;
}) {
  const clock = new SimulatedClock();
  const calls: string[] = [];
  const count = <T>(name: string, run: () => Promise<T>) =>
    fromPromise<T, null>(() => {
      calls.push(name);
      return run();
    });
  const actors = {
    openParts: count("open", parts.open ?? (async () => ok)),
    watchParts: count("watch", parts.watch ?? (() => never<Failure>())),
    closeParts: count("close", parts.close ?? (async () => null)),
  };
  const actor = createActor(role.provide({ actors }), { id: "role/test", clock, input });
  return { actor: actor.start(), clock, calls };
}

const done = (id: string, output: unknown) => ({ type: `xstate.done.actor.${id}`, output, actorId: id });
const events = {
  "shutdown.requested": { type: "shutdown.requested" },
  "openParts/ok": done("openParts", ok),
  "openParts/failed": done("openParts", failed),
  watchParts: done("watchParts", failed),
  closeParts: done("closeParts", null),
  drainLimit: { type: "xstate.after.drainLimit.role.draining" },
};
const ignored = "ignored";
const transitionTable: Table = {
  starting: {
    "shutdown.requested": "draining",
    "openParts/ok": "serving",
    "openParts/failed": "draining",
    watchParts: ignored,
    closeParts: ignored,
    drainLimit: ignored,
  },
  serving: {
    "shutdown.requested": "draining",
    "openParts/ok": ignored,
    "openParts/failed": ignored,
    watchParts: "draining",
    closeParts: ignored,
    drainLimit: ignored,
  },
  draining: {
    "shutdown.requested": ignored,
    "openParts/ok": ignored,
    "openParts/failed": ignored,
    watchParts: ignored,
    closeParts: "stopped",
    drainLimit: "stopped",
  },
};

test("every state answers every event as the table says", () => {
  checkTransitionTable(role, { ...input, failure: null, drained: false }, transitionTable, events);
});

test("every state is reachable", () => {
  const reached = getShortestPaths(role, { input, events: Object.values(events) as never }).map((path) =>
    stateName(path.state.value),
  );
  expect(new Set(reached)).toEqual(new Set(["starting", "serving", "draining", "stopped"]));
});

test("L1: a shutdown while starting or serving drains once and stops", async () => {
  for (const open of [() => never<Outcome<null>>(), async () => ok]) {
    const { actor, calls } = start({ open });
    await settle();
    actor.send({ type: "shutdown.requested" });
    actor.send({ type: "shutdown.requested" });
    await settle();
    expect(actor.getSnapshot().output).toEqual({ failure: null, drained: true });
    expect(calls.filter((call) => call === "close")).toHaveLength(1);
  }
});

test("L2: a failed start closes what was opened and tells the failure", async () => {
  const { actor, calls } = start({ open: async () => failed });
  await settle();
  expect(calls).toEqual(["open", "close"]);
  expect(actor.getSnapshot().output).toEqual({ failure: failed, drained: true });
});

test("L3: draining ends at the limit, not a millisecond sooner", async () => {
  const { actor, clock } = start({ close: () => never<null>() });
  await settle();
  actor.send({ type: "shutdown.requested" });
  clock.increment(999);
  expect(actor.getSnapshot().status).toBe("active");
  clock.increment(1);
  expect(actor.getSnapshot().output).toEqual({ failure: null, drained: false });
});

test("L4: a part that fails for good ends the role with its failure", async () => {
  const { actor } = start({ watch: async () => failed });
  await settle();
  expect(actor.getSnapshot().output).toEqual({ failure: failed, drained: true });
});
