import { expect, test } from "vitest";
import { createActor, fromCallback, fromPromise, SimulatedClock } from "xstate";
import { failure, type Outcome, ok } from "../../../src/domain/outcome.ts";
import {
  type ShipmentEnd,
  type ShipmentEvent,
  type ShipmentInput,
  segmentShipment,
} from "../../../src/machines/segment-shipment.machine.ts";
import { walStream } from "../../../src/machines/wal-stream.machine.ts";
import type {
  Negotiation,
  RecordedGap,
  SlotPosition,
  SourceIdentity,
  StartPosition,
  StreamInput,
  WalStreamEvent,
  WalStreamFact,
  WalStreamInput,
} from "../../../src/machines/wal-stream-events.ts";
import { settle } from "../../support/eventually.ts";
import { down, identity, input, other, position, recordedGap, segment, start } from "../../support/stream-answers.ts";
import { stateName } from "../../support/transition-table.ts";

type Answers = {
  identify?: Outcome<SourceIdentity>[];
  slot?: Outcome<SlotPosition>[];
  gap?: Outcome<RecordedGap>[];
  start?: Outcome<StartPosition>;
  history?: Outcome<null>[];
};

/** The machine with actors that answer from lists, and the means to tell events in their place. */
function stream(answers: Answers = {}, given: Partial<WalStreamInput> = {}) {
  const clock = new SimulatedClock();
  const calls: string[] = [];
  const facts: WalStreamFact[] = [];
  const live = { hold: 0, stream: 0, ship: 0 };
  let tell: (event: WalStreamEvent) => void = () => undefined;
  let hold: (event: WalStreamEvent) => void = () => undefined;
  const ships = new Map<string, (event: ShipmentEvent) => void>();
  const inputs: { stream?: StreamInput; negotiation?: Negotiation; ship?: ShipmentInput } = {};
  const drains: string[] = [];
  const next = <T>(list: T[] | undefined, otherwise: T) =>
    list === undefined ? otherwise : (list.shift() ?? otherwise);
  const actors = {
    holdSource: fromCallback<{ type: "shutdown.requested" }, { slot: string }>(({ sendBack }) => {
      calls.push("connect");
      live.hold += 1;
      hold = sendBack;
      return () => {
        live.hold -= 1;
      };
    }),
    identifySystem: fromPromise<Outcome<SourceIdentity>, null>(async () => {
      calls.push("identify");
      return next(answers.identify, ok(identity));
    }),
    secureSlot: fromPromise<Outcome<SlotPosition>, { slot: string }>(async () => {
      calls.push("slot");
      return next(answers.slot, ok(position));
    }),
    recordGap: fromPromise<Outcome<RecordedGap>, { slot: string } & SourceIdentity>(async ({ input: asked }) => {
      calls.push(`gap ${asked.slot} ${asked.systemId} ${asked.flushLsn}`);
      return next(answers.gap, ok(recordedGap));
    }),
    negotiateStart: fromPromise<Outcome<StartPosition>, Negotiation>(async ({ input: asked }) => {
      calls.push("negotiate");
      inputs.negotiation = asked;
      return answers.start ?? ok(start);
    }),
    fetchHistory: fromPromise<Outcome<null>, { timeline: number }>(async ({ input: { timeline } }) => {
      calls.push(`history ${timeline}`);
      return next(answers.history, ok(null));
    }),
    streamWal: fromCallback<{ type: "shutdown.requested" }, StreamInput>(({ input: asked, sendBack, receive }) => {
      calls.push(`stream ${asked.timeline} ${asked.startLsn}`);
      inputs.stream = asked;
      live.stream += 1;
      tell = sendBack;
      receive(({ type }) => drains.push(type));
      return () => {
        live.stream -= 1;
      };
    }),
    segmentShipment: segmentShipment.provide({
      actors: {
        shipSegment: fromCallback<{ type: "shutdown.requested" }, ShipmentInput>(({ input: asked, sendBack }) => {
          inputs.ship = asked;
          live.ship += 1;
          ships.set(asked.name, sendBack);
          return () => {
            live.ship -= 1;
          };
        }),
      },
    }),
  };
  const actor = createActor(walStream.provide({ actors }), {
    id: "walStream/main",
    clock,
    input: { ...input, ...given },
  });
  actor.on("*", (fact) => facts.push(fact));
  actor.start();
  const connect = async () => {
    hold({ type: "source.connected" });
    await settle(12);
  };
  return {
    actor,
    clock,
    calls,
    facts,
    live,
    inputs,
    drains,
    connect,
    hold: (event: WalStreamEvent) => hold(event),
    tell: (event: WalStreamEvent) => tell(event),
    ship: (name: string, end: ShipmentEnd) => ships.get(name)?.({ type: "shipment.ended", end }),
    state: () => stateName(actor.getSnapshot().value),
  };
}

