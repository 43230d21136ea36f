import { expect, test } from "vitest";
import { createActor, fromPromise, SimulatedClock, toPromise } from "xstate";
import { getShortestPaths } from "xstate/graph";
import type { OffloadTask } from "../../../src/domain/offload-task.ts";
import { failure, type Outcome, ok } from "../../../src/domain/outcome.ts";
import {
  maxAttempts,
  type PutResult,
  type ReadResult,
  segmentOffload,
} from "../../../src/machines/segment-offload.machine.ts";
import { settle } from "../../support/eventually.ts";
import { checkTransitionTable } from "../../support/transition-table.ts";

const NAME = "000000010000000000000001";
const task: OffloadTask = {
  id: 7,
  cluster: "main",
  name: NAME,
  bytes: 10,
  deliveries: 1,
  traceparent: "",
  deadLetter: 0,
  spread: 1,
};
const read: Outcome<ReadResult> = ok({ kind: "read", name: NAME, bytes: 10, rawBytes: 1 << 24 });
const gone: Outcome<ReadResult> = ok({ kind: "gone" });
const nothing: Outcome<ReadResult> = ok({ kind: "nothing" });
const put: Outcome<PutResult> = ok({ bytes: 99, wasThere: false });
const down = failure("KLIO-S3-DOWN", "no answer");
const damaged = failure("KLIO-WAL-DAMAGED", "frame 3");
const busy = failure("KLIO-STORE-IO", "EIO");

type Script = {
  reads?: Outcome<ReadResult>[];
  puts?: Outcome<PutResult>[];
  finds?: Outcome<{ isHeld: boolean }>[];
  hangs?: "reading" | "putting";
};
const never = new Promise<never>(() => undefined);

function offload({ reads = [read], puts = [put], finds = [], hangs }: Script, changed: Partial<OffloadTask> = {}) {
  const clock = new SimulatedClock();
  const facts: { type: string }[] = [];
  const calls = { reads: 0, puts: 0 };
  const machine = segmentOffload.provide({
    actors: {
      readSegment: fromPromise(async () =>
        hangs === "reading" ? never : reads[Math.min(calls.reads++, reads.length - 1)]!,
      ),
      putSegment: fromPromise(async () =>
        hangs === "putting" ? never : puts[Math.min(calls.puts++, puts.length - 1)]!,
      ),
      findSegment: fromPromise(async () => finds[0]!),
      confirmSegment: fromPromise(async (): Promise<Outcome<void>> => ok(undefined)),
    },
  });
  const actor = createActor(machine, { id: "segmentOffload", clock, input: { task: { ...task, ...changed } } });
  actor.on("*", (fact) => facts.push(fact));
  return { actor: actor.start(), clock, facts, calls };
}

test("O1: the fact comes after tier 2's confirmation, with the bytes of the object", async () => {
  const { actor, facts } = offload({});
  expect(facts).toEqual([]);
  expect(await toPromise(actor)).toEqual({ kind: "done", name: NAME });
  expect(facts).toEqual([{ type: "segment.offloaded", cluster: "main", name: NAME, bytes: 99, rawBytes: 1 << 24 }]);
});

test("O1: a partial file that was completed meanwhile is reported under the name that was sent", async () => {
  const { actor, facts } = offload({}, { name: `${NAME}.partial` });
  expect(await toPromise(actor)).toEqual({ kind: "done", name: NAME });
  expect(facts).toMatchObject([{ name: NAME }]);
});

test("O2, O3: the second attempt starts after its wait and not a millisecond sooner", async () => {
  const { actor, clock, facts, calls } = offload({ puts: [busy, put] });
  await settle();
  expect(actor.getSnapshot().value).toBe("backingOff");
  clock.increment(249);
  expect(actor.getSnapshot().value).toBe("backingOff");
  clock.increment(1);
  expect(actor.getSnapshot().value).toBe("reading");
  await toPromise(actor);
  expect(calls).toEqual({ reads: 2, puts: 2 });
  expect(facts).toMatchObject([{ type: "segment.offloaded" }]);
});

test("O2: a fatal refusal is not tried again, a retryable one not more than maxAttempts times", async () => {
  const fatal = offload({ reads: [damaged] });
  expect(await toPromise(fatal.actor)).toEqual({
    kind: "failed",
    scope: "task",
    fatal: true,
    code: "KLIO-WAL-DAMAGED",
    reason: "frame 3",
  });
  expect(fatal.calls).toEqual({ reads: 1, puts: 0 });
  expect(fatal.facts).toEqual([{ type: "segment.abandoned", cluster: "main", name: NAME, reason: "frame 3" }]);
  const retried = offload({ puts: [busy] });
  for (let i = 0; i < maxAttempts; i++) {
    await settle();
    retried.clock.increment(60_000);
  }
  expect(await toPromise(retried.actor)).toMatchObject({ kind: "failed", scope: "task", fatal: false });
  expect(retried.calls.puts).toBe(maxAttempts);
});

