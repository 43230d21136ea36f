// Who runs PostgreSQL: the caller, or an unprivileged user when the caller is root (PostgreSQL refuses root).
import {
  chmodSync,
  copyFileSync,
  linkSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readlinkSync,
  statSync,
  symlinkSync,
} from "node:fs";
import { chown, lchown, readdir } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";

export type RunAs = { uid?: number; gid?: number };

/** The ids of "nobody" on Linux and macOS alike suffice: they own nothing else here. */
const NOBODY = 65534;

export function unprivileged(): RunAs {
  return process.getuid?.() === 0 ? { uid: NOBODY, gid: NOBODY } : {};
}

/** Can any user walk down to this path? */
export function isReachableByAll(path: string): boolean {
  for (let at = resolve(path); ; at = dirname(at)) {
    const { mode } = statSync(at);
    if ((mode & 0o001) === 0) return false;
    if (at === dirname(at)) return true;
  }
}

/** Gives a tree to the user that PostgreSQL runs as. Does nothing unless the caller is root. */
export async function giveTo(path: string, { uid, gid }: RunAs): Promise<void> {
  if (uid === undefined || gid === undefined) return;
  const stat = lstatSync(path);
  if (stat.isSymbolicLink()) return lchown(path, uid, gid);
  await chown(path, uid, gid);
  if (!stat.isDirectory()) return;
  for (const name of await readdir(path)) await giveTo(join(path, name), { uid, gid });
}

/** Lets every user walk into a directory made by mkdtemp, but not list it. */
export function openForWalking(directory: string): void {
  chmodSync(directory, 0o711);
}

/**
 * A second name for a tree (hard links where the file system allows, else copies), readable by all as its files are. What is
 * there already stays.
 */
export function linkTree(from: string, to: string): void {
  const stat = lstatSync(from);
  const isThere = lstatSync(to, { throwIfNoEntry: false }) !== undefined;
  if (stat.isSymbolicLink()) {
    if (!isThere) symlinkSync(readlinkSync(from), to);
  } else if (stat.isDirectory()) {
    mkdirSync(to, { recursive: true, mode: 0o755 });
    for (const name of readdirSync(from)) linkTree(join(from, name), join(to, name));
  } else if (!isThere) {
    try {
      linkSync(from, to);
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (code !== "EXDEV" && code !== "EPERM" && code !== "EMLINK") throw error;
      copyFileSync(from, to); // another file system, or one without hard links
    }
  }
}
