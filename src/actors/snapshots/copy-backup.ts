// Copies one backup between repositories: chosen by the places its snapshots were taken from, which no other backup has.
import { randomBytes } from "node:crypto";
import { copyFile, readdir, rm, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { failure, type Outcome, ok } from "../../domain/outcome.ts";
import type { CatalogueEntry } from "../../domain/snapshot-catalogue.ts";
import type { CopyOptions, SnapshotInfo, StoredBackup } from "../../domain/snapshots.ts";
import type { CommandResult } from "../process/run-command.ts";
import { lastingKey, sourceOf } from "./catalogue.ts";
import { failureOfCommand, type Peer } from "./classify.ts";
import { parseProgress } from "./progress.ts";

const COPY_PREFIX = "copy-";
/**
 * The program goes on after these, ends with exit status 0, and keeps what it has of a snapshot whose files it could not
 * write as if it were whole.
 */
const PART_FAILED = /unable to migrate source: |error when processing "/i;

/** Copies of these snapshots that hold another amount than they: whatever was told of them, something is missing. */
export function brokenCopies(entries: readonly CatalogueEntry[], originals: readonly SnapshotInfo[]): CatalogueEntry[] {
  const byKey = new Map(originals.map((one) => [lastingKey(one), one]));
  return entries.filter((copy) => {
    const original = byKey.get(lastingKey(copy));
    if (original === undefined) return false;
    const { bytes, files, directories } = original;
    return copy.bytes !== bytes || copy.files !== files || copy.directories !== directories;
  });
}

/** All that a copy keeps of its original and that nobody else can know of another's. */
export function isCopyOf(copy: CatalogueEntry, original: CatalogueEntry): boolean {
  return (
    lastingKey(copy) === lastingKey(original) &&
    copy.endTimeMs === original.endTimeMs &&
    copy.backup === original.backup &&
    copy.content === original.content
  );
}

/**
 * A connection file with its password beside it, where the program looks for the password of a connection other than its
 * own. For the time of one copy: the caller removes both.
 */
export async function borrowConnection(
  configFile: string,
  password: string,
): Promise<{ configFile: string; remove(): Promise<void> }> {
  const borrowed = join(dirname(configFile), `${COPY_PREFIX}${randomBytes(6).toString("hex")}.config`);
  await copyFile(configFile, borrowed);
  await writeFile(`${borrowed}.kopia-password`, Buffer.from(password).toString("base64"), { mode: 0o600, flag: "wx" });
  return {
    configFile: borrowed,
    async remove() {
      for (const suffix of ["", ".mlock", ".kopia-password"]) await rm(`${borrowed}${suffix}`, { force: true });
    },
  };
}

/** Removes what killed runs left of their copies. */
export async function removeBorrowed(directory: string): Promise<void> {
  for (const name of await readdir(directory))
    if (name.startsWith(COPY_PREFIX)) await rm(join(directory, name), { force: true });
}

/**
 * `sourceConfig`: connection file of the source, its password beside it. `run` works on the target. The arguments carry
 * as many paths as the backup has snapshots; what the target holds already is skipped.
 */
export async function copySnapshots(
  run: (
    args: readonly string[],
    options: { signal?: AbortSignal; onLine: (stream: "stdout" | "stderr", line: string) => void },
  ) => Promise<CommandResult>,
  peer: Peer,
  sourceConfig: string,
  backup: StoredBackup,
  { signal, onProgress }: CopyOptions,
): Promise<Outcome<{ bytes: number }>> {
  // The metadata last: an interrupted copy is no backup.
  const inOrder = backup.snapshots.toSorted(
    (a, b) => Number(a.content === "metadata") - Number(b.content === "metadata"),
  );
  for (const group of [inOrder.slice(0, -1), inOrder.slice(-1)]) {
    if (group.length === 0) continue;
    const failures: string[] = [];
    const result = await run(
      [
        "snapshot",
        "migrate",
        `--source-config=${sourceConfig}`,
        ...group.map((one) => `--sources=${sourceOf(one)}`),
        "--no-policies",
        "--progress",
        "--progress-update-interval=1s",
      ],
      {
        ...(signal !== undefined && { signal }),
        onLine: (_, line) => {
          const progress = parseProgress(line);
          if (progress !== undefined) onProgress?.(progress);
          const failed = PART_FAILED.exec(line); // perhaps behind a line of progress
          if (failed !== null) failures.push(line.slice(failed.index));
        },
      },
    );
    const what = `cannot copy backup ${backup.metadata.name}`;
    if (!result.aborted && result.code === 0 && failures.length === 0) continue;
    const stderr = failures.length > 0 ? failures.join("\n") : result.stderr;
    const failed = failureOfCommand({ ...result, stderr }, peer, what);
    // Tried again, as often as a task is: the program says no more than "BLOB not found" of an object that it could not
    // write when it asks for it and the storage is back.
    return failed.code === "KLIO-REPOSITORY" ? failure("KLIO-REPOSITORY-DOWN", failed.reason) : failed;
  }
  return ok({ bytes: backup.snapshots.reduce((sum, one) => sum + one.bytes, 0) });
}
