// Makes a directory of WAL segments that every check takes for a cluster's own: true page headers, invented content.
import { randomFillSync } from "node:crypto";
import { mkdir, readdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { nextSegment } from "../../domain/wal-segment.ts";
import { errorText, KlioError } from "../../errors.ts";
import { stampPages } from "../../wire/wal-pages.ts";

/** "compressible": of each 128 bytes a quarter is random, as in rows that repeat themselves. */
export type Fill = "random" | "compressible";
export type GenerateOptions = {
  directory: string;
  /** Name of the first segment. */
  first: string;
  count: number;
  segmentBytes: number;
  fill: Fill;
  /** Decimal. */
  systemId: string;
  /** One of `pageMagic`. */
  magic: number;
  signal: AbortSignal;
  onFile?: (name: string) => void;
};

const ROW_BYTES = 128;
const RANDOM_BYTES = ROW_BYTES / 4;

/** Names of the files, ascending. Rejects with KLIO-USAGE (the directory holds something), KLIO-STORE-IO or KLIO-CANCELLED. */
export async function generateWal(options: GenerateOptions): Promise<string[]> {
  const { directory, first, count, segmentBytes, signal } = options;
  await requireEmpty(directory);
  const bytes = Buffer.alloc(segmentBytes);
  const names: string[] = [];
  for (let name = first; names.length < count; name = nextSegment(name, segmentBytes)) {
    if (signal.aborted) throw new KlioError("KLIO-CANCELLED", `stopped after ${names.length} of ${count} segments`);
    fill(bytes, options.fill);
    stampPages(bytes, name, options);
    try {
      await writeFile(join(directory, name), bytes, { mode: 0o600 });
    } catch (cause) {
      throw unusable(`cannot write ${join(directory, name)}`, cause);
    }
    names.push(name);
    options.onFile?.(name);
  }
  return names;
}

async function requireEmpty(directory: string): Promise<void> {
  let entries: string[];
  try {
    await mkdir(directory, { recursive: true });
    entries = await readdir(directory);
  } catch (cause) {
    throw unusable(`cannot use the directory ${directory}`, cause);
  }
  if (entries.length > 0)
    throw new KlioError("KLIO-USAGE", `${directory} is not empty (it holds ${entries[0]})`, {
      hint: "name an empty directory, or one that does not exist yet",
    });
}

function unusable(what: string, cause: unknown): KlioError {
  return new KlioError("KLIO-STORE-IO", `${what}: ${errorText(cause)}`, {
    cause,
    hint: "check path, permissions and free space of the directory",
  });
}

function fill(bytes: Buffer, kind: Fill): void {
  if (kind === "random") {
    randomFillSync(bytes);
    return;
  }
  const noise = randomFillSync(Buffer.alloc((bytes.length / ROW_BYTES) * RANDOM_BYTES));
  bytes.fill(" row of a table, as it repeats ");
  for (let row = 0; row * ROW_BYTES < bytes.length; row++)
    noise.copy(bytes, row * ROW_BYTES, row * RANDOM_BYTES, (row + 1) * RANDOM_BYTES);
}
