// The directories that a restore fills. While one is incomplete it holds a marker directory: so a later run may clear away
// what a killed one left behind, and nothing else is ever removed. Content is fetched into the marker and moved out of it when
// it is whole.
import { mkdirSync, readdirSync, readFileSync, realpathSync, statSync, writeFileSync } from "node:fs";
import { mkdir, readdir, rename, rm, statfs } from "node:fs/promises";
import { dirname, join, resolve, sep } from "node:path";
import { type Failure, failureOf, type Outcome, ok } from "../../domain/outcome.ts";
import { KlioError } from "../../errors.ts";
import { processStartTime } from "../process/run-child.actor.ts";
import { fileError } from "../wal-fetch/classify.ts";

export const MARKER = ".klio-restore";
const OWNER_FILE = "owner";
/** What a fresh file system holds by itself. */
const NOT_OURS = ["lost+found"];

function refused(reason: string): Failure {
  return { kind: "fatal", code: "KLIO-RESTORE-TARGET", reason };
}

function entriesOf(directory: string): string[] | undefined {
  if (statSync(directory, { throwIfNoEntry: false }) === undefined) return undefined;
  return readdirSync(directory).filter((name) => !NOT_OURS.includes(name));
}

/** The restore that marked this directory, if its process still runs. */
function runningOwner(directory: string): number | undefined {
  const file = join(directory, MARKER, OWNER_FILE);
  if (statSync(file, { throwIfNoEntry: false }) === undefined) return undefined;
  const [pidText = "", startTime = ""] = readFileSync(file, "utf8").trim().split(" ");
  const pid = Number(pidText);
  const isAlive = pid !== process.pid && startTime !== "" && processStartTime(pid) === startTime;
  return isAlive ? pid : undefined;
}

/** Why a directory cannot be filled; undefined when it is absent, empty, or was left incomplete by a restore that is gone. */
function whyOccupied(directory: string): string | undefined {
  const stat = statSync(directory, { throwIfNoEntry: false });
  if (stat === undefined) return undefined;
  if (!stat.isDirectory()) return `${directory} is not a directory`;
  const entries = entriesOf(directory) ?? [];
  if (entries.length === 0) return undefined;
  if (entries.includes(MARKER)) {
    const owner = runningOwner(directory);
    return owner === undefined ? undefined : `process ${owner} is restoring into ${directory}`;
  }
  if (entries.includes("postmaster.pid")) return `${directory} is the data directory of a server`;
  return `${directory} is not empty (it holds ${entries.slice(0, 3).join(", ")}${entries.length > 3 ? ", …" : ""})`;
}

/** Refuses directories that are occupied, or that lie in one another. Nothing is changed. */
export function checkDestinations(directories: readonly string[]): Outcome<null> {
  try {
    for (const directory of directories) {
      if (directory !== resolve(directory)) return refused(`${directory} is not an absolute path`);
      const why = whyOccupied(directory);
      if (why !== undefined) return refused(why);
      const outer = directories.find((other) => other !== directory && isInside(directory, other));
      if (outer !== undefined) return refused(`${directory} lies in ${outer}, which is restored, too`);
    }
    const twice = directories.find((one, i) => directories.indexOf(one) !== i);
    return twice === undefined ? ok(null) : refused(`${twice} is named twice`);
  } catch (error) {
    return failureOf(fileError(error, directories.join(", ")));
  }
}

function isInside(directory: string, other: string): boolean {
  const real = (path: string): string => {
    if (statSync(path, { throwIfNoEntry: false }) !== undefined) return realpathSync(path);
    return dirname(path) === path ? path : join(real(dirname(path)), path.slice(dirname(path).length));
  };
  return real(directory).startsWith(real(other) + sep);
}

/** Makes the directories and marks them. Left-overs of an earlier restore in them are removed first. */
export async function claimDestinations(directories: readonly string[]): Promise<Outcome<null>> {
  const cleared = await clearDestinations(directories);
  if (cleared.kind !== "ok") return cleared;
  for (const directory of directories) {
    try {
      mkdirSync(join(directory, MARKER), { recursive: true, mode: 0o700 });
      const owner = `${process.pid} ${processStartTime(process.pid) ?? ""}\n`;
      writeFileSync(join(directory, MARKER, OWNER_FILE), owner, { mode: 0o600 });
    } catch (error) {
      return failureOf(fileError(error, directory));
    }
  }
  return ok(null);
}

/** Empties the directories that carry the marker; the marker goes last. Safe to repeat. */
export async function clearDestinations(directories: readonly string[]): Promise<Outcome<null>> {
  for (const directory of directories) {
    try {
      const entries = entriesOf(directory) ?? [];
      if (!entries.includes(MARKER)) continue;
      for (const name of entries)
        if (name !== MARKER) await rm(join(directory, name), { recursive: true, force: true });
      await rm(join(directory, MARKER), { recursive: true, force: true });
    } catch (error) {
      return failureOf(fileError(error, directory));
    }
  }
  return ok(null);
}

/** Where the content of a claimed directory is fetched to: it does not exist yet. */
export function contentIn(directory: string): string {
  return join(directory, MARKER, "content");
}

/** Moves fetched content to where it belongs; one file system, so that nothing is copied. */
export async function unpackContent(directory: string): Promise<Outcome<null>> {
  try {
    const content = contentIn(directory);
    await mkdir(content, { recursive: true }); // an empty tablespace may come back as nothing at all
    for (const name of await readdir(content)) await rename(join(content, name), join(directory, name));
    return ok(null);
  } catch (error) {
    return failureOf(fileError(error, directory));
  }
}

/** Free bytes of the file system that holds, or would hold, the directory. */
export async function freeBytes(directory: string): Promise<number> {
  let at = directory;
  while (statSync(at, { throwIfNoEntry: false }) === undefined && dirname(at) !== at) at = dirname(at);
  const { bavail, bsize } = await statfs(at);
  return bavail * bsize;
}

/** `name:path` pairs, separated by commas. Throws KLIO-USAGE. */
export function parseTablespaces(text: string): Map<string, string> {
  const map = new Map<string, string>();
  for (const pair of text.split(",")) {
    const [name, path, ...more] = pair.trim().split(":");
    if (!name || !path || more.length > 0 || !path.startsWith("/"))
      throw new KlioError("KLIO-USAGE", `not a tablespace: ${JSON.stringify(pair)}`, {
        hint: "write name:/absolute/path, several separated by commas",
      });
    if (map.has(name)) throw new KlioError("KLIO-USAGE", `tablespace ${name} is named twice`);
    map.set(name, resolve(path));
  }
  return map;
}
