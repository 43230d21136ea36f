// One server per directory: a lock file that names the process that holds it. A lock whose process is gone (kill -9) is
// taken over.
import { createHash, randomBytes } from "node:crypto";
import { link, readFile, rename, rm, writeFile } from "node:fs/promises";
import { hostname } from "node:os";
import { dirname, join } from "node:path";
import { KlioError } from "../../errors.ts";
import { processStartTime } from "../process/run-child.actor.ts";
import { isMissing, isThere, storeError } from "./classify.ts";
import { FILE_MODE, syncDirectory } from "./durable-file.ts";

/** No cluster can have this name. */
const LOCK_NAME = ".lock";

type Holder = { host: string; pid: number; started: string };

/** `isTakenOver`: whoever held it before did not release it. */
export type DirectoryLock = { isTakenOver: boolean; release(): Promise<void> };

function parseHolder(text: string): Holder | undefined {
  const [host = "", pid = "", started = ""] = text.trim().split(" ");
  return /^\d+$/.test(pid) ? { host, pid: Number(pid), started } : undefined;
}

/** A process of another host cannot be seen: such a lock is that of a container that is gone, and counts as stale. */
function isAlive({ host, pid, started }: Holder): boolean {
  if (host !== hostname()) return false;
  const now = processStartTime(pid);
  if (now !== undefined && started !== "") return now === started;
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return error instanceof Error && "code" in error && error.code === "EPERM";
  }
}

async function readHolder(path: string): Promise<{ text: string; holder: Holder | undefined } | undefined> {
  try {
    const text = await readFile(path, "utf8");
    return { text, holder: parseHolder(text) };
  } catch (error) {
    if (isMissing(error)) return undefined;
    throw error;
  }
}

/** A link is made or refused in one step, with its content. */
async function claim(own: string, path: string): Promise<boolean> {
  try {
    await link(own, path);
    return true;
  } catch (error) {
    if (isThere(error)) return false;
    throw error;
  }
}

/**
 * Replaces the stale lock `stale` by our own. Only one of several starters gets the right to do so: the claim is named
 * after the lock that it replaces. False: the lock is another one meanwhile.
 */
async function takeOver(own: string, path: string, stale: string): Promise<boolean> {
  const right = `${path}.${createHash("sha256").update(stale).digest("hex").slice(0, 12)}`;
  if (!(await claim(own, right))) {
    const other = (await readHolder(right))?.holder;
    if (other !== undefined && isAlive(other)) throw locked(path, `is being locked by process ${other.pid}`);
    await rm(right, { force: true }); // killed while it took over
    return false;
  }
  try {
    if ((await readHolder(path))?.text !== stale) return false;
    await rename(own, path);
    return true;
  } finally {
    await rm(right, { force: true });
  }
}

function locked(path: string, how: string): KlioError {
  return new KlioError("KLIO-DATA-LOCKED", `${dirname(path)} ${how}`);
}

/** Rejects with KLIO-DATA-LOCKED when another server, or this process, holds it. */
export async function lockDirectory(directory: string): Promise<DirectoryLock> {
  const path = join(directory, LOCK_NAME);
  const own = `${path}.${randomBytes(6).toString("hex")}`;
  const text = `${hostname()} ${process.pid} ${processStartTime(process.pid) ?? ""}\n`;
  const held = async (isTakenOver: boolean) => {
    await syncDirectory(directory); // else a power loss would pass for a release
    return { isTakenOver, release: () => rm(path, { force: true }) };
  };
  try {
    await writeFile(own, text, { mode: FILE_MODE, flag: "wx" });
    for (let attempt = 0; attempt < 10; attempt++) {
      if (await claim(own, path)) return await held(false);
      const found = await readHolder(path);
      if (found === undefined) continue; // released meanwhile
      if (found.holder !== undefined && isAlive(found.holder))
        throw locked(path, `is used by process ${found.holder.pid}`);
      if (await takeOver(own, path, found.text)) return await held(true);
    }
    throw locked(path, "is being locked by other servers");
  } catch (error) {
    throw storeError(error, `cannot lock ${directory}`);
  } finally {
    await rm(own, { force: true });
  }
}
