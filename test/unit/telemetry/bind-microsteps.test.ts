// States that say nothing still part the steps between which a span was left, unless only the root has a span.
import { expect, test } from "vitest";
import { assign, setup, toPromise } from "xstate";
import type { StateMeta } from "../../../src/telemetry/state-telemetry.ts";
import { recordedTelemetry } from "../../support/span-tree.ts";

const backup = (attributes: Record<string, string> = {}) => ({
  telemetry: { span: "backup", tracer: "klio.backup", attributes } as const,
});
const run = { telemetry: { span: "backup_run", tracer: "klio.backup", attributes: { bytes: "bytes" } } as const };
const refused = { telemetry: { outcome: "error", reason: "why" } as const };

test("N3: a verdict given after a state in between is not for a span that was left well before it", async () => {
  await using recorded = await recordedTelemetry("klio-server");
  const machine = setup({
    types: { meta: {} as StateMeta, context: {} as { why: string; bytes: number }, events: {} as { type: "copied" } },
  }).createMachine({
    id: "machine",
    context: { why: "the catalog is gone", bytes: 0 },
    meta: backup(),
    initial: "copying",
    states: {
      copying: { meta: run, on: { copied: "between" } },
      between: { always: "refused" },
      refused: { type: "final", meta: refused },
    },
  });
  const actor = recorded.telemetry.start(machine, { id: "machine", input: undefined });
  actor.send({ type: "copied" });
  await toPromise(actor);
  expect(recorded.tree()).toMatchObject([{ name: "backup", status: "ERROR", message: "the catalog is gone" }]);
  expect(recorded.tree()[0]?.children).toEqual([
    { name: "backup_run", tracer: "klio.backup", attributes: { bytes: 0 } },
  ]);
});

test("a span is told what the transition that leaves it brings, not what the next state makes of it", async () => {
  await using recorded = await recordedTelemetry("klio-server");
  const machine = setup({
    types: { meta: {} as StateMeta, context: {} as { bytes: number }, events: {} as { type: "copied" } },
    actions: { count: assign({ bytes: 7 }), forget: assign({ bytes: 0 }) },
  }).createMachine({
    id: "machine",
    context: { bytes: 0 },
    initial: "copying",
    states: {
      copying: { meta: run, on: { copied: { target: "idle", actions: "count" } } },
      idle: { entry: "forget" },
    },
  });
  recorded.telemetry.start(machine, { id: "machine", input: undefined }).send({ type: "copied" });
  expect(recorded.tree()).toEqual([{ name: "backup_run", tracer: "klio.backup", attributes: { bytes: 7 } }]);
});

test("a root that is entered again gets its next span, and each keeps its own verdict and attributes", async () => {
  await using recorded = await recordedTelemetry("klio-server");
  const machine = setup({
    types: {
      meta: {} as StateMeta,
      context: {} as { why: string; bytes: number },
      events: {} as { type: "again" },
    },
    actions: { count: assign({ bytes: 7 }) },
    guards: { isCounted: ({ context }) => context.bytes === 7 },
  }).createMachine({
    id: "machine",
    context: { why: "the catalog is gone", bytes: 1 },
    meta: backup({ bytes: "bytes" }),
    initial: "working",
    on: { again: { target: "#machine", reenter: true, actions: "count" } },
    states: {
      working: { always: { guard: "isCounted", target: "refused" } },
      refused: { type: "final", meta: refused },
    },
  });
  const actor = recorded.telemetry.start(machine, { id: "machine", input: undefined });
  actor.send({ type: "again" });
  await toPromise(actor);
  expect(recorded.tree()).toEqual([
    { name: "backup", tracer: "klio.backup", attributes: { bytes: 7 } },
    {
      name: "backup",
      tracer: "klio.backup",
      status: "ERROR",
      message: "the catalog is gone",
      outcome: "error",
      attributes: { bytes: 7 },
      events: ["exception: the catalog is gone"],
    },
  ]);
});

test("where only the root has a span, a plain state is counted all the same, and has no action of the binder", async () => {
  await using recorded = await recordedTelemetry("klio-server");
  const machine = setup({
    types: { meta: {} as StateMeta, events: {} as { type: "copied" | "over" } },
  }).createMachine({
    id: "machine",
    meta: backup(),
    initial: "copying",
    states: { copying: { on: { copied: "idle" } }, idle: { on: { over: "done" } }, done: { type: "final" } },
  });
  const actor = recorded.telemetry.start(machine, { id: "machine", input: undefined });
  const counted = async () => {
    const values = await recorded.values();
    return ["copying", "idle", "done"].map((state) => values[`klio.machine.state{machine=machine,state=${state}}`]);
  };
  expect(await counted()).toEqual([1, 0, 0]);
  actor.send({ type: "copied" });
  expect(await counted()).toEqual([0, 1, 0]);
  actor.send({ type: "over" });
  expect(await counted()).toEqual([0, 0, 0]);
  expect(recorded.tree()).toEqual([{ name: "backup", tracer: "klio.backup" }]);
  const { copying, idle, done } = actor.logic.states;
  expect([copying, idle, done].map((state) => [state?.entry.length, state?.exit.length])).toEqual([
    [0, 0],
    [0, 0],
    [0, 0],
  ]);
});
