import assert from "node:assert/strict";
import fc from "fast-check";
import { test } from "vitest";
import { formatLsn, lsn } from "../../../src/domain/lsn.ts";
import { mustPass, obstacles, type ReachQuestion, segmentsBackward } from "../../../src/domain/reachability.ts";
import { walInventory, walReach } from "../../../src/domain/recoverable-range.ts";
import { firstTimeline, segmentOnHistory, type TimelineHistory } from "../../../src/domain/timeline.ts";
import { backupOf } from "../../support/backups.ts";

const SEGMENT = 1 << 20;
const at = (segment: number, offset = 0) => lsn(BigInt(segment) * BigInt(SEGMENT) + BigInt(offset));
const nameOf = (segment: number) => segmentOnHistory(firstTimeline, at(segment), SEGMENT);
const backup = backupOf({ name: "b", startLsn: String(at(1)), endLsn: String(at(2, 100)), segmentSize: SEGMENT });

function ask(stored: string[], values: Partial<ReachQuestion> = {}) {
  const question: ReachQuestion = {
    backup,
    target: { kind: "latest" },
    history: firstTimeline,
    inventory: walInventory(stored.map((name) => ({ name }))),
    gaps: [],
    ...values,
  };
  return { question, reach: walReach(question.history, lsn(BigInt(backup.startLsn)), SEGMENT, question.inventory) };
}

test("an LSN is reachable exactly when every segment from the backup's start to it is stored", () => {
  fc.assert(
    fc.property(
      fc.uniqueArray(fc.integer({ min: 0, max: 12 })),
      fc.integer({ min: 2, max: 11 }),
      fc.integer({ min: 100, max: SEGMENT - 1 }),
      (segments, target, offset) => {
        const position = at(target, offset);
        const { question, reach } = ask(segments.map(nameOf), {
          target: { kind: "lsn", lsn: formatLsn(position) },
        });
        const needed = Array.from({ length: target }, (_, i) => i + 1);
        const isWhole = needed.every((segment) => segments.includes(segment));
        const found = obstacles(question, reach, {});
        assert.equal(found.length === 0, isWhole);
        const first = needed.find((segment) => !segments.includes(segment));
        if (first !== undefined) assert.ok(found[0]?.startsWith(nameOf(first)), found[0]);
      },
    ),
  );
});

test("the length of the unfinished file decides about a target in it", () => {
  const { question, reach } = ask([nameOf(1), nameOf(2), `${nameOf(3)}.partial`], {
    target: { kind: "lsn", lsn: formatLsn(at(3, 500)) },
  });
  assert.ok(mustPass(question) > reach.endLsn);
  assert.deepEqual(obstacles(question, reach, { tailEnd: at(3, 501) }), []);
  assert.deepEqual(obstacles(question, reach, { tailEnd: at(3, 500) }), [
    "000000010000000000000003 is stored up to a part only (000000010000000000000003.partial): the stored WAL ends at 0/3001F4, the target is 0/3001F4",
  ]);
});

test("the WAL of the backup itself is needed for any target", () => {
  const { question, reach } = ask([nameOf(1)]);
  assert.deepEqual(obstacles(question, reach, {}), [
    "000000010000000000000002 is not stored: backup b needs all WAL from its start to 0/200064",
  ]);
});

test("a time needs a transaction that ended after it", () => {
  const target = { kind: "time" as const, atUs: 1_800_000_000_000_000 };
  const { question, reach } = ask([nameOf(1), nameOf(2)], { target });
  assert.deepEqual(obstacles(question, reach, { lastEndUs: target.atUs + 1 }), []);
  assert.match(obstacles(question, reach, { lastEndUs: target.atUs })[0] ?? "", /last transaction ended at 2027-01-15/);
  assert.match(
    obstacles(question, reach, {})[0] ?? "",
    /no transaction ended, not after the target 2027-01-15 08:00:00\+00$/,
  );
});

test("the end of the WAL is not reached across a hole; a recorded gap is named", () => {
  const gap = { start: nameOf(2), end: nameOf(4), atMs: 1_800_000_000_000 };
  const { question, reach } = ask([nameOf(1), nameOf(2), nameOf(4)], { gaps: [gap] });
  assert.deepEqual(obstacles(question, reach, {}), [
    "000000010000000000000003 is not stored, though 000000010000000000000004 behind it is; a gap from 000000010000000000000002 to 000000010000000000000004 was accepted at 2027-01-15 08:00:00+00: the recovery would end at 0/300000; name a target up to there to accept that",
  ]);
  const whole = ask([nameOf(1), nameOf(2), nameOf(3)]);
  assert.deepEqual(obstacles(whole.question, whole.reach, {}), []);
});

test("the last end is looked for from the tail back to the backup's start, across timelines", () => {
  const history: TimelineHistory = { timeline: 2, ancestors: [{ timeline: 1, endLsn: at(3, 8), reason: "" }] };
  const { question, reach } = ask(
    [nameOf(1), nameOf(2), "000000020000000000000003", "000000020000000000000004.partial"],
    { history },
  );
  assert.deepEqual(
    [...segmentsBackward(question, reach)],
    [
      "000000020000000000000004.partial",
      "000000020000000000000003",
      "000000010000000000000002",
      "000000010000000000000001",
    ],
  );
});
