// The metadata of a backup: the document whose presence makes the backup exist (JSON, one snapshot of its own).
import { KlioError } from "../errors.ts";

export type Tablespace = { name: string; oid: number; path: string };

/** LSNs are decimal uint64 in JSON (they pass 2^53) and decimal text here. Times are epoch seconds. */
export type BackupMetadata = {
  name: string;
  clusterName: string;
  systemId: string;
  startLsn: string;
  endLsn: string;
  startWal: string;
  endWal: string;
  tli: number;
  segmentSize: number;
  backupLabel: string;
  tablespaceMap: string;
  pgData: string;
  pgVersion: number;
  tablespaces: Tablespace[];
  annotations: Record<string, string>;
  startedAt: number;
  stoppedAt: number;
};

const LSN_KEYS = /"(startLsn|endLsn)":"(\d+)"/g;

/** JSON with the LSNs as numbers, as published. */
export function formatBackupMetadata(metadata: BackupMetadata, indent = 0): string {
  const text = JSON.stringify(metadata, null, indent);
  return indent === 0 ? text.replace(LSN_KEYS, '"$1":$2') : text.replace(/"(startLsn|endLsn)": "(\d+)"/g, '"$1": $2');
}

/** Parses what `formatBackupMetadata` wrote. Throws KLIO-REPOSITORY when required keys are missing. */
export function parseBackupMetadata(text: string): BackupMetadata {
  let value: unknown;
  try {
    value = JSON.parse(text.replace(/"(startLsn|endLsn)"\s*:\s*(\d+)/g, '"$1":"$2"'));
  } catch (cause) {
    throw new KlioError("KLIO-REPOSITORY", "backup metadata is not JSON", { cause });
  }
  const metadata = value as BackupMetadata;
  for (const key of ["name", "clusterName", "startWal", "endWal", "startLsn", "endLsn"] as const)
    if (typeof metadata?.[key] !== "string") throw new KlioError("KLIO-REPOSITORY", `backup metadata lacks ${key}`);
  for (const key of ["startLsn", "endLsn"] as const)
    if (!/^\d+$/.test(metadata[key])) throw new KlioError("KLIO-REPOSITORY", `backup metadata: ${key} is no number`);
  for (const key of ["tli", "segmentSize", "startedAt", "stoppedAt"] as const)
    if (!Number.isFinite(metadata[key])) throw new KlioError("KLIO-REPOSITORY", `backup metadata lacks ${key}`);
  if (!Array.isArray(metadata.tablespaces) || !metadata.tablespaces.every((one) => Number.isInteger(one?.oid)))
    throw new KlioError("KLIO-REPOSITORY", "backup metadata lacks tablespaces");
  if (typeof metadata.backupLabel !== "string")
    throw new KlioError("KLIO-REPOSITORY", "backup metadata lacks backupLabel");
  return metadata;
}
