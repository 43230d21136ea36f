import type { BackupMetadata } from "../../src/domain/backup-metadata.ts";
import type { SnapshotInfo } from "../../src/domain/snapshots.ts";

/** Metadata of a backup, with values of its own where a test cares. */
export function backupOf(values: Partial<BackupMetadata> = {}): BackupMetadata {
  return {
    name: "backup-1",
    clusterName: "main",
    systemId: "7000000000000000001",
    startLsn: "16777216",
    endLsn: "16777728",
    startWal: "000000010000000000000001",
    endWal: "000000010000000000000001",
    tli: 1,
    segmentSize: 16 << 20,
    backupLabel: "START WAL LOCATION: 0/1000000 (file 000000010000000000000001)\n",
    tablespaceMap: "",
    pgData: "/var/lib/postgresql/data/pgdata",
    pgVersion: 180000,
    tablespaces: [],
    annotations: {},
    startedAt: 1_700_000_000,
    stoppedAt: 1_700_000_060,
    ...values,
  };
}

/** A snapshot of backup `b1` of cluster `a`, with values of its own where a test cares. */
export function partOf(values: Partial<SnapshotInfo> = {}): SnapshotInfo {
  return {
    id: "s1",
    user: "klio",
    cluster: "a",
    path: "/run/b1/pgdata",
    backup: "b1",
    content: "pgdata",
    startTimeMs: 1,
    endTimeMs: 2,
    bytes: 10,
    files: 1,
    directories: 1,
    pins: [],
    ...values,
  };
}
