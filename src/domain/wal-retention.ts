// Which WAL files of one tier nobody needs any more. The rule is conservative: in any doubt everything stays, and the
// decision says why.
import { KlioError } from "../errors.ts";
import { parseWalName, segmentRange } from "./wal-segment.ts";

/** What pruning reads of a backup's metadata. */
export type WalNeed = { name: string; startWal: string; backupLabel: string };

export type WalPruning = {
  /** First segment that stays; empty: everything stays. */
  first: string;
  /** Names to remove. */
  names: string[];
  /** Why nothing may go, or empty. */
  heldBy: string;
};

/** Are all files there that a restore of the backup begins with? Not when its range cannot be read. */
export function hasItsWal(
  { startWal, endWal, segmentSize }: { startWal: string; endWal: string; segmentSize: number },
  names: ReadonlySet<string>,
): boolean {
  try {
    // Not more of them than there are files: the range is what a cluster's user says, and may have a million.
    return segmentRange(startWal, endWal, segmentSize, names.size).every((name) => names.has(name));
  } catch (error) {
    if (error instanceof KlioError) return false;
    throw error;
  }
}

const everything = (heldBy: string): WalPruning => ({ first: "", names: [], heldBy });

/** `START WAL LOCATION: 0/2000028 (file 000000010000000000000002)` in the backup label. */
function labelledStart(backupLabel: string): string | undefined {
  return /^START WAL LOCATION: \S+ \(file ([0-9A-F]{24})\)/m.exec(backupLabel)?.[1];
}

/**
 * `names`: all WAL files of the cluster on this tier. `backups`: all whole backups of this tier, after expiry.
 * `bounds`: further names below which nothing may be missing elsewhere (frontier, oldest waiting or dead task); an empty
 * one forbids pruning. Complete segments below the first needed one go; partial files only when the complete file lies
 * beside them; history files and backup labels stay.
 */
export function decideWalPruning(input: {
  names: readonly string[];
  backups: readonly WalNeed[];
  bounds: readonly string[];
}): WalPruning {
  if (input.backups.length === 0) return everything("no backup on this tier");
  for (const backup of input.backups) {
    if (parseWalName(backup.startWal)?.kind !== "segment")
      return everything(`backup ${backup.name} does not say where its WAL begins`);
    const labelled = labelledStart(backup.backupLabel);
    if (labelled !== undefined && labelled !== backup.startWal.toUpperCase())
      return everything(`backup ${backup.name} begins at ${backup.startWal}, but its label says ${labelled}`);
  }
  if (input.bounds.some((bound) => bound === "")) return everything("tier 2 has not confirmed any WAL file yet");
  const first =
    [...input.backups.map((backup) => backup.startWal), ...input.bounds]
      .map((name) => name.slice(0, 24))
      .toSorted()[0] ?? "";
  const present = new Set(input.names);
  const names = input.names.filter((name) => {
    const kind = parseWalName(name)?.kind;
    if (kind === "segment") return name < first;
    return kind === "partial" && present.has(name.slice(0, 24));
  });
  return { first, names: names.toSorted(), heldBy: "" };
}