test("W1: source, slot, server and only then WAL, on every connection", async () => {
  const { calls, connect, clock, tell, inputs, facts } = stream();
  await connect();
  const order = ["connect", "identify", "slot", "negotiate", "stream 1 0/4000000"];
  expect(calls).toEqual(order);
  expect(inputs.negotiation).toEqual({ ...identity, restartLsn: "0/4000000" });
  expect(inputs.stream).toEqual({
    timeline: 1,
    startLsn: "0/4000000",
    flushLsn: "0/5000000",
    segmentBytes: 1 << 24,
    slot: "klio",
    method: "stream",
  });
  expect(facts).toEqual([
    { type: "stream.started", cluster: "main", timeline: 1, startLsn: "0/4000000", abandonedBytes: 0 },
  ]);
  tell({ type: "stream.ended", failure: down });
  clock.increment(100);
  await connect();
  expect(calls).toEqual([...order, ...order]);
});

test("W2: histories come first, oldest first, at the start and after a switch of timeline", async () => {
  const { calls, connect, tell } = stream({
    identify: [ok({ ...identity, timeline: 3 }), ok({ ...identity, timeline: 4 })],
    start: ok({ ...start, timeline: 2 }),
  });
  await connect();
  expect(calls.slice(4)).toEqual(["history 2", "history 3", "stream 2 0/4000000"]);
  tell({ type: "stream.switched", timeline: 4, startLsn: "0/5000000" });
  await settle(12);
  expect(calls.slice(7)).toEqual(["identify", "history 2", "history 3", "history 4", "stream 4 0/5000000"]);
});

test("W2: without a history no WAL is sent", async () => {
  const { calls, connect, state } = stream({
    identify: [ok({ ...identity, timeline: 2 })],
    history: [failure("KLIO-TIMELINE", "another history")],
  });
  await connect();
  expect(state()).toBe("blocked");
  expect(calls.at(-1)).toBe("history 2");
});

test.each([
  ["identify", { identify: [other] }],
  ["slot", { slot: [failure("KLIO-SLOT-LOST", "lost")] }],
  ["negotiate", { start: failure("KLIO-SERVER-AHEAD", "ahead") }],
])("W3: a fatal answer of %s blocks, and is looked at again after the wait", async (last, answers) => {
  const { actor, calls, connect, clock, state, facts, live } = stream(answers);
  await connect();
  expect(state()).toBe("blocked");
  expect(calls.at(-1)).toBe(last);
  expect(live).toEqual({ hold: 0, stream: 0, ship: 0 });
  expect(facts).toEqual([expect.objectContaining({ type: "stream.blocked", attempt: 1 })]);
  expect(actor.getSnapshot().context.code).toMatch(/^KLIO-S/);
  clock.increment(29_999);
  expect(state()).toBe("blocked");
  clock.increment(1);
  expect(state()).toBe("attached.connecting");
});

test("W4: waits double up to the limit; a confirmed byte begins anew", async () => {
  const { clock, hold, connect, tell, state, facts } = stream();
  for (const wait of [100, 200, 400, 400]) {
    hold({ type: "source.lost", failure: down });
    clock.increment(wait - 1);
    expect(state()).toBe("backingOff");
    clock.increment(1);
    expect(state()).toBe("attached.connecting");
  }
  await connect();
  tell({ type: "stream.ended", failure: down });
  clock.increment(399);
  expect(state()).toBe("backingOff");
  clock.increment(1);
  await connect();
  tell({ type: "stream.progressed", flushedLsn: "0/4000100" });
  tell({ type: "stream.ended", failure: down });
  clock.increment(100);
  expect(state()).toBe("attached.connecting");
  expect(
    facts.filter(({ type }) => type === "stream.interrupted").map((fact) => "attempt" in fact && fact.attempt),
  ).toEqual([1, 2, 3, 4, 5, 1]);
});

test("W5: a drain asks the stream to confirm, keeps its shipments, and ends when it is told", async () => {
  const { actor, connect, tell, ship, drains, live, state, facts } = stream();
  await connect();
  tell({ type: "segment.opened", name: segment, fromOffset: 0 });
  actor.send({ type: "shutdown.requested" });
  expect(drains).toEqual(["shutdown.requested"]);
  expect(live).toEqual({ hold: 1, stream: 1, ship: 1 });
  ship(segment, { kind: "parted" });
  expect(state()).toBe("attached.streaming.draining");
  tell({ type: "stream.drained" });
  expect(state()).toBe("stopped");
  expect(live).toEqual({ hold: 0, stream: 0, ship: 0 });
  expect(facts.at(-1)).toEqual({ type: "stream.stopped", cluster: "main" });
});

test("W5: a drain that is not answered ends at its limit", async () => {
  const { actor, connect, clock, state } = stream();
  await connect();
  actor.send({ type: "shutdown.requested" });
  clock.increment(4_999);
  expect(state()).toBe("attached.streaming.draining");
  clock.increment(1);
  expect(state()).toBe("stopped");
});

