import { expect, test } from "vitest";
import { silentTier, tierReport } from "../../../src/domain/cluster-status.ts";
import type { SnapshotInfo, StoredBackup } from "../../../src/domain/snapshots.ts";
import { firstTimeline } from "../../../src/domain/timeline.ts";
import { backupOf } from "../../support/backups.ts";

const SEGMENT = 1 << 20;
const name = (n: number) => `0000000100000000${n.toString(16).toUpperCase().padStart(8, "0")}`;
const snapshot = (bytes: number): SnapshotInfo => ({
  id: "1",
  user: "klio",
  cluster: "main",
  path: "/x/1",
  backup: "b",
  content: "pgdata",
  startTimeMs: 0,
  endTimeMs: 0,
  bytes,
  files: 1,
  directories: 1,
  pins: [],
});
/** A backup whose WAL lies in segment `n`. */
const backup = (id: string, n: number, stoppedAt: number): StoredBackup => ({
  metadata: backupOf({
    name: id,
    startLsn: String(n * SEGMENT + 100),
    endLsn: String(n * SEGMENT + 200),
    startWal: name(n),
    endWal: name(n),
    segmentSize: SEGMENT,
    stoppedAt,
  }),
  snapshots: [snapshot(1_000), snapshot(3_000)],
});
const file = (n: number, suffix = "") => ({ name: name(n) + suffix, storedBytes: 1, mtimeMs: (1_000 + n) * 1_000 });
const found = {
  files: [file(1), file(2), file(3, ".partial")],
  backups: [backup("b2", 2, 1_002), backup("b1", 1, 1_001)],
  history: firstTimeline,
  measures: {},
  exposure: null,
  now: 1_062,
};

test("intervals, the newest backup and what a recovery from it needs", () => {
  expect(tierReport(found)).toEqual({
    error: "",
    exposure: null,
    recoverable: [
      {
        timeline: 1,
        from_lsn: "0/1000C8",
        from_time: "1970-01-01T00:16:41Z",
        to_lsn: "0/300000",
        stored_time: "1970-01-01T00:16:43Z",
        partial: `${name(3)}.partial`,
        backups: ["b1", "b2"],
      },
    ],
    backup_count: 2,
    latest_backup: {
      name: "b2",
      completed_time: "1970-01-01T00:16:42Z",
      age_seconds: 60,
      size: 4_000,
      verified_time: null,
    },
    recovery: {
      backup: "b2",
      size: 4_000,
      restore_seconds: null,
      basis: "no restore and no verification was measured yet",
      wal_size: SEGMENT - 100,
    },
  });
});

test("the time to recover comes from what was measured, a restore before a verification, and from nothing else", () => {
  const verification = { backup: "b2", bytes: 2_000, seconds: 1, at: 1_050 };
  const restore = { backup: "b1", bytes: 1_000, seconds: 2, at: 1_040 };
  const verified = tierReport({ ...found, measures: { verification } });
  expect(verified.recovery).toMatchObject({
    restore_seconds: 2,
    basis: "verification of b2 at 1970-01-01T00:17:30Z: 2000 bytes in 1.0 s",
  });
  expect(verified.latest_backup?.verified_time).toBe("1970-01-01T00:17:30Z");
  const restored = tierReport({ ...found, measures: { verification, restore } });
  expect(restored.recovery).toMatchObject({ restore_seconds: 8, basis: expect.stringMatching(/^restore of b1 /) });
  const empty = tierReport({ ...found, measures: { restore: { ...restore, bytes: 0 } } });
  expect(empty.recovery?.restore_seconds).toBeNull();
});

test("a backup whose WAL is not there recovers to nothing, and says so", () => {
  const holed = tierReport({ ...found, files: [file(1)] });
  expect(holed.recoverable.map(({ backups, to_lsn }) => [backups, to_lsn])).toEqual([[["b1"], "0/200000"]]);
  expect(holed.recovery).toMatchObject({ backup: "b2", wal_size: null });
  expect(tierReport({ ...found, files: [], backups: [] })).toEqual(silentTier("", null));
});
