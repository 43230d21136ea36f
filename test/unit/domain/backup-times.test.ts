import fc from "fast-check";
import { expect, test } from "vitest";
import {
  afterRestart,
  type BackupTimes,
  backupBegun,
  backupEnded,
  formatBackupTimes,
  parseBackupTimes,
  withStoredBackups,
} from "../../../src/domain/backup-times.ts";

const seconds = fc.double({ min: 0, max: 4e9, noNaN: true });
const times: fc.Arbitrary<BackupTimes> = fc.record(
  {
    running: fc.record({ name: fc.string(), startedAt: seconds }),
    latestStart: seconds,
    latestCompletion: seconds,
    latestFailure: seconds,
    latestDuration: seconds,
    unverified: fc.constant(true as const),
  },
  { requiredKeys: [] },
);

test("what is written is read again", () => {
  fc.assert(
    fc.property(times, (x) => {
      expect(parseBackupTimes(formatBackupTimes(x))).toEqual(JSON.parse(JSON.stringify(x)));
    }),
  );
});

test("anything else counts as nothing known, and a part of it does not spoil the rest", () => {
  for (const text of ["", "{", "[]", "null", "7", '"x"', '{"latestStart":"1"}', '{"running":{"name":1}}'])
    expect(parseBackupTimes(text)).toEqual({});
  expect(parseBackupTimes('{"latestStart":5,"latestFailure":null}')).toEqual({ latestStart: 5 });
});

test("begin and end move the times as the metrics move", () => {
  const begun = backupBegun({}, "b1", 100);
  expect(begun).toEqual({ running: { name: "b1", startedAt: 100 }, latestStart: 100 });
  expect(backupEnded(begun, "completed", 160)).toEqual({ latestStart: 100, latestDuration: 60, latestCompletion: 160 });
  expect(backupEnded(begun, "failed", 130)).toEqual({ latestStart: 100, latestDuration: 30, latestFailure: 130 });
  expect(backupEnded(begun, "cancelled", 130)).toEqual({ latestStart: 100, latestDuration: 30 });
});

test("only a complete backup says whether it was verified, and the store knows of none", () => {
  const begun = backupBegun({}, "b1", 100);
  const bad = backupEnded(begun, "completed", 160, true);
  expect(bad.unverified).toBe(true);
  expect(backupEnded(backupBegun(bad, "b2", 200), "failed", 210).unverified).toBe(true);
  expect(backupEnded(backupBegun(bad, "b2", 200), "completed", 210)).not.toHaveProperty("unverified");
  expect(withStoredBackups(bad, [{ startedAt: 300, stoppedAt: 310 }])).not.toHaveProperty("unverified");
});

test("a backup that still seems to run after a restart was interrupted, once", () => {
  const found = afterRestart(backupBegun({ latestCompletion: 50 }, "b2", 100), 400);
  expect(found).toEqual({
    interrupted: "b2",
    times: { latestStart: 100, latestCompletion: 50, latestFailure: 400, latestDuration: 300 },
  });
  expect(afterRestart(found.times, 500)).toEqual({ interrupted: undefined, times: found.times });
});

test("stored backups fill what was forgotten, and never turn a time back", () => {
  const stored = [
    { startedAt: 300, stoppedAt: 330 },
    { startedAt: 100, stoppedAt: 120 },
  ];
  expect(withStoredBackups({}, stored)).toEqual({ latestStart: 300, latestCompletion: 330, latestDuration: 30 });
  const newer = { latestStart: 400, latestCompletion: 410, latestDuration: 10 };
  expect(withStoredBackups(newer, stored)).toEqual(newer);
  // A later backup failed: its start and its duration stay the latest ones.
  expect(withStoredBackups({ latestStart: 500, latestFailure: 505, latestDuration: 5 }, stored)).toEqual({
    latestStart: 500,
    latestFailure: 505,
    latestDuration: 5,
    latestCompletion: 330,
  });
  expect(withStoredBackups({ latestFailure: 7 }, [])).toEqual({ latestFailure: 7 });
});
