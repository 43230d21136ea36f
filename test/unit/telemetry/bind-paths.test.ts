// The binder against XState itself: after each step of a random walk the open spans are those of the active states, and
// each entry and each exit of an annotated state has its span. A tracer that throws changes nothing of the walk.
import { context, metrics, type Tracer } from "@opentelemetry/api";
import { AsyncLocalStorageContextManager } from "@opentelemetry/context-async-hooks";
import { InMemorySpanExporter, SimpleSpanProcessor, TracerProvider } from "@opentelemetry/sdk-trace";
import fc from "fast-check";
import { beforeAll, expect, test } from "vitest";
import {
  type AnyActor,
  type AnyMachineSnapshot,
  type AnyStateMachine,
  createActor,
  fromPromise,
  raise,
  SimulatedClock,
  setup,
} from "xstate";
import type { OffloadTask } from "../../../src/domain/offload-task.ts";
import { failure, ok } from "../../../src/domain/outcome.ts";
import { backupRelay } from "../../../src/machines/backup-relay.machine.ts";
import { segmentOffload } from "../../../src/machines/segment-offload.machine.ts";
import { walFetch } from "../../../src/machines/wal-fetch.machine.ts";
import { StatechartBinder } from "../../../src/telemetry/bind.ts";
import { Instruments } from "../../../src/telemetry/instruments.ts";
import type { StateMeta } from "../../../src/telemetry/state-telemetry.ts";
import { settle } from "../../support/eventually.ts";

beforeAll(() => {
  context.setGlobalContextManager(new AsyncLocalStorageContextManager().enable());
});

function bind(tracer?: Tracer) {
  const faults: unknown[] = [];
  const exporter = new InMemorySpanExporter();
  const provider = new TracerProvider({ spanProcessors: [new SimpleSpanProcessor({ exporter })] });
  const onFault = (error: unknown) => faults.push(error);
  const binder = new StatechartBinder({
    tracer: (name) => tracer ?? provider.getTracer(name),
    instruments: new Instruments(metrics.getMeter("test"), onFault), // of the API alone, which does nothing
    onFact: () => undefined,
    onFault,
  });
  return { binder, faults, ended: () => exporter.getFinishedSpans().map(({ name }) => name) };
}

/** Names of the spans that XState says should be open. */
function expectedSpans(actor: AnyActor): string[] {
  const snapshot: AnyMachineSnapshot = actor.getSnapshot();
  if (snapshot.status !== "active") return [];
  const metas = Object.values(snapshot.getMeta()) as (StateMeta | undefined)[];
  return metas.flatMap((meta) => meta?.telemetry?.span ?? []).sort();
}

const said: string[] = [];
const spanned = (span: string) => ({
  meta: { telemetry: { span, tracer: "klio.backup" } } satisfies StateMeta,
  entry: [{ type: "say", params: { what: `+${span}` } }] as const,
  exit: [{ type: "say", params: { what: `-${span}` } }] as const,
});

/** Everything that watching from outside gets wrong: transient states, re-entries, raised events, parallel completion. */
const torture = setup({
  types: {
    events: {} as { type: "next" | "again" | "soft" | "inner" | "hop" | "finish" | "restart" | "raised" },
    meta: {} as StateMeta,
  },
  actions: {
    say: (_, { what }: { what: string }) => {
      said.push(what);
    },
    raiseIt: raise({ type: "raised" }),
  },
}).createMachine({
  id: "torture",
  ...spanned("root"),
  initial: "transient",
  on: { restart: { target: ".transient" } },
  states: {
    transient: { ...spanned("transient"), always: "passing" },
    passing: { ...spanned("passing"), always: "work" },
    work: {
      ...spanned("work"),
      initial: "one",
      on: { again: { target: "work", reenter: true }, soft: {}, inner: ".two", finish: "both" },
      states: {
        one: { ...spanned("one"), on: { next: "two", hop: { target: "one", reenter: true } } },
        two: {
          ...spanned("two"),
          entry: [{ type: "say", params: { what: "+two" } }, "raiseIt"],
          on: { raised: "three" },
        },
        three: { ...spanned("three"), on: { next: "one" } },
      },
    },
    both: {
      ...spanned("both"),
      type: "parallel",
      onDone: "work",
      states: {
        left: {
          initial: "busy",
          states: { busy: { ...spanned("left"), on: { next: "done" } }, done: { type: "final" } },
        },
        right: {
          initial: "busy",
          states: {
            busy: { ...spanned("right"), on: { hop: "busy", inner: "done" } },
            done: { ...spanned("rightDone"), type: "final" },
          },
        },
      },
    },
  },
});

const tortureEvents = ["next", "again", "soft", "inner", "hop", "finish", "restart"] as const;

function walkTorture(events: readonly (typeof tortureEvents)[number][], tracer?: Tracer) {
  said.length = 0;
  const { binder, faults, ended } = bind(tracer);
  const actor = createActor(binder.instrument(torture), { id: "torture" }).start();
  const values = [JSON.stringify(actor.getSnapshot().value)];
  const open: string[][] = [];
  for (const type of events) {
    actor.send({ type });
    open.push(binder.openSpans(actor).sort());
    if (tracer === undefined) expect(open.at(-1), `after ${type}`).toEqual(expectedSpans(actor));
    values.push(JSON.stringify(actor.getSnapshot().value));
  }
  actor.stop();
  return { values, ended: ended(), faults, log: [...said] };
}

