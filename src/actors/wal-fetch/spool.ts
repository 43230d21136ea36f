// WAL files that were fetched ahead, in a directory beside the one PostgreSQL wants them in. A file under its own name is
// whole and durable; everything else begins with a dot. Whoever renames a file out of here has it, be it Klio or `mv`.
import { randomUUID } from "node:crypto";
import { mkdir, readdir, readFile, rename, rm, rmdir, stat, writeFile } from "node:fs/promises";
import { basename, dirname, join, resolve } from "node:path";
import type { Tier } from "../../domain/wal-reader.ts";

export const SPOOL_NAME = ".klio-spool";
export const SOCKET_NAME = ".socket";
const TIER_FILE = ".tier";
const TEMPORARY = /^\.[0-9A-Za-z.]+\.(\d+)\.[0-9a-f-]+\.tmp$/;
const SEGMENT = /^[0-9A-Fa-f]{24}$/;

/** Where files are spooled for a `restore_command` that wants `file`; undefined when the file is not for a pg_wal. */
export function spoolFor(file: string): string | undefined {
  const directory = dirname(resolve(file));
  return basename(directory) === "pg_wal" ? join(directory, SPOOL_NAME) : undefined;
}

const hasCode = (error: unknown, ...codes: string[]) =>
  error instanceof Error && "code" in error && codes.includes(String(error.code));

/** Moves a spooled file to where it is wanted: atomic on one file system. False when it is not there. */
export async function takeSpooled(spool: string, name: string, file: string): Promise<boolean> {
  if (!SEGMENT.test(name)) return false;
  try {
    await rename(join(spool, name), file);
    return true;
  } catch (error) {
    // On another file system the file is fetched again; the spool forgets its copy when the position moves past it.
    if (hasCode(error, "ENOENT", "ENOTDIR", "EXDEV")) return false;
    throw error;
  }
}

/** A path for a file in the making; left-overs of processes that are gone are removed by `tidyTemporaries`. */
export function temporaryIn(directory: string, name: string): string {
  return join(directory, `.${name}.${process.pid}.${randomUUID().slice(0, 8)}.tmp`);
}

/** Makes the directory if need be; only its owner may look in. */
export async function makeSpool(spool: string): Promise<void> {
  await mkdir(spool, { recursive: true, mode: 0o700 });
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return !hasCode(error, "ESRCH");
  }
}

/** Removes what processes that are gone left unfinished in a directory, and nothing else. */
export async function tidyTemporaries(directory: string): Promise<void> {
  for (const name of await readdir(directory)) {
    const owner = TEMPORARY.exec(name)?.[1];
    if (owner !== undefined && !isAlive(Number(owner))) await rm(join(directory, name), { force: true });
  }
}

/** Removes all segments from the spool, and what was left unfinished. */
async function emptySpool(spool: string): Promise<void> {
  for (const name of await readdir(spool)) if (SEGMENT.test(name)) await rm(join(spool, name), { force: true });
  await tidyTemporaries(spool);
}

/** Makes the directory if need be, for a prefetcher that begins afresh: what an earlier one left is removed. */
export async function openSpool(spool: string): Promise<void> {
  await makeSpool(spool);
  await emptySpool(spool);
}

/** Removes all of it, and the directory when nobody else put something there. */
export async function removeSpool(spool: string): Promise<void> {
  try {
    await emptySpool(spool);
    for (const name of [TIER_FILE, SOCKET_NAME]) await rm(join(spool, name), { force: true });
    await rmdir(spool);
  } catch (error) {
    if (!hasCode(error, "ENOENT", "ENOTEMPTY")) throw error; // gone already, or in use by another process
  }
}

export async function isSpooled(spool: string, name: string): Promise<boolean> {
  try {
    await stat(join(spool, name));
    return true;
  } catch (error) {
    if (hasCode(error, "ENOENT", "ENOTDIR")) return false;
    throw error;
  }
}

/** The tier that gave the last file, as the spool remembers it. */
export async function rememberedTier(spool: string): Promise<Tier | undefined> {
  try {
    const text = (await readFile(join(spool, TIER_FILE), "utf8")).trim();
    return text === "tier1" || text === "tier2" ? text : undefined;
  } catch (error) {
    if (hasCode(error, "ENOENT", "ENOTDIR")) return undefined;
    throw error;
  }
}

/** A hint, not a fact: nothing is lost when it cannot be kept. */
export async function rememberTier(spool: string, tier: Tier): Promise<void> {
  try {
    await writeFile(join(spool, TIER_FILE), `${tier}\n`, { mode: 0o600 });
  } catch (error) {
    if (!(error instanceof Error && "code" in error)) throw error;
  }
}
