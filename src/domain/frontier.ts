// How far tier 2 holds a cluster's WAL without a hole. Plain data, so that it can live in a statechart's context.
// Only complete segments count; names are compared as strings (timeline first), as everywhere in the archive.
import { parseWalName } from "./wal-segment.ts";

export type Frontier = {
  /** Greatest segment up to which tier 2 holds everything tier 1 has; empty: none known. */
  at: string;
  /** Segments that tier 1 has and tier 2 lacks, ascending, the smallest `LIMIT` of them. */
  missing: string[];
  /** Greatest uploaded segment of each stretch between missing ones, ascending. */
  ahead: string[];
  /** Smallest missing segment that did not fit into `missing`; empty: all did. A listing brings it back. */
  horizon: string;
  /** Built from listings of both tiers in this process, so that `isHeld` may be trusted. */
  listed: boolean;
  /** What happened since a listing began; absent when none is under way. */
  since?: { stored: string[]; offloaded: string[] };
};

/** An outage of weeks must not grow memory: what lies beyond is found again by listing. */
const LIMIT = 2_000;

export const noFrontier: Frontier = { at: "", missing: [], ahead: [], horizon: "", listed: false };

/** Index of the first element that is not smaller than `name`. */
function lowerBound(sorted: readonly string[], name: string): number {
  let low = 0;
  let high = sorted.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if ((sorted[middle] ?? "") < name) low = middle + 1;
    else high = middle;
  }
  return low;
}

function isSegment(name: string): boolean {
  return parseWalName(name)?.kind === "segment";
}

/** Of the uploaded names only the greatest below each missing one matters. */
function settle(frontier: Frontier): Frontier {
  const bound = frontier.missing[0] ?? frontier.horizon;
  const ahead: string[] = [];
  let at = frontier.at;
  for (const name of frontier.ahead) {
    if (bound === "" || name < bound) {
      if (name > at) at = name;
      continue;
    }
    const last = ahead.at(-1);
    const isSameStretch =
      last !== undefined && lowerBound(frontier.missing, last) === lowerBound(frontier.missing, name);
    if (isSameStretch) ahead.pop();
    ahead.push(name);
  }
  return { ...frontier, at, ahead };
}

/** A listing of both tiers begins: what comes in meanwhile is remembered, because the listing may not show it. */
export function listingBegun(frontier: Frontier): Frontier {
  return { ...frontier, since: { stored: [], offloaded: [] } };
}

function noted(frontier: Frontier, key: "stored" | "offloaded", name: string): Frontier {
  const { since } = frontier;
  return since === undefined ? frontier : { ...frontier, since: { ...since, [key]: [...since[key], name] } };
}

/** Tier 1 has stored this file. */
export function withStored(before: Frontier, name: string): Frontier {
  if (!isSegment(name)) return before;
  const frontier = noted(before, "stored", name);
  const index = lowerBound(frontier.missing, name);
  if (frontier.missing[index] === name) return frontier;
  if (frontier.horizon !== "" && name >= frontier.horizon) return frontier;
  const missing = frontier.missing.toSpliced(index, 0, name);
  if (missing.length <= LIMIT) return { ...frontier, missing };
  return { ...frontier, horizon: missing.pop() ?? "", missing };
}

/** Tier 2 has confirmed this file. */
export function withOffloaded(before: Frontier, name: string): Frontier {
  if (!isSegment(name)) return before;
  const frontier = noted(before, "offloaded", name);
  const index = lowerBound(frontier.missing, name);
  const missing = frontier.missing[index] === name ? frontier.missing.toSpliced(index, 1) : frontier.missing;
  const ahead = frontier.ahead.toSpliced(lowerBound(frontier.ahead, name), 0, name);
  return settle({ ...frontier, missing, ahead });
}

/**
 * The truth from listings that began with `listingBegun`: `missing` (ascending) is what tier 1 has and tier 2 should have,
 * `held` all that tier 2 has.
 */
export function fromListing(before: Frontier, missing: readonly string[], held: readonly string[]): Frontier {
  const segments = missing.filter(isSegment);
  const listed: Frontier = settle({
    at: "",
    missing: segments.slice(0, LIMIT),
    ahead: held.filter(isSegment).toSorted(),
    horizon: segments[LIMIT] ?? "",
    listed: true,
  });
  const stored = (before.since?.stored ?? []).reduce(withStored, listed);
  return (before.since?.offloaded ?? []).reduce(withOffloaded, stored);
}

/** Tier 2 surely holds this segment: its task needs no upload. */
export function isHeld(frontier: Frontier, name: string): boolean {
  if (!frontier.listed || !isSegment(name) || name > frontier.at) return false;
  if (frontier.horizon !== "" && name >= frontier.horizon) return false; // which of these are missing is not remembered
  return frontier.missing[lowerBound(frontier.missing, name)] !== name;
}

/** Segments below this name may leave tier 1 as far as tier 2 is concerned; empty: none may. */
export function pruneBound(frontier: Frontier): string {
  if (!frontier.listed) return "";
  const bounds = [frontier.at, frontier.missing[0] ?? "", frontier.horizon].filter((name) => name !== "");
  return frontier.at === "" ? "" : (bounds.toSorted()[0] ?? "");
}
