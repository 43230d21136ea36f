import assert from "node:assert/strict";
import fc from "fast-check";
import { test } from "vitest";
import { lsn } from "../../../src/domain/lsn.ts";
import {
  firstTimeline,
  formatTimelineHistory,
  isOnHistory,
  parseTimelineHistory,
  segmentFiles,
  segmentOnHistory,
  type TimelineHistory,
  timelineRanges,
} from "../../../src/domain/timeline.ts";
import { segmentStart, timelineOf } from "../../../src/domain/wal-segment.ts";

const SEGMENT = 1 << 20;

/** Histories with switches close enough together to fall into one segment at times. */
export const histories: fc.Arbitrary<TimelineHistory> = fc
  .array(fc.record({ step: fc.integer({ min: 1, max: 3 }), bytes: fc.integer({ min: 0, max: 3 * SEGMENT }) }), {
    maxLength: 6,
  })
  .map((steps) => {
    let timeline = 0;
    let end = 0n;
    const ancestors = steps.map(({ step, bytes }) => {
      timeline += step;
      end += BigInt(bytes);
      return { timeline, endLsn: lsn(end), reason: "no recovery target specified" };
    });
    return { timeline: timeline + 1, ancestors };
  });
const positions = fc.bigInt({ min: 0n, max: 20n * BigInt(SEGMENT) }).map(lsn);

test("a history survives being written and read", () => {
  fc.assert(
    fc.property(histories, (history) => {
      assert.deepEqual(parseTimelineHistory(history.timeline, formatTimelineHistory(history)), history);
    }),
  );
});

test("what PostgreSQL writes is read; comments and empty lines are skipped", () => {
  const text = "1\t0/3000158\tno recovery target specified\n\n# by hand\n2\t16/B374D848\tbefore 2000-01-01\n";
  assert.deepEqual(parseTimelineHistory(3, text).ancestors, [
    { timeline: 1, endLsn: 0x3000158n, reason: "no recovery target specified" },
    { timeline: 2, endLsn: 0x16b374d848n, reason: "before 2000-01-01" },
  ]);
});

test.each([
  ["2\t0/3000000\n1\t0/4000000\n", "descending timelines"],
  ["1\t0/4000000\n2\t0/3000000\n", "descending positions"],
  ["3\t0/4000000\n", "its own timeline"],
  ["1\n", "no position"],
  ["1\t0/XYZ\n", "no hexadecimal position"],
])("a history that cannot be is refused as damaged: %j (%s)", (text) => {
  assert.throws(() => parseTimelineHistory(3, text), { code: "KLIO-WAL-DAMAGED" });
});

test("ranges follow each other without a hole, from the first byte on", () => {
  fc.assert(
    fc.property(histories, (history) => {
      const ranges = timelineRanges(history);
      assert.equal(ranges[0]?.from, 0n);
      for (const [i, range] of ranges.entries()) assert.equal(range.to, ranges[i + 1]?.from);
    }),
  );
});

test("each byte of a history lies in the first file that is asked for its segment", () => {
  fc.assert(
    fc.property(histories, positions, (history, position) => {
      const [file] = segmentFiles(history, position, SEGMENT);
      assert.ok(file !== undefined);
      const owner = timelineRanges(history).find(
        ({ from, to }) => from <= position && (to === undefined || position < to),
      );
      assert.ok(timelineOf(file.name) >= (owner?.timeline ?? Number.NaN));
      assert.equal(segmentStart(file.name, SEGMENT), position - (position % BigInt(SEGMENT)));
      assert.equal(file.name, segmentOnHistory(history, position, SEGMENT));
    }),
  );
});

test("older files of a segment are good up to where the history left them, within the segment", () => {
  fc.assert(
    fc.property(histories, positions, (history, position) => {
      const start = position - (position % BigInt(SEGMENT));
      for (const { goodTo } of segmentFiles(history, position, SEGMENT).slice(1))
        assert.ok(goodTo !== undefined && goodTo > start && goodTo < start + BigInt(SEGMENT) * 2n);
    }),
  );
});

test("a position is on the history exactly when its timeline had not been left before it", () => {
  const history: TimelineHistory = { timeline: 3, ancestors: [{ timeline: 1, endLsn: lsn(100), reason: "" }] };
  assert.equal(isOnHistory(history, 1, lsn(100)), true);
  assert.equal(isOnHistory(history, 1, lsn(101)), false);
  assert.equal(isOnHistory(history, 2, lsn(50)), false);
  assert.equal(isOnHistory(history, 3, lsn(101)), true);
  assert.equal(isOnHistory(history, 3, lsn(100)), false);
  assert.equal(isOnHistory(firstTimeline, 1, lsn(1)), true);
});
