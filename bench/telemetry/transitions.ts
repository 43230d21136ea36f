// The driven side of the telemetry bench: one process that has telemetry on, or off, for its whole life, as a server has.
// The argument says which; the environment says where to export. Prints a `Drive` for each drive that counts.
import { createActor, fromCallback } from "xstate";
import { segmentAt } from "../../src/domain/wal-segment.ts";
import {
  type ShipmentEvent,
  type ShipmentInput,
  segmentShipment,
} from "../../src/machines/segment-shipment.machine.ts";
import { tuneCollector } from "../../src/roles/collector.ts";
import { noTelemetry, startTelemetry } from "../../src/telemetry/telemetry.ts";
import { testLog } from "../../test/support/test-log.ts";
import { cpuSeconds } from "../workload.ts";

/** CPU microseconds per transition, and of the export of its spans afterwards. */
export type Drive = { step: number; exported: number };

const SEGMENT_BYTES = 16 << 20;
/** Of a drive: as many spans at most as wait for the next export. */
const SHIPMENTS = 2_000;
const DRIVES = 30;
/** Drives before the compiler is done with the code; not counted. */
const WARM_UP = 5;
/** Transitions of one shipment: its start, which enters the first states and opens the span, begun, finished, shipped. */
const STEPS = 4;
const MICROSECONDS = 1e6 / (SHIPMENTS * STEPS);

type Start = (machine: typeof segmentShipment, options: { id: string; input: ShipmentInput }) => unknown;

/** CPU seconds of `SHIPMENTS` segmentShipments, driven as fast as they go. */
function drive(start: Start): number {
  let tell: (event: ShipmentEvent) => void = () => undefined;
  const shipSegment = fromCallback<{ type: "shutdown.requested" }, ShipmentInput>(({ sendBack }) => {
    tell = sendBack;
  });
  const machine = segmentShipment.provide({ actors: { shipSegment } });
  const settings = { cluster: "main", segmentBytes: SEGMENT_BYTES, fromOffset: 0, sendToTier2: false } as const;
  const since = process.cpuUsage();
  for (let n = 0; n < SHIPMENTS; n++) {
    const name = segmentAt(1, BigInt(n) * BigInt(SEGMENT_BYTES), SEGMENT_BYTES);
    const input = { ...settings, name, method: "stream", confirmLimitMs: 60_000 } as const;
    start(machine, { id: `segmentShipment/${name}`, input });
    tell({ type: "shipment.begun" });
    tell({ type: "shipment.finished" });
    tell({ type: "shipment.ended", end: { kind: "shipped" } });
  }
  return cpuSeconds(since);
}

tuneCollector(); // as server and sidecar do
const isOn = process.argv[2] === "on";
for (let n = 0; n < WARM_UP + DRIVES; n++) {
  const telemetry = isOn
    ? await startTelemetry({ service: "klio-server", log: testLog(), env: process.env })
    : noTelemetry();
  const step = drive((machine, options) =>
    isOn ? telemetry.start(machine, options) : createActor(machine, options).start(),
  );
  const since = process.cpuUsage();
  await telemetry.shutdown();
  const told: Drive = { step: step * MICROSECONDS, exported: cpuSeconds(since) * MICROSECONDS };
  if (n >= WARM_UP) process.stdout.write(`${JSON.stringify(told)}\n`);
}
