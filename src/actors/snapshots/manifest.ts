// The snapshot program's JSON of a snapshot, read into entries of the catalogue.
import { basename } from "node:path";
import type { CatalogueEntry, SnapshotDescription } from "../../domain/snapshot-catalogue.ts";
import { KlioError } from "../../errors.ts";
import { parseDescription } from "./description.ts";

type Summary = {
  size?: number;
  files?: number;
  dirs?: number;
  numFailed?: number;
  numIgnoredErrors?: number;
  errors?: { path?: string; error?: string }[];
};
export type Manifest = {
  id: string;
  source: { host: string; userName: string; path: string };
  description?: string;
  startTime: string;
  endTime: string;
  incomplete?: string;
  rootEntry?: { obj?: string; size?: number; type?: string; summ?: Summary };
  stats?: { totalSize?: number; fileCount?: number; dirCount?: number };
  pins?: string[];
};

/** A JSON array of manifests as `list` prints it, or one manifest per line as `create` does. Throws KLIO-REPOSITORY. */
export function parseManifests(stdout: string): Manifest[] {
  const text = stdout.trim();
  if (text === "") return [];
  try {
    const values: unknown = text.startsWith("[")
      ? JSON.parse(text)
      : text.split("\n").map((line) => JSON.parse(line) as unknown);
    return values as Manifest[];
  } catch (cause) {
    throw new KlioError("KLIO-REPOSITORY", "the repository program printed something other than snapshots", { cause });
  }
}

/** What a snapshot was stored for, as the repository's server compared it with its user. */
export type SnapshotLabels = { user: string; cluster: string; path: string };

/** By snapshot, what `manifest list` prints. Throws KLIO-REPOSITORY. */
export function parseLabels(stdout: string): Map<string, SnapshotLabels> {
  try {
    const values = JSON.parse(stdout) as { id: string; labels: Record<string, string> }[];
    return new Map(
      values.map(({ id, labels: { username = "", hostname = "", path = "" } }) => [
        id,
        { user: username, cluster: hostname, path },
      ]),
    );
  } catch (cause) {
    throw new KlioError("KLIO-REPOSITORY", "the repository program printed something other than labels", { cause });
  }
}

/** The entry of a snapshot of ours; undefined for any other. */
export function catalogueEntry(manifest: Manifest): CatalogueEntry | undefined {
  const description = parseDescription(manifest.description ?? "");
  return description === undefined ? undefined : entryOf(manifest, description);
}

function entryOf(manifest: Manifest, description: SnapshotDescription): CatalogueEntry {
  const { id, source, rootEntry, stats, pins } = manifest;
  const isFile = rootEntry?.type === "f";
  const oid = /^tablespace-(\d+)$/.exec(basename(source.path));
  return {
    id,
    user: source.userName,
    cluster: source.host,
    path: source.path,
    backup: description.backup,
    content: description.content,
    ...(description.content === "tablespace" && oid !== null && { tablespaceOid: Number(oid[1]) }),
    startTimeMs: Date.parse(manifest.startTime),
    endTimeMs: Date.parse(manifest.endTime),
    bytes: rootEntry?.summ?.size ?? rootEntry?.size ?? stats?.totalSize ?? 0,
    files: rootEntry?.summ?.files ?? (isFile ? 1 : (stats?.fileCount ?? 0)),
    directories: rootEntry?.summ?.dirs ?? stats?.dirCount ?? 0,
    pins: pins ?? [],
    // Also one whose files could not all be written, which the program keeps as if it were whole.
    incomplete: manifestFault(manifest) !== undefined,
    contentId: rootEntry?.obj ?? "",
    description,
  };
}

/**
 * Why a snapshot that the program calls a success is none; undefined when it is one. Files that vanished between being
 * listed and being opened are no fault: PostgreSQL dropped them, and the WAL says so.
 */
export function manifestFault(manifest: Manifest): string | undefined {
  if ((manifest.incomplete ?? "") !== "") return `the snapshot is incomplete (${manifest.incomplete})`;
  if (manifest.rootEntry === undefined) return "the snapshot has no content";
  const summary = manifest.rootEntry.summ ?? {};
  const errors = summary.errors ?? [];
  const told = (one: { path?: string; error?: string }) => `${one.path ?? "?"}: ${one.error ?? "?"}`;
  const real = errors.filter((one) => !/no such file or directory$/.test(one.error ?? ""));
  if (real[0] !== undefined) return `${real.length} files could not be read, first ${told(real[0])}`;
  if ((summary.numFailed ?? 0) > 0) return `${summary.numFailed} files could not be read`;
  if ((summary.numIgnoredErrors ?? 0) > errors.length) return `${summary.numIgnoredErrors} files could not be read`;
  return undefined;
}
