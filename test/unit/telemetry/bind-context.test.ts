// Which span is active for what a state invokes, and which series a gauge moves on.
import { context, ROOT_CONTEXT } from "@opentelemetry/api";
import { expect, test } from "vitest";
import { assign, emit, fromPromise, setup, toPromise } from "xstate";
import type { FactOf } from "../../../src/domain/facts.ts";
import type { StateMeta } from "../../../src/telemetry/state-telemetry.ts";
import { contextFrom, traceparentIn } from "../../../src/telemetry/traceparent.ts";
import { settle } from "../../support/eventually.ts";
import { recordedTelemetry } from "../../support/span-tree.ts";

test("what a state invokes runs in the context of its span, after an await, in a child machine, and whoever sent the event", async () => {
  await using recorded = await recordedTelemetry("klio-server");
  const seen: Record<string, string | undefined> = {};
  const note = (name: string) =>
    fromPromise<null>(async () => {
      await settle(1);
      seen[name] = traceparentIn(context.active())?.slice(36, 52);
      return null;
    });
  const child = setup({
    types: { meta: {} as StateMeta, emitted: {} as FactOf<"wal.durable"> },
    actors: { inner: note("inner") },
    actions: { tell: emit({ type: "wal.durable", cluster: "main", bytes: 3 }) },
  }).createMachine({
    id: "child",
    initial: "asking",
    states: {
      asking: {
        meta: { telemetry: { span: "tier2_backup_verify", tracer: "klio.consumer" } },
        entry: "tell",
        invoke: { id: "inner", src: "inner", onDone: "done" },
      },
      done: { type: "final" },
    },
  });
  const parent = setup({
    types: { meta: {} as StateMeta, events: {} as { type: "go" } },
    actors: { first: note("first"), child },
  }).createMachine({
    id: "parent",
    initial: "idle",
    states: {
      idle: { on: { go: "working" } },
      working: {
        meta: { telemetry: { span: "tier2_backup", tracer: "klio.consumer" } },
        initial: "first",
        states: {
          first: {
            meta: { telemetry: { span: "tier2_backup_migrate", tracer: "klio.consumer" } },
            invoke: { id: "first", src: "first", onDone: "second" },
          },
          second: { invoke: { id: "child", src: "child", onDone: "done" } },
          done: { type: "final" },
        },
        onDone: "over",
      },
      over: { type: "final" },
    },
  });
  const actor = recorded.telemetry.start(parent, { id: "parent", input: undefined });
  const other = contextFrom(ROOT_CONTEXT, "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
  context.with(other, () => actor.send({ type: "go" }));
  await toPromise(actor);
  expect(recorded.tree()).toEqual([
    {
      name: "tier2_backup",
      tracer: "klio.consumer",
      children: [
        { name: "tier2_backup_migrate", tracer: "klio.consumer" },
        { name: "tier2_backup_verify", tracer: "klio.consumer" },
      ],
    },
  ]);
  const idOf = (name: string) =>
    recorded
      .spans()
      .find((span) => span.name === name)
      ?.spanContext().spanId;
  expect(seen).toEqual({ first: idOf("tier2_backup_migrate"), inner: idOf("tier2_backup_verify") });
  expect(await recorded.values()).toMatchObject({ "klio.wal.written_size{cluster_name=main}": 3 });
});

test("N5: a gauge goes down on the series on which it went up, whatever became of the label's value", async () => {
  await using recorded = await recordedTelemetry("klio-server");
  const moving = setup({
    types: { meta: {} as StateMeta, context: {} as { cluster: string }, events: {} as { type: "renamed" | "over" } },
    actions: { rename: assign({ cluster: "b" }) },
  }).createMachine({
    id: "moving",
    context: { cluster: "a" },
    initial: "here",
    states: {
      here: {
        meta: { telemetry: { running: "klio.wal.exposure", labels: { cluster_name: "cluster" } } },
        on: { renamed: { actions: "rename" }, over: "there" },
      },
      there: {},
    },
  });
  const actor = recorded.telemetry.start(moving, { id: "moving", input: undefined });
  actor.send({ type: "renamed" });
  actor.send({ type: "over" });
  const values = Object.entries(await recorded.values()).filter(([name]) => name.startsWith("klio.wal.exposure"));
  expect(values).toEqual([["klio.wal.exposure{cluster_name=a}", 0]]);
});
