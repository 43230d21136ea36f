import { expect, test } from "vitest";
import type { BackupMetadata } from "../../../src/domain/backup-metadata.ts";
import { baseStatistics } from "../../../src/domain/base-statistics.ts";
import type { SnapshotInfo, StoredBackup } from "../../../src/domain/snapshots.ts";

const backup = (name: string, endTimeMs: number, cluster = "alpha", pgData = "/data"): StoredBackup => {
  const snapshot: SnapshotInfo = {
    id: name,
    user: "klio",
    cluster,
    path: `/links/${name}/pgdata`,
    backup: name,
    content: "pgdata",
    startTimeMs: endTimeMs - 10,
    endTimeMs,
    bytes: endTimeMs * 2,
    files: endTimeMs + 1,
    directories: 3,
    pins: [],
  };
  const control = { ...snapshot, content: "controldata" as const, bytes: 8192 };
  return { metadata: { name, pgData } as BackupMetadata, snapshots: [control, snapshot] };
};

test("per data directory: how many, the latest's size, the ages of latest and oldest, whatever the order", () => {
  const expected = [
    {
      source: "klio@alpha:/data",
      snapshots: 3,
      latestBytes: 600,
      latestFiles: 301,
      latestDirectories: 3,
      latestEndMs: 300,
      oldestEndMs: 100,
    },
    {
      source: "klio@beta:/data",
      snapshots: 1,
      latestBytes: 100,
      latestFiles: 51,
      latestDirectories: 3,
      latestEndMs: 50,
      oldestEndMs: 50,
    },
  ];
  const backups = [backup("b", 200), backup("c", 300), backup("a", 100), backup("x", 50, "beta")];
  expect(baseStatistics(backups)).toEqual(expected);
  expect(baseStatistics(backups.toReversed())).toEqual(expected);
});

test("nothing stored, nothing said", () => {
  expect(baseStatistics([])).toEqual([]);
});