test("O4: a file that is gone counts only when tier 2 holds it", async () => {
  const held = offload({ reads: [gone], finds: [ok({ isHeld: true })] });
  expect(await toPromise(held.actor)).toEqual({ kind: "done", name: NAME });
  expect(held.facts).toEqual([]);
  const lost = offload({ reads: [gone], finds: [ok({ isHeld: false })] });
  expect(await toPromise(lost.actor)).toMatchObject({ code: "KLIO-WAL-MISSING", fatal: true });
});

test("O7: a partial file of which nothing is left to relay ends well, without asking tier 2", async () => {
  const { actor, facts, calls } = offload({ reads: [nothing] });
  expect(await toPromise(actor)).toEqual({ kind: "done", name: NAME });
  expect([facts, calls.puts]).toEqual([[], 0]);
});

test("O5: a stop leaves no verdict and says nothing", async () => {
  for (const hangs of ["reading", "putting"] as const) {
    const { actor, facts } = offload({ hangs });
    await settle();
    expect(actor.getSnapshot().value).toBe(hangs);
    actor.send({ type: "shutdown.requested" });
    expect(await toPromise(actor)).toEqual({ kind: "interrupted" });
    expect(facts).toEqual([]);
  }
});

test("O6: tier 2 being away is not held against the file", async () => {
  const { actor, clock, facts } = offload({ puts: [down] });
  for (let i = 0; i < maxAttempts; i++) {
    await settle();
    clock.increment(60_000);
  }
  expect(await toPromise(actor)).toMatchObject({ kind: "failed", scope: "tier", fatal: false });
  expect(facts).toEqual([]);
});

const events = {
  "read/ok": { type: "xstate.done.actor.readSegment", output: read },
  "read/gone": { type: "xstate.done.actor.readSegment", output: gone },
  "read/nothing": { type: "xstate.done.actor.readSegment", output: nothing },
  "read/retryable": { type: "xstate.done.actor.readSegment", output: busy },
  "read/fatal": { type: "xstate.done.actor.readSegment", output: damaged },
  "put/ok": { type: "xstate.done.actor.putSegment", output: put },
  "put/retryable": { type: "xstate.done.actor.putSegment", output: busy },
  "put/fatal": { type: "xstate.done.actor.putSegment", output: damaged },
  "find/held": { type: "xstate.done.actor.findSegment", output: ok({ isHeld: true }) },
  "find/missing": { type: "xstate.done.actor.findSegment", output: ok({ isHeld: false }) },
  "find/retryable": { type: "xstate.done.actor.findSegment", output: busy },
  confirmed: { type: "xstate.done.actor.confirmSegment", output: ok(undefined) },
  waited: { type: "xstate.after.backoff.segmentOffload.backingOff" },
  "shutdown.requested": { type: "shutdown.requested" },
};
type State = "reading" | "putting" | "searching" | "backingOff" | "confirming";
const ignored = Object.fromEntries(Object.keys(events).map((key) => [key, "ignored"])) as Record<
  keyof typeof events,
  string
>;
const stopped = { "shutdown.requested": "interrupted" };

export const transitionTable: Record<State, Record<keyof typeof events, string>> = {
  reading: {
    ...ignored,
    ...stopped,
    "read/ok": "putting",
    "read/gone": "searching",
    "read/nothing": "present",
    "read/retryable": "backingOff",
    "read/fatal": "abandoned",
  },
  putting: {
    ...ignored,
    ...stopped,
    "put/ok": "confirming",
    "put/retryable": "backingOff",
    "put/fatal": "abandoned",
  },
  searching: {
    ...ignored,
    ...stopped,
    "find/held": "present",
    "find/missing": "abandoned",
    "find/retryable": "backingOff",
  },
  backingOff: { ...ignored, ...stopped, waited: "reading" },
  confirming: { ...ignored, ...stopped, confirmed: "offloaded" },
};

const context = createActor(segmentOffload, { id: "x", input: { task } }).getSnapshot().context;

test("every event in every state", () => {
  checkTransitionTable(segmentOffload, { ...context, attempt: 1 }, transitionTable, events);
});

test("every state is reachable; no path spends more than maxAttempts (O2)", () => {
  const outage = { type: "xstate.done.actor.putSegment", output: { ...down, kind: "fatal" } };
  const paths = getShortestPaths(segmentOffload, {
    input: { task },
    events: [...Object.values(events), outage] as never,
  });
  const reached = paths.map((path) => path.state);
  expect(new Set(reached.map((state) => state.value))).toEqual(
    new Set([
      "reading",
      "putting",
      "searching",
      "backingOff",
      "confirming",
      "offloaded",
      "present",
      "abandoned",
      "postponed",
      "interrupted",
    ]),
  );
  expect(reached.every((state) => state.context.attempt <= maxAttempts)).toBe(true);
});
