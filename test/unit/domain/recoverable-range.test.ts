import assert from "node:assert/strict";
import fc from "fast-check";
import { test } from "vitest";
import { lsn } from "../../../src/domain/lsn.ts";
import {
  mergeInventories,
  newestTimeline,
  recoverableIntervals,
  walInventory,
  walReach,
} from "../../../src/domain/recoverable-range.ts";
import { firstTimeline, segmentOnHistory, type TimelineHistory } from "../../../src/domain/timeline.ts";
import { backupOf } from "../../support/backups.ts";

const SEGMENT = 1 << 20;
const at = (segment: number) => lsn(BigInt(segment) * BigInt(SEGMENT));
const history: TimelineHistory = {
  timeline: 2,
  ancestors: [{ timeline: 1, endLsn: lsn(at(10) + 100n), reason: "" }],
};
const nameOf = (segment: number) => segmentOnHistory(history, at(segment), SEGMENT);

test("the run ends at the first segment that is not stored whole, and a hole is told from the end", () => {
  fc.assert(
    fc.property(
      fc.uniqueArray(fc.integer({ min: 0, max: 20 })),
      fc.uniqueArray(fc.integer({ min: 0, max: 20 })),
      fc.integer({ min: 0, max: 20 }),
      fc.integer({ min: 0, max: SEGMENT - 1 }),
      (whole, unfinished, first, offset) => {
        const inventory = walInventory([
          ...whole.map((n) => ({ name: nameOf(n) })),
          ...unfinished.map((n) => ({ name: `${nameOf(n)}.partial` })),
        ]);
        const reach = walReach(history, lsn(at(first) + BigInt(offset)), SEGMENT, inventory);
        let end = first;
        while (whole.includes(end)) end++;
        assert.equal(reach.endLsn, at(end));
        assert.equal(reach.missing, nameOf(end));
        assert.equal(reach.last, end === first ? undefined : nameOf(end - 1));
        assert.equal(reach.tail?.name, unfinished.includes(end) ? `${nameOf(end)}.partial` : undefined);
        const behind = [...whole, ...unfinished].filter((n) => n > end);
        assert.equal(reach.beyond?.slice(0, 24), behind.length === 0 ? undefined : nameOf(Math.min(...behind)));
      },
    ),
  );
});

test("at a switch the child's file is needed; the parent's is good up to the switch only", () => {
  const parent = "00000001000000000000000A";
  const upTo = (name: string) =>
    walReach(history, at(9), SEGMENT, walInventory([{ name: "000000010000000000000009" }, { name }]));
  assert.deepEqual(upTo("00000002000000000000000A").missing, "00000002000000000000000B");
  for (const name of [parent, `${parent}.partial`])
    assert.deepEqual(upTo(name), {
      endLsn: at(10),
      last: "000000010000000000000009",
      missing: "00000002000000000000000A",
      tail: { name, goodTo: at(10) + 100n },
    });
});

test("files of timelines that the history left do not count", () => {
  const stray = walReach(history, at(11), SEGMENT, walInventory([{ name: "00000001000000000000000B" }]));
  assert.deepEqual(stray, { endLsn: at(11), missing: "00000002000000000000000B" });
});

test("an inventory knows segments, unfinished ones and histories, in any case of letters", () => {
  const inventory = walInventory([
    { name: "00000001000000000000000a" },
    { name: "00000001000000000000000b.partial" },
    { name: "00000001000000000000000C", complete: false },
    { name: "00000003.history" },
    { name: "000000010000000000000001.00000028.backup" },
  ]);
  assert.deepEqual([...inventory.segments], ["00000001000000000000000A"]);
  assert.deepEqual([...inventory.partials], ["00000001000000000000000B", "00000001000000000000000C"]);
  assert.equal(newestTimeline(inventory), 3);
  assert.equal(newestTimeline(walInventory([])), 1);
  assert.equal(newestTimeline(mergeInventories([inventory, walInventory([{ name: "00000004.history" }])])), 4);
});

test("intervals: what one backup reaches belongs together, a hole parts them, a backup without its WAL counts for none", () => {
  const backup = (name: string, from: number, to: number) =>
    backupOf({ name, startLsn: String(at(from)), endLsn: String(at(to) + 8n), segmentSize: SEGMENT, stoppedAt: to });
  const stored = [1, 2, 3, 4, 5, 7, 8].map((n) => ({ name: segmentOnHistory(firstTimeline, at(n), SEGMENT) }));
  const intervals = recoverableIntervals(
    firstTimeline,
    [backup("lost", 5, 6), backup("c", 7, 7), backup("b", 3, 4), backup("a", 1, 2)],
    walInventory([...stored, { name: `${segmentOnHistory(firstTimeline, at(9), SEGMENT)}.partial` }]),
  );
  assert.deepEqual(intervals, [
    {
      timeline: 1,
      fromLsn: at(2) + 8n,
      toLsn: at(6),
      last: "000000010000000000000005",
      backups: ["a", "b"],
      fromTime: 2,
    },
    {
      timeline: 1,
      fromLsn: at(7) + 8n,
      toLsn: at(9),
      last: "000000010000000000000008",
      tail: "000000010000000000000009.partial",
      backups: ["c"],
      fromTime: 7,
    },
  ]);
});

test("an interval's backups are exactly those that reach its end", () => {
  fc.assert(
    fc.property(
      fc.uniqueArray(fc.integer({ min: 0, max: 20 })),
      fc.uniqueArray(fc.record({ from: fc.integer({ min: 0, max: 18 }), length: fc.integer({ min: 0, max: 2 }) }), {
        maxLength: 6,
        selector: ({ from, length }) => from + length,
      }),
      (whole, list) => {
        const inventory = walInventory(whole.map((n) => ({ name: nameOf(n) })));
        const backups = list.map(({ from, length }, i) =>
          backupOf({
            name: `b${i}`,
            startLsn: String(at(from)),
            endLsn: String(at(from + length) + 8n),
            tli: from + length < 10 ? 1 : 2,
            segmentSize: SEGMENT,
          }),
        );
        const intervals = recoverableIntervals(history, backups, inventory);
        const found = new Map(intervals.flatMap((one) => one.backups.map((name) => [name, one.toLsn] as const)));
        for (const backup of backups) {
          const reach = walReach(history, lsn(BigInt(backup.startLsn)), SEGMENT, inventory);
          const end = BigInt(backup.endLsn);
          const isOn = backup.tli === 1 || end > at(10) + 100n;
          assert.equal(found.get(backup.name), isOn && reach.endLsn >= end ? reach.endLsn : undefined);
        }
      },
    ),
  );
});
