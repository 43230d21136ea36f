// The snapshot program's progress lines as numbers. Amounts are rounded there ("113.3 MB"), so these are for people only.
import type { SnapshotProgress } from "../../domain/snapshots.ts";

const UNITS: Readonly<Record<string, number>> = { B: 1, KB: 1e3, MB: 1e6, GB: 1e9, TB: 1e12, PB: 1e15 };

/** Bytes of "104.4 MB"; 0 for what is none. */
function amount(text: string | undefined): number {
  const match = /^([\d.]+) ([KMGTP]?B)$/.exec(text?.trim() ?? "");
  return match === null ? 0 : Math.round(Number(match[1]) * (UNITS[match[2] ?? ""] ?? 0));
}

const AMOUNT = String.raw`([\d.]+ [KMGTP]?B)`;
const UPLOAD = new RegExp(
  String.raw`hashing, \d+ hashed \(${AMOUNT}\), \d+ cached \(${AMOUNT}\), uploaded ${AMOUNT}(?:, estimated ${AMOUNT})?`,
);
const RESTORE = new RegExp(String.raw`^Processed \d+ \(${AMOUNT}\) of \d+ \(${AMOUNT}\)`);

/** A progress line of an upload, a copy between repositories or a restore; undefined for any other line. */
export function parseProgress(line: string): SnapshotProgress | undefined {
  const upload = UPLOAD.exec(line);
  if (upload !== null)
    return {
      processedBytes: amount(upload[1]) + amount(upload[2]),
      uploadedBytes: amount(upload[3]),
      estimatedBytes: amount(upload[4]),
    };
  const restore = RESTORE.exec(line.trim());
  if (restore !== null)
    return { processedBytes: amount(restore[1]), uploadedBytes: 0, estimatedBytes: amount(restore[2]) };
  return undefined;
}

/** The progress lines of a verification are JSON. */
export function parseVerifyProgress(line: string): SnapshotProgress | undefined {
  const match = /^\{"processedObjectCount".*"readBytes":(\d+).*"expectedTotalBytes":(\d+)/.exec(line.trim());
  if (match === null) return undefined;
  return { processedBytes: Number(match[1]), uploadedBytes: 0, estimatedBytes: Number(match[2]) };
}
