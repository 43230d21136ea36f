import { expect, test } from "vitest";
import { createActor, fromCallback, SimulatedClock } from "xstate";
import { getShortestPaths } from "xstate/graph";
import {
  type ShipmentEnd,
  type ShipmentEvent,
  type ShipmentInput,
  segmentShipment,
} from "../../../src/machines/segment-shipment.machine.ts";
import { checkTransitionTable, stateName, type Table } from "../../support/transition-table.ts";

const input: ShipmentInput = {
  cluster: "main",
  name: "000000010000000000000001",
  segmentBytes: 1 << 20,
  fromOffset: 0,
  method: "stream",
  sendToTier2: true,
  confirmLimitMs: 1_000,
};
const down: ShipmentEnd = { kind: "retryable", code: "KLIO-SERVER-DOWN", reason: "gone" };
const refused: ShipmentEnd = { kind: "fatal", code: "KLIO-WAL-MISMATCH", reason: "other bytes" };

function ship() {
  const clock = new SimulatedClock();
  let tell: (event: ShipmentEvent) => void = () => undefined;
  let stops = 0;
  const shipSegment = fromCallback<{ type: "shutdown.requested" }, ShipmentInput>(({ sendBack }) => {
    tell = sendBack;
    return () => {
      stops += 1;
    };
  });
  const actor = createActor(segmentShipment.provide({ actors: { shipSegment } }), { id: "shipment", clock, input });
  actor.start();
  return { actor, clock, tell: (event: ShipmentEvent) => tell(event), stops: () => stops };
}

const events = {
  "shipment.begun": { type: "shipment.begun" },
  "shipment.finished": { type: "shipment.finished" },
  "shipment.ended/shipped": { type: "shipment.ended", end: { kind: "shipped" } },
  "shipment.ended/parted": { type: "shipment.ended", end: { kind: "parted" } },
  "shipment.ended/unimplemented": { type: "shipment.ended", end: { kind: "unimplemented" } },
  "shipment.ended/retryable": { type: "shipment.ended", end: down },
  "shipment.ended/fatal": { type: "shipment.ended", end: refused },
  "shutdown.requested": { type: "shutdown.requested" },
  confirmLimit: { type: "xstate.after.confirmLimit.segmentShipment.active.confirming" },
};
const ends = {
  "shipment.ended/shipped": "shipped",
  "shipment.ended/parted": "parted",
  "shipment.ended/unimplemented": "interrupted",
  "shipment.ended/retryable": "interrupted",
  "shipment.ended/fatal": "refused",
  "shutdown.requested": "interrupted",
};
const ignored = "ignored";
const transitionTable: Table = {
  "active.opening": {
    ...ends,
    "shipment.begun": "active.shipping",
    "shipment.finished": "active.confirming",
    confirmLimit: ignored,
  },
  "active.shipping": {
    ...ends,
    "shipment.begun": ignored,
    "shipment.finished": "active.confirming",
    confirmLimit: ignored,
  },
  "active.confirming": {
    ...ends,
    "shipment.begun": ignored,
    "shipment.finished": ignored,
    confirmLimit: "interrupted",
  },
};

test("every state answers every event as the table says", () => {
  checkTransitionTable(segmentShipment, { ...input, end: down, reason: "" }, transitionTable, events);
});

test("every state is reachable", () => {
  const reached = getShortestPaths(segmentShipment, {
    input,
    events: Object.values(events) as never,
    stopWhen: (state) => state.status !== "active",
  }).map((path) => stateName(path.state.value));
  expect(new Set(reached)).toEqual(
    new Set([...Object.keys(transitionTable), "shipped", "parted", "interrupted", "refused"]),
  );
});

test.each([
  [{ kind: "shipped" } as const, "shipped"],
  [{ kind: "parted" } as const, "parted"],
  [down, "interrupted"],
  [refused, "refused"],
])("H1: only what the server confirmed counts as arrived: %o", (end, state) => {
  const { actor, tell } = ship();
  tell({ type: "shipment.begun" });
  tell({ type: "shipment.finished" });
  expect(actor.getSnapshot().value).toEqual({ active: "confirming" });
  tell({ type: "shipment.ended", end });
  expect(actor.getSnapshot().value).toBe(state);
  expect(actor.getSnapshot().output).toEqual({ name: input.name, end });
});

test("H2: a server that does not answer after the last byte is not waited for", () => {
  const { actor, clock, tell, stops } = ship();
  tell({ type: "shipment.begun" });
  clock.increment(10_000);
  expect(actor.getSnapshot().value).toEqual({ active: "shipping" });
  tell({ type: "shipment.finished" });
  clock.increment(999);
  expect(actor.getSnapshot().value).toEqual({ active: "confirming" });
  clock.increment(1);
  expect(actor.getSnapshot().output?.end).toMatchObject({ kind: "retryable", code: "KLIO-SERVER-DOWN" });
  expect(stops()).toBe(1);
});

test("H3: what the actor tells after the end changes nothing", () => {
  const { actor, tell } = ship();
  actor.send({ type: "shutdown.requested" });
  tell({ type: "shipment.ended", end: { kind: "shipped" } });
  expect(actor.getSnapshot().output?.end).toMatchObject({ kind: "retryable", code: "KLIO-CANCELLED" });
});
