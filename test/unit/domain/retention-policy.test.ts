import fc from "fast-check";
import { expect, test } from "vitest";
import {
  type AgedBackup,
  decideRetention,
  parseRetentionRules,
  retentionRuleNames,
} from "../../../src/domain/retention-policy.ts";

const HOUR = 3_600_000;
const NOW = Date.UTC(2026, 10, 24, 12);
const none = Object.fromEntries(retentionRuleNames.map((rule) => [rule, 0]));
const backup = (hoursAgo: number, isPinned = false, hasWal = true): AgedBackup => ({
  name: `h${hoursAgo}`,
  startedAtMs: NOW - hoursAgo * HOUR,
  stoppedAtMs: NOW - hoursAgo * HOUR + 60_000,
  isPinned,
  hasWal,
});

test("keepLatest keeps the newest, the rest goes, oldest first", () => {
  const { kept, expired } = decideRetention(
    [1, 2, 3, 4].map((h) => backup(h)),
    { ...none, keepLatest: 2 },
    NOW,
  );
  expect(Object.keys(kept).sort()).toEqual(["h1", "h2"]);
  expect(expired).toEqual(["h4", "h3"]);
});

test("each period keeps its newest backup", () => {
  const days = [0, 1, 24, 25, 48, 72, 96].map((h) => backup(h));
  const { kept } = decideRetention(days, { ...none, keepDaily: 3 }, NOW);
  expect(kept).toEqual({ h0: ["latest-1", "daily-1"], h24: ["daily-2"], h48: ["daily-3"] });
});

test("a week begins on Monday, and the cutoff counts from the newest backup, not from now", () => {
  const weeks = [0, 24, 7 * 24, 14 * 24, 400 * 24].map((h) => backup(h + 3_000));
  const { kept } = decideRetention(weeks, { ...none, keepWeekly: 2, keepAnnual: 5 }, NOW);
  expect(kept.h3000).toEqual(["latest-1", "weekly-1", "annual-1"]);
  expect(kept.h3168).toEqual(["weekly-2"]);
  expect(kept[`h${400 * 24 + 3_000}`]).toEqual(["annual-2"]);
});

test("the recovery window keeps its backups and the one before them", () => {
  const { kept, expired } = decideRetention(
    [1, 24, 60, 100, 200].map((h) => backup(h)),
    { ...none, recoveryWindowDays: 3 },
    NOW,
  );
  expect(Object.keys(kept).sort()).toEqual(["h1", "h100", "h24", "h60"]);
  expect(expired).toEqual(["h200"]);
});

test("a policy that would keep nothing keeps everything; pinned backups stay", () => {
  expect(decideRetention([backup(1), backup(2)], none, NOW).expired).toEqual([]);
  const { kept } = decideRetention([backup(1), backup(2), backup(3, true)], { ...none, keepLatest: 1 }, NOW);
  expect(kept.h3).toEqual(["pinned"]);
  expect(kept.h2).toBeUndefined();
});

test("P2: a backup that lacks WAL takes the place of none that can be restored, and goes when younger ones can be", () => {
  const rules = { ...none, keepLatest: 1 };
  const lacking = [backup(2, false, false), backup(3), backup(4)];
  expect(decideRetention(lacking, rules, NOW)).toEqual({
    kept: { h2: ["latest-1"], h3: ["restorable-latest-1"] },
    expired: ["h4"],
  });
  expect(decideRetention([backup(1), ...lacking], rules, NOW).expired).toEqual(["h4", "h3", "h2"]);
  const allLack = [backup(1, false, false), backup(2, false, false)];
  expect(decideRetention(allLack, rules, NOW).expired).toEqual(["h2"]);
  const window = { ...none, recoveryWindowDays: 1 };
  const { kept } = decideRetention([backup(1), backup(30, false, false), backup(50), backup(70)], window, NOW);
  expect(kept).toEqual({
    h1: ["latest-1", "recovery-window"],
    h30: ["recovery-window"],
    h50: ["restorable-recovery-window"],
  });
});

test("P2: no clock expires what the policy keeps: neither a backup's that was ahead, nor the server's", () => {
  const rules = { ...none, keepLatest: 1, keepDaily: 7 };
  // Taken while the source's clock was a year ahead: it stands for none of the others, and stays until its time has come.
  const ahead = backup(-365 * 24);
  const { kept, expired } = decideRetention([ahead, backup(1), backup(25), backup(26)], rules, NOW);
  expect(kept).toEqual({ [ahead.name]: ["ahead-of-clock"], h1: ["latest-1", "daily-1"], h25: ["daily-2"] });
  expect(expired).toEqual(["h26"]);
  expect(decideRetention([ahead], rules, NOW).expired).toEqual([]);
  // The server's clock jumps a year ahead: the window still ends with the newest backup.
  const window = { ...none, recoveryWindowDays: 3 };
  const backups = [1, 24, 60, 100, 200].map((h) => backup(h));
  expect(decideRetention(backups, window, NOW + 365 * 24 * HOUR).expired).toEqual(["h200"]);
});

test("the newest backup always stays; every backup is either kept or expired", () => {
  const rules = fc.record(Object.fromEntries(retentionRuleNames.map((rule) => [rule, fc.integer({ min: 0, max: 5 })])));
  fc.assert(
    fc.property(fc.uniqueArray(fc.integer({ min: 0, max: 20_000 }), { maxLength: 30 }), rules, (hours, some) => {
      const { kept, expired } = decideRetention(
        hours.map((h) => backup(h, false, h % 3 > 0)),
        some,
        NOW,
      );
      expect([...Object.keys(kept), ...expired].sort()).toEqual(hours.map((h) => `h${h}`).sort());
      if (hours.length > 0) expect(kept[`h${Math.min(...hours)}`]).toBeDefined();
    }),
  );
});

test("a policy's JSON: empty means untouched, unset keys stay unset, nonsense is refused with its value", () => {
  expect(parseRetentionRules("")).toBeUndefined();
  expect(parseRetentionRules('{"keepLatest":3,"keepDaily":null,"other":1}')).toEqual({ keepLatest: 3 });
  expect(() => parseRetentionRules('{"keepLatest":-1}')).toThrow("keepLatest is no whole number of backups: -1");
  expect(() => parseRetentionRules("[1]")).toThrow("retention policy is no object: [1]");
  expect(() => parseRetentionRules("x{")).toThrow('retention policy is not JSON: "x{"');
});