test("W6: an unconfirmed shipment ends the connection and the other shipments", async () => {
  const { connect, tell, ship, live, state, inputs, actor } = stream();
  await connect();
  tell({ type: "segment.opened", name: segment, fromOffset: 8192 });
  expect(inputs.ship).toEqual({
    cluster: "main",
    name: segment,
    segmentBytes: 1 << 24,
    fromOffset: 8192,
    method: "stream",
    sendToTier2: true,
    confirmLimitMs: 1_000,
  });
  tell({ type: "segment.opened", name: "000000010000000000000005", fromOffset: 0 });
  ship(segment, { kind: "shipped" });
  expect(actor.getSnapshot().context.shipments).toEqual(["segmentShipment:000000010000000000000005"]);
  tell({ type: "segment.opened", name: "000000010000000000000006", fromOffset: 0 });
  ship("000000010000000000000005", down);
  expect(state()).toBe("backingOff");
  expect(live).toEqual({ hold: 0, stream: 0, ship: 0 });
  expect(actor.getSnapshot().context.shipments).toEqual([]);
});

test("W6: a refused shipment blocks", async () => {
  const { connect, tell, ship, state } = stream();
  await connect();
  tell({ type: "segment.opened", name: segment, fromOffset: 0 });
  ship(segment, failure("KLIO-WAL-MISMATCH", "other bytes"));
  expect(state()).toBe("blocked");
});

test("W7: a server without Stream is asked again at once and gets whole files", async () => {
  const { connect, tell, ship, calls, facts, inputs, live } = stream();
  await connect();
  tell({ type: "segment.opened", name: segment, fromOffset: 0 });
  ship(segment, { kind: "unimplemented" });
  expect(facts.at(-1)).toEqual({ type: "stream.degraded", cluster: "main" });
  expect(calls.at(-1)).toBe("connect");
  expect(live).toEqual({ hold: 1, stream: 0, ship: 0 });
  await connect();
  expect(inputs.stream?.method).toBe("put");
  tell({ type: "segment.opened", name: segment, fromOffset: 0 });
  expect(inputs.ship?.method).toBe("put");
});

const lost = failure("KLIO-SLOT-LOST", "removed");
const record = { gapPolicy: "record" } as const;

test("W8: with the policy a lost slot is answered at once: recorded before the slot is made again and WAL is asked for", async () => {
  const { connect, calls, facts, state, tell } = stream({ slot: [lost] }, record);
  await connect();
  expect(calls).toEqual(["connect", "identify", "slot", "connect"]);
  await connect();
  expect(calls.slice(4)).toEqual(["identify", "gap klio 73 0/5000000", "slot", "negotiate", "stream 1 0/4000000"]);
  expect(facts.map(({ type }) => type)).toEqual(["stream.gap", "stream.started"]);
  expect(facts[0]).toEqual({
    type: "stream.gap",
    cluster: "main",
    code: lost.code,
    reason: lost.reason,
    ...recordedGap,
  });
  // The same again before a byte was confirmed: the record did not help, a person must.
  tell({ type: "stream.ended", failure: failure("KLIO-WAL-GAP", "removed") });
  await settle();
  expect(state()).toBe("blocked");
});

test("W8: after a confirmed byte another gap is recorded", async () => {
  const { connect, calls, tell } = stream({ slot: [lost] }, record);
  await connect();
  await connect();
  tell({ type: "stream.progressed", flushedLsn: "0/4000100" });
  tell({ type: "stream.ended", failure: failure("KLIO-WAL-GAP", "removed") });
  await connect();
  expect(calls.filter((call) => call.startsWith("gap"))).toHaveLength(2);
});

test("W8: without the policy a gap blocks, and with it any other fatal failure does", async () => {
  const blocking = stream({ slot: [lost] });
  await blocking.connect();
  expect([blocking.state(), blocking.calls.at(-1)]).toEqual(["blocked", "slot"]);
  const foreign = stream({ start: failure("KLIO-TIMELINE", "another line") }, record);
  await foreign.connect();
  expect([foreign.state(), foreign.calls.at(-1)]).toEqual(["blocked", "negotiate"]);
});

test("W8: a gap that could not be recorded is due again; nothing is streamed before", async () => {
  const { connect, calls, clock, state, facts } = stream({ slot: [lost], gap: [down] }, record);
  await connect();
  await connect();
  expect([state(), calls.at(-1)]).toEqual(["backingOff", "gap klio 73 0/5000000"]);
  clock.increment(200);
  await connect();
  expect(calls.slice(-5)).toEqual(["identify", "gap klio 73 0/5000000", "slot", "negotiate", "stream 1 0/4000000"]);
  expect(facts.map(({ type }) => type)).toEqual(["stream.interrupted", "stream.gap", "stream.started"]);
});

test("W8: a lost slot is made again first; only what is gone all the same is recorded", async () => {
  const nothing = ok({ walName: "", slotDropped: true });
  const { connect, calls, facts, tell } = stream({ slot: [lost], gap: [nothing] }, record);
  await connect();
  await connect();
  expect(calls.slice(4)).toEqual(["identify", "gap klio 73 0/5000000", "slot", "negotiate", "stream 1 0/4000000"]);
  expect(facts.map(({ type }) => type)).toEqual(["stream.started"]);
  tell({ type: "stream.ended", failure: failure("KLIO-WAL-GAP", "removed") });
  await connect();
  expect(facts.map(({ type }) => type)).toEqual(["stream.started", "stream.gap", "stream.started"]);
});
