// A small "data directory" and a whole backup of it, without PostgreSQL.
import { randomBytes } from "node:crypto";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { BackupMetadata } from "../../src/domain/backup-metadata.ts";
import { unwrap } from "../../src/domain/outcome.ts";
import type { ClusterSnapshots, StoredBackup } from "../../src/domain/snapshots.ts";

export function sampleMetadata(
  name: string,
  clusterName = "alpha",
  more: Partial<BackupMetadata> = {},
): BackupMetadata {
  return {
    name,
    clusterName,
    systemId: "7000000000000000001",
    startLsn: "33554472",
    endLsn: "33554752",
    startWal: "000000010000000000000002",
    endWal: "000000010000000000000002",
    tli: 1,
    segmentSize: 16 << 20,
    backupLabel:
      "START WAL LOCATION: 0/2000028 (file 000000010000000000000002)\nCHECKPOINT LOCATION: 0/2000060\n" +
      "BACKUP METHOD: streamed\nBACKUP FROM: primary\nSTART TIME: 2026-01-01 00:00:00 UTC\nLABEL: sample\nSTART TIMELINE: 1\n",
    tablespaceMap: "",
    pgData: "/var/lib/postgresql/data/pgdata",
    pgVersion: 170000,
    tablespaces: [],
    annotations: {},
    startedAt: 1_767_225_600,
    stoppedAt: 1_767_225_660,
    ...more,
  };
}

/** A tree with 3 MB of random bytes, the control file, and things that no backup may hold. */
export function sampleTree(directory: string): string {
  const data = join(directory, "data");
  for (const name of ["global", "base/1", "pg_wal", "pg_replslot", "log"])
    mkdirSync(join(data, name), { recursive: true });
  writeFileSync(join(data, "PG_VERSION"), "17\n");
  writeFileSync(join(data, "global/pg_control"), randomBytes(8192));
  writeFileSync(join(data, "base/1/1000"), randomBytes(3 << 20));
  writeFileSync(join(data, "pg_wal/000000010000000000000001"), "wal");
  writeFileSync(join(data, "pg_replslot/state"), "slot");
  writeFileSync(join(data, "postmaster.pid"), "1\n");
  writeFileSync(join(data, "base/1/pgsql_tmp1.2"), "sort");
  return data;
}

/** Stores a backup as the backup machine does, in the same order. */
export async function storeSample(
  snapshots: ClusterSnapshots,
  data: string,
  metadata: BackupMetadata,
  pin?: string,
): Promise<StoredBackup> {
  const { name } = metadata;
  const options = pin === undefined ? {} : { pin };
  unwrap(await snapshots.create(name, [{ content: "pgdata", path: data }], options));
  unwrap(await snapshots.create(name, [{ content: "controldata", path: join(data, "global/pg_control") }], options));
  const directory = `${data}-${name}-metadata`;
  mkdirSync(directory, { recursive: true });
  writeFileSync(join(directory, "metadata.json"), JSON.stringify(metadata));
  unwrap(await snapshots.create(name, [{ content: "metadata", path: directory }], { ...options, metadata }));
  const stored = unwrap(await snapshots.backups()).find((one) => one.metadata.name === name);
  if (stored === undefined) throw new Error(`backup ${name} is not listed`);
  return stored;
}
