// What makes restored files a data directory that PostgreSQL recovers: label, tablespace map and links, the directories it
// wants to find, recovery settings; and all of it durable.
import { type FileHandle, lstat, mkdir, open, readFile, rm, stat, symlink } from "node:fs/promises";
import { dirname, join } from "node:path";
import type { BackupMetadata } from "../../domain/backup-metadata.ts";
import { failureOf, type Outcome, ok } from "../../domain/outcome.ts";
import { type RecoverySettings, remapTablespaces, withRecoverySettings } from "../../domain/recovery-settings.ts";
import { KlioError } from "../../errors.ts";
import { fileError } from "../wal-fetch/classify.ts";
import { MARKER } from "./destination.ts";

/** Emptied by PostgreSQL when it starts, or left out of a backup: they come back empty or not at all. */
const DIRECTORIES = [
  "pg_wal",
  "pg_wal/archive_status",
  "pg_commit_ts",
  "pg_dynshmem",
  "pg_logical",
  "pg_logical/mappings",
  "pg_logical/snapshots",
  "pg_multixact",
  "pg_multixact/members",
  "pg_multixact/offsets",
  "pg_notify",
  "pg_replslot",
  "pg_serial",
  "pg_snapshots",
  "pg_stat",
  "pg_stat_tmp",
  "pg_subtrans",
  "pg_tblspc",
  "pg_twophase",
  "pg_xact",
];
/** Of the running server that was backed up, or of an earlier life of it. */
const LEFT_OVER = [
  "postmaster.pid",
  "postmaster.opts",
  "recovery.signal",
  "standby.signal",
  "backup_label.old",
  "tablespace_map.old",
];
const CONTROL_FILE_BYTES = 8192;

export type RecoveryFiles = {
  destination: string;
  backup: BackupMetadata;
  /** Where the tablespaces are now, by oid: all of the backup's. */
  tablespaces: ReadonlyMap<number, string>;
  /** Absent: the directory is left without recovery settings, for others to configure. */
  settings?: RecoverySettings;
};

type Owner = { uid: number; gid: number } | undefined;

/** When root restores, what it writes must belong to whom the rest belongs to. */
async function ownerOf(destination: string): Promise<Owner> {
  if (process.getuid?.() !== 0) return undefined;
  const { uid, gid } = await stat(join(destination, "PG_VERSION"));
  return { uid, gid };
}

async function settle(handle: FileHandle, owner: Owner, mode?: number): Promise<void> {
  if (mode !== undefined) await handle.chmod(mode);
  if (owner !== undefined) await handle.chown(owner.uid, owner.gid);
  await handle.sync();
}

async function writeDurably(path: string, text: string, owner: Owner): Promise<void> {
  const handle = await open(path, "w", 0o600);
  try {
    await handle.writeFile(text);
    await settle(handle, owner, 0o600);
  } finally {
    await handle.close();
  }
}

async function settleDirectory(path: string, owner: Owner, mode?: number): Promise<void> {
  const handle = await open(path, "r");
  try {
    await settle(handle, owner, mode);
  } finally {
    await handle.close();
  }
}

async function makeDirectory(path: string, owner: Owner): Promise<void> {
  const stats = await lstat(path).catch((error: NodeJS.ErrnoException) => {
    if (error.code === "ENOENT") return undefined;
    throw error;
  });
  // A pg_wal on a volume of its own is a link in the backup: to a place that is not ours to write to.
  if (stats?.isSymbolicLink()) await rm(path);
  await mkdir(path, { recursive: true, mode: 0o700 });
  await settleDirectory(path, owner);
}

/**
 * Everything but the control file. Called when all other data is there and before the control file is: from the moment
 * PostgreSQL can start on the directory it finds the label. Safe to repeat.
 */
export async function writeRecoveryFiles(files: RecoveryFiles): Promise<Outcome<null>> {
  const { destination, backup, tablespaces, settings } = files;
  const at = (name: string) => join(destination, name);
  try {
    const owner = await ownerOf(destination);
    for (const name of LEFT_OVER) await rm(at(name), { force: true });
    for (const name of DIRECTORIES) await makeDirectory(at(name), owner);
    if (backup.backupLabel === "")
      throw new KlioError("KLIO-BACKUP-CORRUPT", `backup ${backup.name} was stored without its label`);
    await writeDurably(at("backup_label"), backup.backupLabel, owner);
    const map = remapTablespaces(backup.tablespaceMap, tablespaces);
    if (map === "") await rm(at("tablespace_map"), { force: true });
    else await writeDurably(at("tablespace_map"), map, owner);
    for (const [oid, path] of tablespaces) {
      await rm(at(join("pg_tblspc", String(oid))), { force: true });
      await symlink(path, at(join("pg_tblspc", String(oid))));
    }
    await settleDirectory(at("pg_tblspc"), owner);
    if (settings !== undefined) {
      const text = await readFile(at("postgresql.auto.conf"), "utf8").catch((error: NodeJS.ErrnoException) => {
        if (error.code === "ENOENT") return "";
        throw error;
      });
      await writeDurably(at("postgresql.auto.conf"), withRecoverySettings(text, settings), owner);
      await writeDurably(at("recovery.signal"), "", owner);
    }
    return ok(null);
  } catch (error) {
    return failureOf(fileError(error, destination));
  }
}

/** Last step: checks what must be there, sets the mode that PostgreSQL demands, removes the markers, makes it durable. */
export async function sealDestination({ destination, backup, tablespaces }: RecoveryFiles): Promise<Outcome<null>> {
  try {
    const owner = await ownerOf(destination);
    const control = await stat(join(destination, "global", "pg_control"));
    if (control.size !== CONTROL_FILE_BYTES)
      throw new KlioError(
        "KLIO-BACKUP-CORRUPT",
        `pg_control of backup ${backup.name} has ${control.size} bytes instead of ${CONTROL_FILE_BYTES}`,
      );
    await settleDirectory(join(destination, "global"), owner);
    for (const directory of [...tablespaces.values(), destination]) {
      await rm(join(directory, MARKER), { recursive: true, force: true });
      await settleDirectory(directory, owner, 0o700);
      await settleDirectory(dirname(directory), undefined);
    }
    return ok(null);
  } catch (error) {
    return failureOf(fileError(error, destination));
  }
}
