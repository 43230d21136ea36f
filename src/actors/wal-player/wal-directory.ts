// What of a directory can be played: WAL segments and timeline histories, as `wal-player generate` makes them or a copy of
// pg_wal has them. The rest is passed over, and named with the reason.
import { type FileHandle, open, readdir } from "node:fs/promises";
import { join } from "node:path";
import { systemIdIn, WalPageCheck } from "../../domain/wal-page.ts";
import { isSegmentSize, parseWalName } from "../../domain/wal-segment.ts";
import { errorText, KlioError } from "../../errors.ts";

export type PlayFile = { name: string; path: string; bytes: number };
export type PlayDirectory = { files: PlayFile[]; skipped: { name: string; reason: string }[] };

/** Enough for the header of a segment's first page. */
const HEADER_BYTES = 40;
const READ_BYTES = 1 << 20;

/** Files by name. Rejects with KLIO-USAGE when the directory cannot be read or holds no WAL. */
export async function readPlayDirectory(directory: string): Promise<PlayDirectory> {
  const found: PlayDirectory = { files: [], skipped: [] };
  try {
    const entries = await readdir(directory, { withFileTypes: true });
    for (const entry of entries.toSorted((a, b) => (a.name < b.name ? -1 : 1))) {
      if (!entry.isFile()) continue;
      const path = join(directory, entry.name);
      const judged = await judge(entry.name, path);
      if (typeof judged === "number") found.files.push({ name: entry.name, path, bytes: judged });
      else found.skipped.push({ name: entry.name, reason: judged });
    }
  } catch (cause) {
    throw new KlioError("KLIO-USAGE", `cannot read the directory ${directory}: ${errorText(cause)}`, {
      cause,
      hint: "name a directory made by 'klio wal-player generate', or a copy of pg_wal",
    });
  }
  if (found.files.length === 0)
    throw new KlioError("KLIO-USAGE", `${directory} holds no WAL segment${whySkipped(found)}`, {
      hint: "name a directory made by 'klio wal-player generate', or a copy of pg_wal",
    });
  return found;
}

function whySkipped({ skipped }: PlayDirectory): string {
  const [first] = skipped;
  return first === undefined ? "" : ` (${first.name}: ${first.reason}; ${skipped.length} passed over)`;
}

/** Its length, or why it is not sent. */
async function judge(name: string, path: string): Promise<number | string> {
  const kind = parseWalName(name)?.kind;
  if (kind !== "segment" && kind !== "history") return "is neither a WAL segment nor a timeline history";
  await using file = await open(path);
  const { size } = await file.stat();
  if (kind === "history") return size > 0 ? size : "is empty";
  if (!isSegmentSize(size)) return `has ${size} bytes, no size of a WAL segment`;
  return (await whyUnused(file, name, size)) ?? size;
}

/**
 * PostgreSQL keeps segments for later, filled with zeros or with the content of an older one under a new name, and the one
 * it writes now may be such a file behind the end of WAL. Read to the end, which also leaves the file in memory: what is
 * measured afterwards is the server, not this disk.
 */
async function whyUnused(file: FileHandle, name: string, segmentBytes: number): Promise<string | undefined> {
  const check = new WalPageCheck({ name, segmentBytes });
  const buffer = Buffer.alloc(READ_BYTES);
  for (let at = 0; at < segmentBytes; at += READ_BYTES) {
    await file.read(buffer, 0, READ_BYTES, at);
    if (at === 0 && buffer.subarray(0, HEADER_BYTES).every((byte) => byte === 0))
      return "is empty, kept by PostgreSQL for later";
    if (at === 0 && systemIdIn(buffer) === undefined) return undefined; // no WAL of ours: the server decides
    try {
      check.check(buffer, at);
    } catch (error) {
      if (!(error instanceof KlioError)) throw error;
      return `holds an older segment's bytes, as files that PostgreSQL uses again do (${error.message})`;
    }
  }
  return undefined;
}
