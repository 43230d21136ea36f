// The directories of a WAL volume: `<cluster>/<first 16 characters>/<segment>[.partial]`, history and label files in the
// cluster's directory. Only looks; what it finds is named by WAL names, everything else is passed over.
import { readdir, stat } from "node:fs/promises";
import { join } from "node:path";
import { requireClusterName } from "../../domain/cluster-name.ts";
import type { StoredWal } from "../../domain/wal-reader.ts";
import { parseWalName, requireWalName, walPath } from "../../domain/wal-segment.ts";
import { KlioError } from "../../errors.ts";
import { ENVELOPE_NAME } from "../keys/repository-key.ts";
import { isMissing } from "./classify.ts";

/** Stats at a time: a listing must not keep the thread pool from the writers. */
const STATS_AT_ONCE = 16;

export function clusterDirectory(root: string, cluster: string): string {
  if (cluster === ENVELOPE_NAME) throw new KlioError("KLIO-NAME-INVALID", `${cluster} cannot be the name of a cluster`);
  return join(root, requireClusterName(cluster));
}

/** `name` as stored, with its `.partial`. */
export function walFile(root: string, cluster: string, name: string): string {
  return join(clusterDirectory(root, cluster), walPath(requireWalName(name).name));
}

type Entries = { files: string[]; directories: string[] };

/** Empty when the directory is not there. */
async function entriesOf(directory: string): Promise<Entries> {
  try {
    const entries = await readdir(directory, { withFileTypes: true });
    return {
      files: entries.filter((entry) => entry.isFile()).map((entry) => entry.name),
      directories: entries.filter((entry) => entry.isDirectory()).map((entry) => entry.name),
    };
  } catch (error) {
    if (isMissing(error)) return { files: [], directories: [] };
    throw error;
  }
}

/** Timelines and logs: directories whose name has 16 hexadecimal digits. */
function isLog(name: string): boolean {
  return /^[0-9A-Fa-f]{16}$/.test(name);
}

export async function listClusters(root: string): Promise<string[]> {
  const { directories } = await entriesOf(root);
  return directories.filter((name) => /^[A-Za-z0-9_-]/.test(name) && name !== "lost+found").toSorted();
}

/** Names as stored, sorted. */
export async function listNames(root: string, cluster: string): Promise<string[]> {
  const directory = clusterDirectory(root, cluster);
  const { files, directories } = await entriesOf(directory);
  const names = files.filter((name) => isWalAt(name, name));
  for (const log of directories.filter(isLog)) {
    const { files: segments } = await entriesOf(join(directory, log));
    names.push(...segments.filter((name) => isWalAt(name, `${log}/${name}`)));
  }
  return names.toSorted();
}

function isWalAt(name: string, path: string): boolean {
  return parseWalName(name) !== undefined && walPath(name) === path;
}

export async function listFiles(root: string, cluster: string): Promise<StoredWal[]> {
  const names = await listNames(root, cluster);
  const found: StoredWal[] = [];
  for (let at = 0; at < names.length; at += STATS_AT_ONCE) {
    const group = await Promise.all(names.slice(at, at + STATS_AT_ONCE).map((name) => statWal(root, cluster, name)));
    found.push(...group.filter((file) => file !== undefined));
  }
  return found;
}

async function statWal(root: string, cluster: string, name: string): Promise<StoredWal | undefined> {
  try {
    const { size, mtimeMs } = await stat(walFile(root, cluster, name));
    return { name, storedBytes: size, mtimeMs };
  } catch (error) {
    if (isMissing(error)) return undefined; // renamed or removed meanwhile
    throw error;
  }
}

/** Segments as stored, greatest first, read directory by directory as far as the caller goes. */
export async function* segmentsFromLast(root: string, cluster: string): AsyncGenerator<string> {
  const directory = clusterDirectory(root, cluster);
  const { directories } = await entriesOf(directory);
  for (const log of directories.filter(isLog).toSorted().toReversed()) {
    const { files } = await entriesOf(join(directory, log));
    const segments = files.filter((name) => isWalAt(name, `${log}/${name}`) && /^.{24}(\.partial)?$/.test(name));
    yield* segments.toSorted().toReversed();
  }
}

/** Every directory that may hold files of ours, with its files: the root, clusters, and their logs. */
export async function* walkDirectories(root: string): AsyncGenerator<{ directory: string; files: string[] }> {
  yield { directory: root, files: (await entriesOf(root)).files };
  for (const cluster of await listClusters(root)) {
    const { files, directories } = await entriesOf(join(root, cluster));
    yield { directory: join(root, cluster), files };
    for (const log of directories.filter(isLog))
      yield { directory: join(root, cluster, log), files: (await entriesOf(join(root, cluster, log))).files };
  }
}
