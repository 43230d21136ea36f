import assert from "node:assert/strict";
import fc from "fast-check";
import { describe, test } from "vitest";
import type { BackupMetadata } from "../../../src/domain/backup-metadata.ts";
import { lsn } from "../../../src/domain/lsn.ts";
import {
  chooseBackup,
  endLsnOf,
  formatTargetTime,
  parseTarget,
  parseTargetTime,
  targetText,
  usableFromUs,
  whyUnsuitable,
} from "../../../src/domain/recovery-target.ts";
import { firstTimeline, type TimelineHistory } from "../../../src/domain/timeline.ts";
import { backupOf } from "../../support/backups.ts";

describe("a point in time", () => {
  test("survives being written and read", () => {
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 4_000_000_000_000_000 }), (us) => {
        assert.equal(parseTargetTime(formatTargetTime(us)), us);
      }),
    );
  });

  test.each([
    ["2026-01-31T23:59:59Z", 1769903999_000000],
    ["2026-01-31 23:59:59.5+01:00", 1769900399_500000],
    ["2026-01-31 23:59:59.123456+00", 1769903999_123456],
    ["2026-01-31T22:59-0130", 1769905740_000000],
    ["2026-01-31 23:59:59 UTC", 1769903999_000000],
    ["1769903999", 1769903999_000000],
    ["1769903999.25", 1769903999_250000],
  ])("%s is read", (text, us) => {
    assert.equal(parseTargetTime(text), us);
  });

  test.each([
    ["2026-01-31 23:59:59", /time zone/],
    ["2026-01-31", /not a point in time/],
    ["yesterday", /not a point in time/],
    ["2026-02-30T00:00:00Z", /no such point/],
    ["2026-01-31T24:00:00Z", /no such point/],
    ["1969-12-31T23:59:59Z", /before 1970/],
    ["", /not a point in time/],
  ])("%j is refused", (text, message) => {
    assert.throws(() => parseTargetTime(text), { code: "KLIO-USAGE", message });
  });
});

test("a time and an LSN exclude each other; none means the end of the WAL", () => {
  assert.deepEqual(parseTarget({}), { kind: "latest" });
  assert.deepEqual(parseTarget({ lsn: "16/b374d848" }), { kind: "lsn", lsn: "16/B374D848" });
  assert.deepEqual(parseTarget({ time: "100" }), { kind: "time", atUs: 100_000_000 });
  assert.throws(() => parseTarget({ time: "100", lsn: "0/1" }), { code: "KLIO-USAGE" });
  assert.equal(targetText({ kind: "time", atUs: 100_000_000 }), "1970-01-01 00:01:40+00");
});

const backups = fc
  .array(
    fc.record({
      start: fc.integer({ min: 1, max: 900 }),
      length: fc.integer({ min: 1, max: 50 }),
      tli: fc.integer({ min: 1, max: 3 }),
    }),
    { maxLength: 8 },
  )
  .map((list): BackupMetadata[] =>
    list.map(({ start, length, tli }, i) =>
      backupOf({
        name: `b${i}`,
        startLsn: String(start),
        endLsn: String(start + length),
        tli,
        startedAt: start,
        stoppedAt: start + length,
      }),
    ),
  );
const history: TimelineHistory = {
  timeline: 3,
  ancestors: [
    { timeline: 1, endLsn: lsn(300), reason: "" },
    { timeline: 2, endLsn: lsn(600), reason: "" },
  ],
};
const targets = fc.oneof(
  fc.constant({ kind: "latest" as const }),
  fc.integer({ min: 0, max: 1000 }).map((n) => ({ kind: "lsn" as const, lsn: `0/${n.toString(16).toUpperCase()}` })),
  fc.integer({ min: 0, max: 1000 }).map((n) => ({ kind: "time" as const, atUs: n * 1_000_000 })),
);

test("the chosen backup suits, and no suitable one lies behind it; none is chosen only when none suits", () => {
  fc.assert(
    fc.property(backups, targets, (list, target) => {
      const choice = chooseBackup(list, target, history);
      const suitable = list.filter((one) => whyUnsuitable(one, target, history) === undefined);
      if (choice.kind === "none") {
        assert.deepEqual(suitable, []);
        assert.equal(choice.reasons.length, Math.max(1, list.length));
        return;
      }
      assert.ok(suitable.includes(choice.backup));
      assert.ok(suitable.every((one) => BigInt(one.startLsn) <= BigInt(choice.backup.startLsn)));
      if (target.kind === "lsn") assert.ok(endLsnOf(choice.backup) <= BigInt(`0x${target.lsn.slice(2)}`));
      if (target.kind === "time") assert.ok(usableFromUs(choice.backup) <= target.atUs);
    }),
  );
});

test("a backup that ended within the second of the target is not used: the second was cut off", () => {
  const backup = backupOf({ stoppedAt: 100 });
  assert.match(
    whyUnsuitable(backup, { kind: "time", atUs: 100_900_000 }, firstTimeline) ?? "",
    /not before the target/,
  );
  assert.equal(whyUnsuitable(backup, { kind: "time", atUs: 101_000_000 }, firstTimeline), undefined);
});

test("a named backup is taken or refused with the reason, never replaced by another", () => {
  const list = [
    backupOf({ name: "old", startLsn: "1", endLsn: "2" }),
    backupOf({ name: "new", startLsn: "100", endLsn: "200" }),
  ];
  const chosen = chooseBackup(list, { kind: "latest" }, firstTimeline, "old");
  assert.equal(chosen.kind === "chosen" && chosen.backup.name, "old");
  assert.deepEqual(chooseBackup(list, { kind: "lsn", lsn: "0/64" }, firstTimeline, "new"), {
    kind: "none",
    reasons: ["backup new ends at 0/C8, after the target 0/64"],
  });
  assert.deepEqual(chooseBackup(list, { kind: "latest" }, firstTimeline, "other"), {
    kind: "none",
    reasons: ["backup other is not stored"],
  });
  assert.deepEqual(chooseBackup([], { kind: "latest" }, firstTimeline), {
    kind: "none",
    reasons: ["no backup is stored"],
  });
});
