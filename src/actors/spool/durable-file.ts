// Files and directory entries that survive a power loss: data and entry are both synced before a call resolves.
import { randomBytes } from "node:crypto";
import { mkdir, open, rename, rm } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { isThere, storeError } from "./classify.ts";

/** Owner: all; group: look. WAL is as secret as the database. */
export const DIRECTORY_MODE = 0o750;
export const FILE_MODE = 0o600;

const TEMPORARY = /^\..+\.[0-9a-f]{12}\.tmp$/;

/** A name beside `path` that nobody uses, and that clean-up knows as left over after a crash. */
export function temporaryFor(path: string): string {
  return join(dirname(path), `.${basename(path)}.${randomBytes(6).toString("hex")}.tmp`);
}

export function isTemporary(name: string): boolean {
  return TEMPORARY.test(name);
}

/** Makes the entries of a directory durable. */
export async function syncDirectory(path: string): Promise<void> {
  const handle = await open(path, "r");
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/** Directories whose entry this process made durable; who finds another one there cannot know whether its maker did. */
const durable = new Set<string>();

/** Makes a directory (its parent must be there) and its entry durable, also of one that is there already. */
export async function makeDirectory(path: string): Promise<void> {
  try {
    await mkdir(path, { mode: DIRECTORY_MODE });
  } catch (error) {
    if (!isThere(error)) throw error;
    if (durable.has(path)) return;
  }
  await syncDirectory(dirname(path));
  durable.add(path);
}

/** Gives `from` its final name, in the same directory, for good. */
export async function renameDurably(from: string, to: string): Promise<void> {
  await rename(from, to);
  await syncDirectory(dirname(to));
}

/**
 * Replaces `path` by `bytes` (mode 0600), all or nothing: readers see the old file or the new one. Rejects with
 * KLIO-DISK-FULL or KLIO-STORE-IO.
 */
export async function replaceFile(path: string, bytes: Uint8Array): Promise<void> {
  const temporary = temporaryFor(path);
  try {
    const handle = await open(temporary, "wx", FILE_MODE);
    try {
      await handle.writeFile(bytes);
      await handle.sync();
    } finally {
      await handle.close();
    }
    await renameDurably(temporary, path);
  } catch (error) {
    await rm(temporary, { force: true });
    throw storeError(error, `cannot write ${path}`);
  }
}
