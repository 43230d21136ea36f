import { expect, test } from "vitest";
import { assign, emit, fromPromise, setup, toPromise } from "xstate";
import type { FactOf } from "../../../src/domain/facts.ts";
import { failure, type Outcome, ok } from "../../../src/domain/outcome.ts";
import type { StateMeta } from "../../../src/telemetry/state-telemetry.ts";
import { settle } from "../../support/eventually.ts";
import { recordedTelemetry } from "../../support/span-tree.ts";

type Answer = Outcome<{ bytes: number }>;
type Input = { name: string; answers: Answer[]; traceparent: string };
type Context = Input & { bytes: number; reason: string };

/** A backup in small: a run with retries, a verification, maintenance whose failure is tolerated. */
const ask = (queue: Answer[]) =>
  fromPromise<Answer>(async () => queue.shift() ?? failure("KLIO-CANCELLED", "nothing left to answer"));

const backup = setup({
  types: {
    input: {} as Input,
    context: {} as Context,
    events: {} as { type: "shutdown.requested" } | { type: "unheard" },
    emitted: {} as FactOf<"wal.received"> | { type: "told" },
    meta: {} as StateMeta,
  },
  actors: { copy: ask([]), verify: ask([]), maintain: ask([]) },
  actions: {
    keepBytes: assign({
      bytes: ({ context }, answer: Answer) => (answer.kind === "ok" ? answer.value.bytes : context.bytes),
    }),
    keepReason: assign({ reason: (_, answer: Answer) => (answer.kind === "ok" ? "" : answer.reason) }),
    tell: emit(({ context }) => ({ type: "wal.received", cluster: context.name, bytes: context.bytes }) as const),
  },
  guards: {
    isOk: (_, answer: Answer) => answer.kind === "ok",
    isRetryable: (_, answer: Answer) => answer.kind === "retryable",
  },
}).createMachine({
  id: "backup",
  context: ({ input }) => ({ ...input, bytes: 0, reason: "" }),
  initial: "copying",
  on: { "shutdown.requested": ".cancelled" },
  meta: {
    telemetry: {
      span: "backup",
      tracer: "klio.backup",
      newTrace: true,
      linkFrom: "traceparent",
      attributes: { "backup.name": "name", bytes: "bytes" },
      running: "klio.backup.running",
      latestStart: "klio.backup.latest_start_time",
      duration: "klio.backup.latest_duration_seconds",
    },
  },
  states: {
    copying: {
      meta: { telemetry: { span: "backup_run", tracer: "klio.backup", attributes: { bytes: "bytes" } } },
      initial: "asking",
      states: {
        asking: {
          invoke: {
            id: "copy",
            src: "copy",
            onDone: [
              {
                guard: { type: "isOk", params: ({ event }) => event.output },
                target: "#backup.verifying",
                actions: [{ type: "keepBytes", params: ({ event }) => event.output }, "tell"],
              },
              {
                guard: { type: "isRetryable", params: ({ event }) => event.output },
                target: "waiting",
                actions: { type: "keepReason", params: ({ event }) => event.output },
              },
              {
                target: "#backup.failed",
                actions: { type: "keepReason", params: ({ event }) => event.output },
              },
            ],
          },
        },
        waiting: { meta: { telemetry: { event: "retry", reason: "reason" } }, after: { 1: "asking" } },
      },
    },
    verifying: {
      meta: { telemetry: { span: "backup_verify", tracer: "klio.backup", count: "klio.backup.verifications" } },
      invoke: {
        id: "verify",
        src: "verify",
        onDone: [
          { guard: { type: "isOk", params: ({ event }) => event.output }, target: "maintaining" },
          { target: "failed", actions: { type: "keepReason", params: ({ event }) => event.output } },
        ],
      },
    },
    maintaining: {
      meta: { telemetry: { span: "backup_maintenance", tracer: "klio.backup" } },
      invoke: { id: "maintain", src: "maintain", onDone: "completed" },
    },
    completed: {
      type: "final",
      meta: {
        telemetry: {
          outcome: "ok",
          count: ["klio.backup.successes"],
          latestStart: "klio.backup.latest_completion_time",
        },
      },
    },
    failed: {
      type: "final",
      meta: { telemetry: { outcome: "error", reason: "reason", count: "klio.backup.failures" } },
    },
    cancelled: { type: "final", meta: { telemetry: { outcome: "cancelled" } } },
  },
});

