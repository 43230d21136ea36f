// The label that PostgreSQL gives at the end of a backup: where a recovery from it begins.
import { KlioError } from "../errors.ts";
import { type Lsn, lsn, parseLsn } from "./lsn.ts";
import { segmentAt } from "./wal-segment.ts";

export type BackupLabel = { startLsn: Lsn; startWal: string; timeline: number };

const START = /^START WAL LOCATION: ([0-9A-F]{1,8}\/[0-9A-F]{1,8}) \(file ([0-9A-F]{24})\)$/m;
const TIMELINE = /^START TIMELINE: (\d{1,10})$/m;

/** Throws KLIO-BACKUP-FAILED for a text that is no label. */
export function parseBackupLabel(text: string): BackupLabel {
  const start = START.exec(text);
  const timeline = TIMELINE.exec(text);
  if (start?.[1] === undefined || start[2] === undefined || timeline === null)
    throw new KlioError(
      "KLIO-BACKUP-FAILED",
      `PostgreSQL gave a backup label without its start: ${JSON.stringify(text.slice(0, 200))}`,
    );
  return { startLsn: parseLsn(start[1]), startWal: start[2], timeline: Number(timeline[1]) };
}

/** Name of the last segment that a backup needs: the one that holds the byte before its end. */
export function endWalOf(timeline: number, endLsn: Lsn, segmentBytes: number): string {
  return segmentAt(timeline, lsn(endLsn - 1n), segmentBytes);
}
