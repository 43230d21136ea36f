// How far stored WAL reaches: from a position along a timeline history up to the first file that is not there. And from
// that, which positions a set of backups can be recovered to.
import type { BackupMetadata } from "./backup-metadata.ts";
import { type Lsn, lsn } from "./lsn.ts";
import { endLsnOf, startLsnOf } from "./recovery-target.ts";
import { isOnHistory, segmentFiles, type TimelineHistory } from "./timeline.ts";
import { parseWalName } from "./wal-segment.ts";

/** What is stored of a cluster, by kind. `partials`: names without the suffix. */
export type WalInventory = {
  segments: ReadonlySet<string>;
  partials: ReadonlySet<string>;
  /** Timelines whose history file is stored. */
  histories: ReadonlySet<number>;
};

export function walInventory(files: Iterable<{ name: string; complete?: boolean }>): WalInventory {
  const segments = new Set<string>();
  const partials = new Set<string>();
  const histories = new Set<number>();
  for (const { name, complete } of files) {
    const parsed = parseWalName(name);
    if (parsed?.kind === "segment" && complete !== false) segments.add(name.toUpperCase());
    else if (parsed?.kind === "segment" || parsed?.kind === "partial") partials.add(name.slice(0, 24).toUpperCase());
    else if (parsed?.kind === "history" && complete !== false) histories.add(parsed.timeline);
  }
  return { segments, partials, histories };
}

/** What several tiers hold together. */
export function mergeInventories(inventories: readonly WalInventory[]): WalInventory {
  const all = <T>(pick: (one: WalInventory) => ReadonlySet<T>) => new Set(inventories.flatMap((one) => [...pick(one)]));
  return {
    segments: all((one) => one.segments),
    partials: all((one) => one.partials),
    histories: all((one) => one.histories),
  };
}

/** The newest timeline that left a trace; 1 when there is none. */
export function newestTimeline(inventory: WalInventory): number {
  let newest = 1;
  for (const timeline of inventory.histories) newest = Math.max(newest, timeline);
  for (const names of [inventory.segments, inventory.partials])
    for (const name of names) newest = Math.max(newest, Number.parseInt(name.slice(0, 8), 16));
  return newest;
}

export type WalReach = {
  /** Everything from the start's segment up to here is stored in complete files. */
  endLsn: Lsn;
  /** Name of the last complete file of the run. */
  last?: string;
  /** The unfinished file that begins at `endLsn`: its bytes follow, as many as it has, up to `goodTo`. */
  tail?: { name: string; goodTo: Lsn | undefined };
  /** The file that ends the run: not stored, or the unfinished one. */
  missing: string;
  /** First stored file of the same history behind `missing`: then the run ends at a hole, not at the end of the WAL. */
  beyond?: string;
};

/** Follows stored WAL along `history` from the segment that holds `from`. */
export function walReach(history: TimelineHistory, from: Lsn, segmentBytes: number, inventory: WalInventory): WalReach {
  const size = BigInt(segmentBytes);
  let position = lsn(from - (from % size));
  let last: string | undefined;
  for (;;) {
    const [newest, ...older] = segmentFiles(history, position, segmentBytes);
    if (newest === undefined) throw new RangeError("a history covers every position");
    if (inventory.segments.has(newest.name)) {
      last = newest.name;
      position = lsn(position + size);
      continue;
    }
    // Only a file of the newest timeline leads into the next segment; any other ends the run inside this one.
    const tail = inventory.partials.has(newest.name)
      ? { name: `${newest.name}.partial`, goodTo: newest.goodTo }
      : older
          .map(({ name, goodTo }) =>
            inventory.segments.has(name)
              ? { name, goodTo }
              : inventory.partials.has(name)
                ? { name: `${name}.partial`, goodTo }
                : undefined,
          )
          .find((one) => one !== undefined);
    const beyond = firstBeyond(history, position, segmentBytes, inventory);
    return {
      endLsn: position,
      missing: newest.name,
      ...(last !== undefined && { last }),
      ...(tail !== undefined && { tail }),
      ...(beyond !== undefined && { beyond }),
    };
  }
}

/** Stored files of the history in segments behind the one that begins at `position`: the first of them. */
function firstBeyond(
  history: TimelineHistory,
  position: Lsn,
  segmentBytes: number,
  inventory: WalInventory,
): string | undefined {
  let first: { name: string; index: bigint } | undefined;
  const perLog = 0x1_0000_0000n / BigInt(segmentBytes);
  const here = position / BigInt(segmentBytes);
  for (const names of [inventory.segments, inventory.partials])
    for (const name of names) {
      const index = BigInt(`0x${name.slice(8, 16)}`) * perLog + BigInt(`0x${name.slice(16, 24)}`);
      if (index <= here || (first !== undefined && index >= first.index)) continue;
      if (segmentFiles(history, lsn(index * BigInt(segmentBytes)), segmentBytes)[0]?.name === name)
        first = { name: inventory.segments.has(name) ? name : `${name}.partial`, index };
    }
  return first?.name;
}

/** Positions that can be recovered to without a hole, and the backups from which. Ordered by position. */
export type RecoverableInterval = {
  timeline: number;
  /** End of the earliest backup of the interval. */
  fromLsn: Lsn;
  toLsn: Lsn;
  /** Name of the last complete file. */
  last?: string;
  tail?: string;
  /** Names, oldest first. */
  backups: string[];
  /** Epoch seconds at which the earliest backup ended. */
  fromTime: number;
};

/** Backups that are not on the history, or whose own WAL is not complete, recover to nothing and are left out. */
export function recoverableIntervals(
  history: TimelineHistory,
  backups: readonly BackupMetadata[],
  inventory: WalInventory,
): RecoverableInterval[] {
  const ordered = backups
    .filter((backup) => isOnHistory(history, backup.tli, endLsnOf(backup)))
    .sort((a, b) => (endLsnOf(a) < endLsnOf(b) ? -1 : 1));
  const intervals: RecoverableInterval[] = [];
  let walkedFrom = lsn(0);
  for (const backup of ordered) {
    const open = intervals.at(-1);
    const start = startLsnOf(backup);
    const end = endLsnOf(backup);
    if (open !== undefined && start >= walkedFrom && end <= open.toLsn) {
      open.backups.push(backup.name);
      continue;
    }
    const reach = walReach(history, start, backup.segmentSize, inventory);
    if (reach.endLsn < end) continue;
    walkedFrom = start;
    if (open !== undefined && reach.endLsn === open.toLsn) {
      open.backups.push(backup.name);
      continue;
    }
    intervals.push({
      timeline: history.timeline,
      fromLsn: end,
      toLsn: reach.endLsn,
      ...(reach.last !== undefined && { last: reach.last }),
      ...(reach.tail !== undefined && { tail: reach.tail.name }),
      backups: [backup.name],
      fromTime: backup.stoppedAt,
    });
  }
  return intervals;
}
