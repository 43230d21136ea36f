// Every state of walStream and every event.
import { expect, test } from "vitest";
import { createActor, fromCallback } from "xstate";
import { getShortestPaths } from "xstate/graph";
import { failure, ok } from "../../../src/domain/outcome.ts";
import { walStream } from "../../../src/machines/wal-stream.machine.ts";
import type { WalStreamContext } from "../../../src/machines/wal-stream-events.ts";
import {
  down,
  identity,
  input,
  other,
  position,
  recordedGap,
  segment,
  shipment,
  start,
} from "../../support/stream-answers.ts";
import { checkTransitionTable, stateName, type Table } from "../../support/transition-table.ts";

const done = (id: string, output: unknown) => ({ type: `xstate.done.actor.${id}`, output, actorId: id });
const gap = failure("KLIO-WAL-GAP", "removed");
const steps = {
  identifySystem: identity,
  recordGap: recordedGap,
  secureSlot: position,
  negotiateStart: start,
  fetchHistory: null,
};
const events = {
  "source.connected": { type: "source.connected" },
  "source.lost/retryable": { type: "source.lost", failure: down },
  "source.lost/fatal": { type: "source.lost", failure: other },
  ...Object.fromEntries(
    Object.entries({ ...steps, identifyAgain: identity }).flatMap(([id, value]) => [
      [`${id}/ok`, done(id, ok(value))],
      [`${id}/retryable`, done(id, down)],
      [`${id}/fatal`, done(id, other)],
    ]),
  ),
  "recordGap/nothing": done("recordGap", ok({ ...recordedGap, walName: "" })),
  "segment.opened": { type: "segment.opened", name: segment, fromOffset: 0 },
  "stream.progressed": { type: "stream.progressed", flushedLsn: "0/4000100" },
  "stream.switched": { type: "stream.switched", timeline: 1, startLsn: "0/4000000" },
  "stream.ended/retryable": { type: "stream.ended", failure: down },
  "stream.ended/fatal": { type: "stream.ended", failure: other },
  "stream.drained": { type: "stream.drained" },
  ...Object.fromEntries(
    Object.entries({
      shipped: { kind: "shipped" },
      parted: { kind: "parted" },
      unimplemented: { kind: "unimplemented" },
      retryable: down,
      fatal: other,
    }).map(([name, end]) => [`shipment/${name}`, done(shipment, { name: segment, end })]),
  ),
  "shutdown.requested": { type: "shutdown.requested" },
  backoff: { type: "xstate.after.backoff.walStream.backingOff" },
  blockedRecheck: { type: "xstate.after.blockedRecheck.walStream.blocked" },
  drainLimit: { type: "xstate.after.drainLimit.walStream.attached.streaming.draining" },
};
const ignored = Object.fromEntries(Object.keys(events).map((name) => [name, "ignored"]));
const attached = {
  ...ignored,
  "source.lost/retryable": "backingOff",
  "source.lost/fatal": "blocked",
  "shutdown.requested": "stopped",
};
const step = (id: string, then: string) => ({
  ...attached,
  [`${id}/ok`]: then,
  [`${id}/retryable`]: "backingOff",
  [`${id}/fatal`]: "blocked",
});
const flowing = "attached.streaming.flowing";
const transitionTable: Table = {
  "attached.connecting": { ...attached, "source.connected": "attached.identifying" },
  "attached.identifying": step("identifySystem", "attached.securingSlot"),
  "attached.recordingGap": {
    ...step("recordGap", "attached.securingSlot"),
    "recordGap/nothing": "attached.securingSlot",
  },
  "attached.securingSlot": step("secureSlot", "attached.negotiating"),
  "attached.negotiating": step("negotiateStart", flowing),
  "attached.fetchingHistory": step("fetchHistory", flowing),
  "attached.streaming.flowing": {
    ...attached,
    "segment.opened": flowing,
    "stream.progressed": "ignored", // kept, and nothing to do
    "stream.switched": "attached.switchingTimeline",
    "stream.ended/retryable": "backingOff",
    "stream.ended/fatal": "blocked",
    "shipment/shipped": flowing,
    "shipment/parted": flowing,
    "shipment/unimplemented": "attached.connecting",
    "shipment/retryable": "backingOff",
    "shipment/fatal": "blocked",
    "shutdown.requested": "attached.streaming.draining",
  },
  "attached.streaming.draining": {
    ...attached,
    "segment.opened": "attached.streaming.draining",
    "shipment/shipped": "attached.streaming.draining",
    "shipment/parted": "attached.streaming.draining",
    "shipment/unimplemented": "attached.streaming.draining",
    "shipment/retryable": "attached.streaming.draining",
    "shipment/fatal": "attached.streaming.draining",
    "stream.switched": "stopped",
    "stream.ended/retryable": "stopped",
    "stream.ended/fatal": "stopped",
    "stream.drained": "stopped",
    "source.lost/retryable": "stopped",
    "source.lost/fatal": "stopped",
    drainLimit: "stopped",
  },
  "attached.switchingTimeline": step("identifyAgain", flowing),
  backingOff: { ...ignored, backoff: "attached.connecting", "shutdown.requested": "stopped" },
  blocked: { ...ignored, blockedRecheck: "attached.connecting", "shutdown.requested": "stopped" },
};

test("every state answers every event as the table says", () => {
  const { context } = createActor(walStream, { id: "walStream", input }).getSnapshot();
  // The pure function has no children, but needs somebody to send to.
  const machine = walStream.provide({});
  const resolve = machine.resolveState.bind(machine);
  const nobody = createActor(fromCallback(() => undefined));
  machine.resolveState = (config) => Object.assign(resolve(config), { children: { streamWal: nobody } }) as never;
  checkTransitionTable(machine, { ...context, ...identity }, transitionTable, events);
});

test("every state is reachable", () => {
  const promoted = done("identifySystem", ok({ ...identity, timeline: 2 }));
  const reached = getShortestPaths(walStream, {
    input: { ...input, gapPolicy: "record" },
    events: [...Object.values(events), promoted, { type: "stream.ended", failure: gap }] as never,
    serializeState: ({ value, context }) => {
      const { timeline, isGapDue, isGapRecorded } = context as WalStreamContext;
      return JSON.stringify([value, timeline, isGapDue, isGapRecorded]);
    },
    stopWhen: (state) => state.status !== "active",
  }).map((path) => stateName(path.state.value));
  expect(new Set(reached)).toEqual(new Set([...Object.keys(transitionTable), "stopped"]));
});