/** An answer that is only given up when its state is left. */
const pending = fromPromise<Answer>(({ signal }) => {
  const { promise, reject } = Promise.withResolvers<never>();
  signal.addEventListener("abort", () => reject(new Error("aborted")));
  return promise;
});

const whole = ok({ bytes: 7 });
const broken = failure("KLIO-BACKUP-FAILED", "the disk is gone");
const shaky = failure("KLIO-SERVER-DOWN", "connection reset");

async function run(answers: { copy: Answer[]; verify?: Answer[]; maintain?: Answer[] }) {
  const recorded = await recordedTelemetry("klio-plugin");
  const { copy, verify = [whole], maintain = [whole] } = answers;
  const machine = backup.provide({ actors: { copy: ask(copy), verify: ask(verify), maintain: ask(maintain) } });
  const input = { name: "monday", answers: [], traceparent: "" };
  const actor = recorded.telemetry.start(machine, { id: "backup/monday", input });
  return { ...recorded, actor };
}

test("a good backup: its phases below it, attributes as they are at the end, metrics of every state", async () => {
  const { actor, tree, values, telemetry } = await run({ copy: [whole] });
  await toPromise(actor);
  await settle();
  expect(tree()).toEqual([
    {
      name: "backup",
      tracer: "klio.backup",
      attributes: { "backup.name": "monday", bytes: 7 },
      children: [
        { name: "backup_run", tracer: "klio.backup", attributes: { bytes: 7 } },
        { name: "backup_verify", tracer: "klio.backup" },
        { name: "backup_maintenance", tracer: "klio.backup" },
      ],
    },
  ]);
  const after = await values();
  expect(after).toMatchObject({
    "klio.backup.running": 0,
    "klio.backup.successes": 1,
    "klio.backup.failures": 0,
    "klio.backup.verifications": 1,
    "klio.wal.received_size{cluster_name=monday}": 7,
    "klio.stage.duration{outcome=ok,stage=backup_run}": 1,
    "klio.machine.state{machine=backup,state=completed}": 0,
  });
  expect(after["klio.backup.latest_completion_time"]).toBeGreaterThan(1_700_000_000);
  expect(after["klio.backup.latest_duration_seconds"]).toBeGreaterThanOrEqual(0);
  await telemetry.shutdown();
});

test("N2, N3, N4: a fatal answer makes the phase and the backup ERROR; the exception is at the phase alone", async () => {
  const { actor, tree, values, telemetry } = await run({ copy: [broken] });
  await toPromise(actor);
  expect(tree()).toEqual([
    {
      name: "backup",
      tracer: "klio.backup",
      status: "ERROR",
      message: "the disk is gone",
      outcome: "error",
      attributes: { "backup.name": "monday", bytes: 0 },
      children: [
        {
          name: "backup_run",
          tracer: "klio.backup",
          status: "ERROR",
          message: "the disk is gone",
          outcome: "error",
          attributes: { bytes: 0, "error.type": "KLIO-BACKUP-FAILED" },
          events: ["exception: the disk is gone"],
        },
      ],
    },
  ]);
  expect(await values()).toMatchObject({
    "klio.backup.failures": 1,
    "klio.backup.successes": 0,
    "klio.backup.running": 0,
  });
  await telemetry.shutdown();
});

test("N2: a retryable answer is an event, and a later success leaves nothing red", async () => {
  const { actor, tree, telemetry } = await run({ copy: [shaky, whole] });
  await toPromise(actor);
  const [root] = tree();
  expect(root?.status).toBeUndefined();
  expect(root?.children?.[0]).toEqual({
    name: "backup_run",
    tracer: "klio.backup",
    attributes: { bytes: 7 },
    events: ["retry: connection reset"],
  });
  await telemetry.shutdown();
});

test("N2: a tolerated failure is its own phase's alone", async () => {
  const { actor, tree, values, telemetry } = await run({ copy: [whole], maintain: [broken] });
  await toPromise(actor);
  const [root] = tree();
  expect(root?.status).toBeUndefined();
  expect(root?.children?.map(({ name, status }) => `${name} ${status ?? "-"}`)).toEqual([
    "backup_run -",
    "backup_verify -",
    "backup_maintenance ERROR",
  ]);
  expect(await values()).toMatchObject({ "klio.backup.successes": 1, "klio.backup.failures": 0 });
  await telemetry.shutdown();
});

