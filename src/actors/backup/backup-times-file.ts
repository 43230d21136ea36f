// The file in which a sidecar remembers its backups.
import { readFile } from "node:fs/promises";
import { type BackupTimes, formatBackupTimes, parseBackupTimes } from "../../domain/backup-times.ts";
import { replaceFile } from "../spool/durable-file.ts";
import { fileError } from "../wal-fetch/classify.ts";

/** Nothing known when there is no such file. Rejects with the KlioError of what the file system said. */
export async function readBackupTimes(path: string): Promise<BackupTimes> {
  try {
    return parseBackupTimes(await readFile(path, "utf8"));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return {};
    throw fileError(error, path);
  }
}

/** Rejects with the KlioError of what the file system said. */
export async function writeBackupTimes(path: string, times: BackupTimes): Promise<void> {
  try {
    await replaceFile(path, Buffer.from(formatBackupTimes(times)));
  } catch (error) {
    throw fileError(error instanceof Error ? error.cause : error, path); // its words would be of a tier's volume
  }
}