test("N1: on any walk the open spans are the active states, and each exit ended one span", () => {
  fc.assert(
    fc.property(fc.array(fc.constantFrom(...tortureEvents), { maxLength: 25 }), (events) => {
      const { ended, log, faults } = walkTorture(events);
      expect(faults).toEqual([]);
      // Entries without an exit are ended by the stop.
      const entries = log.filter((line) => line.startsWith("+")).map((line) => line.slice(1));
      expect([...ended].sort()).toEqual(entries.sort());
    }),
  );
});

test("N6: a tracer that throws at every call changes no walk", () => {
  const hostile: Tracer = {
    startSpan: () => {
      throw new Error("tracer is broken");
    },
    startActiveSpan: () => {
      throw new Error("tracer is broken");
    },
  };
  fc.assert(
    fc.property(fc.array(fc.constantFrom(...tortureEvents), { maxLength: 15 }), (events) => {
      const broken = walkTorture(events, hostile);
      expect(broken.faults.length).toBeGreaterThan(0);
      expect(broken.values).toEqual(walkTorture(events).values);
    }),
  );
});

const task: OffloadTask = {
  id: 1,
  cluster: "main",
  name: "000000010000000000000001",
  bytes: 1,
  deliveries: 1,
  traceparent: "",
  deadLetter: 0,
  spread: 0.5,
  backup: {
    sendToTier2: true,
    range: { startWal: "000000010000000000000001", endWal: "000000010000000000000001", segmentBytes: 16 << 20 },
  },
};
const failures = [failure("KLIO-S3-DOWN", "503"), failure("KLIO-S3-CONFLICT", "other bytes")];
const answers: Record<string, unknown[]> = {
  readSegment: [ok({ kind: "read", name: task.name, bytes: 1, rawBytes: 2 }), ok({ kind: "gone" }), ...failures],
  putSegment: [ok({ bytes: 1, wasThere: false }), ...failures],
  findSegment: [ok({ isHeld: true }), ok({ isHeld: false }), ...failures],
  confirmSegment: [ok(undefined), ...failures],
  findMissingWal: [ok({ missing: 0, first: "" }), ok({ missing: 2, first: task.name }), ...failures],
  chooseBackup: [ok({ kind: "one", backup: "b" }), ok({ kind: "none" }), ...failures],
  verifySource: [ok({ corrupt: [] }), ok({ corrupt: ["x"] }), ...failures],
  copyBackup: [ok({ bytes: 3 }), ...failures],
  verifyCopy: [ok({ corrupt: [] }), ok({ corrupt: ["x"] }), ...failures],
  applyRetention: [ok(undefined), ...failures],
  unpinBackup: [ok(undefined), ...failures],
  maintainTier1: [ok(undefined), ...failures],
  takeSpooled: [{ kind: "absent" }, { kind: "taken", segmentBytes: 1 }],
  downloadWal: [{ kind: "missing" }, { kind: "stored", tier: "tier2", bytes: 1, segmentBytes: 1 }, ...failures],
  downloadPartial: [{ kind: "missing" }, { kind: "stored", tier: "tier1", bytes: 1, segmentBytes: 1 }, ...failures],
  fetchAhead: [null],
};
const machines: [AnyStateMachine, unknown][] = [
  [segmentOffload, { task }],
  [backupRelay, { task }],
  [
    walFetch,
    {
      cluster: "main",
      name: task.name,
      tiers: ["tier1", "tier2"],
      partial: true,
      prefetch: true,
      maxAttempts: 2,
      firstMs: 10,
      limitMs: 100,
    },
  ],
];

test.each(machines)("N1: $id keeps its spans with its states, whatever its actors answer", async (machine, input) => {
  const step = fc.record({
    act: fc.constantFrom("answer", "answer", "answer", "answer", "wait", "stop"),
    pick: fc.nat(7),
  });
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 20 }), async (steps) => {
      const waiting: { name: string; resolve: (output: unknown) => void }[] = [];
      const asked = (name: string) =>
        fromPromise<unknown>(({ signal }) => {
          const { promise, resolve } = Promise.withResolvers<unknown>();
          const entry = { name, resolve };
          waiting.push(entry);
          signal.addEventListener("abort", () => waiting.splice(waiting.indexOf(entry), 1));
          return promise;
        });
      const actors = Object.fromEntries(Object.keys(answers).map((name) => [name, asked(name)]));
      const { binder, faults } = bind();
      const clock = new SimulatedClock();
      const actor = createActor(binder.instrument(machine.provide({ actors })), { id: "walk", clock, input }).start();
      for (const { act, pick } of steps) {
        if (actor.getSnapshot().status !== "active") break;
        const [next] = waiting;
        if (act === "stop" && pick === 0) actor.send({ type: "shutdown.requested" });
        else if (act === "wait") clock.increment(60_000);
        else if (next !== undefined) {
          waiting.shift();
          const outputs = answers[next.name] ?? [];
          next.resolve(outputs[pick % outputs.length]);
          await settle(1);
        }
        expect(binder.openSpans(actor).sort()).toEqual(expectedSpans(actor));
      }
      actor.stop();
      expect(binder.openSpans(actor)).toEqual([]);
      expect(faults).toEqual([]);
    }),
    { numRuns: 60 },
  );
});
