// What a cluster's archive on tier 1 and on tier 2 have not in common, from their listings.
import type { StoredWal } from "./wal-reader.ts";
import { parseWalName } from "./wal-segment.ts";

export type TierDifference = {
  /** On tier 1 and wanted on tier 2, but not there; ascending. */
  missing: StoredWal[];
  /** Partial files on tier 2 beside the complete file. */
  stalePartials: string[];
  /** On both tiers under one name, with different stored sizes or as partial files: to be looked at closely. */
  suspicious: { name: string; tier1Bytes: number; tier2Bytes: number }[];
  /** On tier 2 below the cluster's root, but no WAL file. Reported, never touched. */
  foreign: string[];
};

/**
 * `floor`: segments below it were pruned from tier 2 on purpose (empty: none). A partial file is wanted only while
 * neither tier has the complete one; its size tells nothing, for tier 2's is packed anew.
 */
export function compareTiers(input: {
  tier1: readonly StoredWal[];
  tier2: readonly StoredWal[];
  foreign: readonly string[];
  floor: string;
}): TierDifference {
  const held = new Map(input.tier2.map((file) => [file.name, file]));
  const complete = new Set([...input.tier1, ...input.tier2].map(({ name }) => name));
  const isSuperseded = (name: string) => parseWalName(name)?.kind === "partial" && complete.has(name.slice(0, 24));
  const missing: StoredWal[] = [];
  const suspicious: TierDifference["suspicious"] = [];
  for (const file of input.tier1.toSorted((a, b) => (a.name < b.name ? -1 : 1))) {
    const kind = parseWalName(file.name)?.kind;
    const other = held.get(file.name);
    if (kind === undefined || isSuperseded(file.name)) continue;
    if (other === undefined) {
      const isPruned = (kind === "segment" || kind === "partial") && file.name.slice(0, 24) < input.floor;
      if (!isPruned) missing.push(file);
    } else if (kind === "partial" || other.storedBytes !== file.storedBytes)
      suspicious.push({ name: file.name, tier1Bytes: file.storedBytes, tier2Bytes: other.storedBytes });
  }
  const stalePartials = input.tier2
    .map(({ name }) => name)
    .filter((name) => name.endsWith(".partial") && held.has(name.slice(0, 24)));
  return { missing, stalePartials, suspicious, foreign: [...input.foreign] };
}