test("N2: a cancellation and a stop are no errors; a stop ends all that is open", async () => {
  for (const [end, outcome] of [
    ["shutdown.requested", "cancelled"],
    ["stop", "stopped"],
  ] as const) {
    const { telemetry, tree, values } = await recordedTelemetry("klio-plugin");
    const machine = backup.provide({ actors: { copy: pending } });
    const input = { name: "monday", answers: [], traceparent: "" };
    const actor = telemetry.start(machine, { id: "backup/monday", input });
    expect(await values()).toMatchObject({
      "klio.backup.running": 1,
      "klio.machine.state{machine=backup,state=copying.asking}": 1,
    });
    if (end === "stop") actor.stop();
    else actor.send({ type: end });
    const [root] = tree();
    expect(root).toMatchObject({ name: "backup", outcome, children: [{ name: "backup_run", outcome }] });
    expect(JSON.stringify(tree())).not.toContain("ERROR");
    const after = await values();
    expect(after["klio.backup.running"]).toBe(0);
    expect(after["klio.machine.state{machine=backup,state=copying.asking}"]).toBe(0);
    await telemetry.shutdown();
  }
});

test("N7, N2: an actor that throws crashes the machine, its spans end ERROR, and the error reaches its owner", async () => {
  await using recorded = await recordedTelemetry("klio-plugin");
  const copy = fromPromise<Answer>(async () => {
    throw new Error("invariant broken");
  });
  const machine = backup.provide({ actors: { copy } });
  const actor = recorded.telemetry.start(machine, { id: "b", input: { name: "m", answers: [], traceparent: "" } });
  const told = Promise.withResolvers<unknown>();
  actor.subscribe({ error: told.resolve });
  expect(await told.promise).toEqual(new Error("invariant broken"));
  const [root] = recorded.tree();
  expect(root).toMatchObject({ status: "ERROR", outcome: "crashed" });
  expect(root?.children?.[0]).toMatchObject({ status: "ERROR", events: ["exception: invariant broken"] });
  expect(root?.events).toBeUndefined();
});

test("a new trace is linked to what it follows and has no parent, whatever is active", async () => {
  await using recorded = await recordedTelemetry("klio-plugin");
  const traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
  const machine = backup.provide({ actors: { copy: ask([broken]) } });
  const options = { id: "b", input: { name: "m", answers: [], traceparent } };
  await toPromise(recorded.telemetry.start(machine, { ...options, traceparent }));
  const [root] = recorded.tree();
  expect(root?.parent).toBeUndefined();
  expect(root?.links).toEqual(["remote", "remote"]);
});

test("the traceparent of an actor is that of its outermost span, also after its end", async () => {
  const { actor, spans, telemetry } = await run({ copy: [whole] });
  const early = telemetry.traceparentOf(actor);
  await toPromise(actor);
  const root = spans().find(({ name }) => name === "backup");
  expect(early).toBe(`00-${root?.spanContext().traceId}-${root?.spanContext().spanId}-01`);
  expect(telemetry.traceparentOf(actor)).toBe(early);
  await telemetry.shutdown();
});

test("an event that no state expects is counted, one that is handled is not", async () => {
  const { telemetry, values } = await recordedTelemetry("klio-plugin");
  const machine = backup.provide({ actors: { copy: pending } });
  const actor = telemetry.start(machine, { id: "b", input: { name: "m", answers: [], traceparent: "" } });
  actor.send({ type: "unheard" });
  actor.getSnapshot().can({ type: "unheard" });
  actor.send({ type: "shutdown.requested" });
  expect(await values()).toMatchObject({ "klio.machine.ignored{event=unheard,machine=backup}": 1 });
  expect(Object.keys(await values()).filter((name) => name.startsWith("klio.machine.ignored"))).toHaveLength(1);
  await telemetry.shutdown();
});

test("N2: a span that is left by a retryable answer has an event and no error", async () => {
  const { actor, tree, telemetry } = await run({ copy: [whole], maintain: [shaky] });
  await toPromise(actor);
  expect(tree()[0]?.children?.at(-1)).toEqual({
    name: "backup_maintenance",
    tracer: "klio.backup",
    events: ["retryable: connection reset"],
  });
  await telemetry.shutdown();
});
