// Names of WAL files: segments (TTTTTTTTLLLLLLLLSSSSSSSS), partial segments, timeline history and backup labels,
// and where each lies below a cluster's directory.
import { KlioError } from "../errors.ts";
import { type Lsn, lsn } from "./lsn.ts";

type WalNameKind = "segment" | "partial" | "history" | "label";
export type WalName = { kind: WalNameKind; name: string; timeline: number };

/** PostgreSQL's range for wal_segment_size: a power of two from 1 MiB to 1 GiB. */
const MIN_SEGMENT_BYTES = 1 << 20;
export const MAX_SEGMENT_BYTES = 1 << 30;

const hex8 = (n: bigint | number) => n.toString(16).toUpperCase().padStart(8, "0");

export function isSegmentSize(bytes: number): boolean {
  return (
    Number.isInteger(bytes) && bytes >= MIN_SEGMENT_BYTES && bytes <= MAX_SEGMENT_BYTES && (bytes & (bytes - 1)) === 0
  );
}

/** Parses a WAL file name; undefined when it is none. Hexadecimal digits in both cases are accepted, and kept. */
export function parseWalName(name: string): WalName | undefined {
  const match = /^([0-9A-Fa-f]{8})(?:([0-9A-Fa-f]{16})(\.partial|\.[0-9A-Fa-f]{8}\.backup)?|\.history)$/.exec(name);
  if (match === null) return undefined;
  const timeline = Number.parseInt(match[1] ?? "", 16);
  const kind =
    match[2] === undefined
      ? "history"
      : match[3] === undefined
        ? "segment"
        : match[3] === ".partial"
          ? "partial"
          : "label";
  return { kind, name, timeline };
}

/** Like `parseWalName`, but throws KLIO-NAME-INVALID. */
export function requireWalName(name: string): WalName {
  const parsed = parseWalName(name);
  if (parsed === undefined)
    throw new KlioError("KLIO-NAME-INVALID", `not the name of a WAL file: ${JSON.stringify(name)}`);
  return parsed;
}

/** Name of the segment that holds `position`. */
export function segmentAt(timeline: number, position: bigint, segmentBytes: number): string {
  const perLog = 0x1_0000_0000n / BigInt(segmentBytes);
  const index = position / BigInt(segmentBytes);
  return hex8(timeline) + hex8(index / perLog) + hex8(index % perLog);
}

/** First byte of a segment (24 characters, or with a suffix behind them). */
export function segmentStart(name: string, segmentBytes: number): Lsn {
  const perLog = 0x1_0000_0000n / BigInt(segmentBytes);
  const log = BigInt(`0x${name.slice(8, 16)}`);
  const segment = BigInt(`0x${name.slice(16, 24)}`);
  if (segment >= perLog) throw new KlioError("KLIO-NAME-INVALID", `${name} is no segment of ${segmentBytes} bytes`);
  return lsn((log * perLog + segment) * BigInt(segmentBytes));
}

export function timelineOf(name: string): number {
  return Number.parseInt(name.slice(0, 8), 16);
}

export function nextSegment(name: string, segmentBytes: number): string {
  return segmentAt(timelineOf(name), segmentStart(name, segmentBytes) + BigInt(segmentBytes), segmentBytes);
}

/** All segments from `first` to `last` (both included, same timeline). Throws KLIO-USAGE for a range that cannot be. */
export function segmentRange(first: string, last: string, segmentBytes: number, limit = 1_000_000): string[] {
  if (!isSegmentSize(segmentBytes)) throw new KlioError("KLIO-USAGE", `not a WAL segment size: ${segmentBytes}`);
  for (const name of [first, last])
    if (parseWalName(name)?.kind !== "segment")
      throw new KlioError("KLIO-USAGE", `not the name of a WAL segment: ${JSON.stringify(name)}`);
  const from = segmentStart(first, segmentBytes);
  const to = segmentStart(last, segmentBytes);
  const count = (to - from) / BigInt(segmentBytes) + 1n;
  if (timelineOf(first) !== timelineOf(last) || count < 1n || count > BigInt(limit))
    throw new KlioError("KLIO-USAGE", `not a range of WAL segments: ${first} to ${last}`);
  return Array.from({ length: Number(count) }, (_, i) =>
    segmentAt(timelineOf(first), from + BigInt(i) * BigInt(segmentBytes), segmentBytes),
  );
}

export function historyName(timeline: number): string {
  return `${hex8(timeline)}.history`;
}

/** Path of a WAL file below its cluster: segments in a directory of their first 16 characters, the rest at the root. */
export function walPath(name: string): string {
  const stem = name.includes(".") ? name.slice(0, name.lastIndexOf(".")) : name;
  return stem.length === 24 ? `${name.slice(0, 16)}/${name}` : name;
}
