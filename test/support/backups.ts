import type { BackupMetadata } from "../../src/domain/backup-metadata.ts";

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
