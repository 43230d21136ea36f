// Why a stream does not flow, by name: the reasons of the error table.
import type { SnapshotFrom } from "xstate";
import { type ErrorCode, errorTable } from "../errors.ts";
import type { walStream } from "../machines/wal-stream.machine.ts";
import type { Reading } from "../telemetry/instruments.ts";

/** Each has a series that is always there, so that an alert sees it come and go; any other has one while it lasts. */
const NAMED: readonly ErrorCode[] = [
  "KLIO-SLOT-LOST",
  "KLIO-WAL-GAP",
  "KLIO-SERVER-AHEAD",
  "KLIO-TIMELINE",
  "KLIO-SYSTEM-ID",
  "KLIO-WAL-MISMATCH",
  "KLIO-SLOT-BUSY",
  "KLIO-WAL-BUSY",
  "KLIO-SOURCE-DOWN",
  "KLIO-SOURCE-REFUSED",
  "KLIO-SERVER-DOWN",
  "KLIO-SERVER-REFUSED",
  "KLIO-CLUSTER-DENIED",
  "KLIO-DISK-FULL",
];

/** Code of the failure that the stream has not got over; empty while it streams. */
export function conditionOf(snapshot: SnapshotFrom<typeof walStream>): string {
  return snapshot.matches({ attached: "streaming" }) || snapshot.matches("stopped") ? "" : snapshot.context.code;
}

/** Empty for an empty code. */
export function reasonOf(code: string): string {
  return Object.hasOwn(errorTable, code) ? errorTable[code as ErrorCode].reason : code;
}

/** 1 for the condition that holds, 0 for the other named ones. */
export function conditionReadings(cluster: string, code: string): Reading[] {
  const codes = code === "" || NAMED.some((one) => one === code) ? NAMED : [...NAMED, code];
  return codes.map((one) => ({
    value: one === code ? 1 : 0,
    labels: { cluster_name: cluster, condition: reasonOf(one) },
  }));
}
