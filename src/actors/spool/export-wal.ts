// A stored file on its way to another tier: the header wrapped for that tier's key, the frames as they are. Every frame
// is checked first, so that damage is never copied. Files of many tiny frames are packed anew.
import { createHash, randomBytes } from "node:crypto";
import { type FileHandle, open } from "node:fs/promises";
import { Readable } from "node:stream";
import { KlioError } from "../../errors.ts";
import { rewrapHeader } from "../../wire/wal-file.ts";
import { encodeWalFile } from "../../wire/wal-file-encode.ts";
import type { MasterKey } from "../../wire/wal-file-header.ts";
import { isMissing } from "./classify.ts";
import { readChunks, type Scan, scanFrames, scanRaw } from "./wal-scan.ts";

/** `sha256` and `bytes` are of what `body` gives. `body` must be read to its end or destroyed. */
export type ExportedWal = { bytes: number; rawBytes: number; complete: boolean; sha256: Buffer; body: Readable };

/** Packing anew pays when frames are this small on average, and is done in memory up to this size. */
const TINY_FRAME_BYTES = 64 << 10;
const MIN_FRAMES = 16;
const MAX_REPACK_RAW_BYTES = 64 << 20;

type Source = { path: string; cluster: string; name: string; complete: boolean };

/** `name` without `.partial`. Undefined when the file is not there, or holds nothing that was ever confirmed. */
export async function exportWal(
  source: Source,
  master: MasterKey,
  target: MasterKey,
): Promise<ExportedWal | undefined> {
  let handle: FileHandle;
  try {
    handle = await open(source.path, "r");
  } catch (error) {
    if (isMissing(error)) return undefined;
    throw error;
  }
  let isHandedOver = false;
  try {
    const scan = await scanFrames(handle, master, source);
    if (scan.damage !== undefined) throw scan.damage;
    if (scan.header === undefined) return undefined;
    if (source.complete && scan.footer === undefined)
      throw new KlioError("KLIO-WAL-DAMAGED", `${source.name} of ${source.cluster} is damaged: it has no footer`);
    if (isWorthPacking(scan)) return await packAnew(handle, source, master, target);
    const exported = await copyFrames(handle, scan, target);
    isHandedOver = true;
    return exported;
  } finally {
    if (!isHandedOver) await handle.close();
  }
}

function isWorthPacking({ frames, rawBytes }: Scan): boolean {
  return frames >= MIN_FRAMES && rawBytes <= MAX_REPACK_RAW_BYTES && rawBytes / frames < TINY_FRAME_BYTES;
}

/** The first pass counts and hashes, the second one is the body: what is read in between may be written on, never changed. */
async function copyFrames(handle: FileHandle, scan: Scan, target: MasterKey): Promise<ExportedWal> {
  const { header, fileKey, wholeBytes, rawBytes, footer } = scan;
  if (header === undefined || fileKey === undefined) throw new KlioError("KLIO-BUG", "a file without a header");
  const head = rewrapHeader(header, fileKey, target, randomBytes(12));
  const hash = createHash("sha256").update(head);
  for await (const chunk of readChunks(handle, header.bytes, wholeBytes)) hash.update(chunk);
  const pieces = async function* () {
    try {
      yield head;
      yield* readChunks(handle, header.bytes, wholeBytes);
    } finally {
      await handle.close();
    }
  };
  const body = Readable.from(pieces(), { objectMode: false });
  // A generator that was never begun does not run its `finally`.
  body.once("close", () => void handle.close().catch(() => undefined));
  const bytes = head.length + wholeBytes - header.bytes;
  return { bytes, rawBytes, complete: footer !== undefined, sha256: hash.digest(), body };
}

async function packAnew(
  handle: FileHandle,
  source: Source,
  master: MasterKey,
  target: MasterKey,
): Promise<ExportedWal> {
  const raw: Buffer[] = [];
  const scan = await scanRaw(handle, master, source, 0, (piece) => raw.push(piece));
  if (scan.damage !== undefined) throw scan.damage;
  const { header, footer, rawBytes } = scan;
  if (header === undefined) throw new KlioError("KLIO-BUG", "a file lost its header");
  const pieces: Buffer[] = [];
  for await (const piece of encodeWalFile(header, target, randomBytes, raw, footer !== undefined)) pieces.push(piece);
  const file = Buffer.concat(pieces);
  return {
    bytes: file.length,
    rawBytes,
    complete: footer !== undefined,
    sha256: createHash("sha256").update(file).digest(),
    body: Readable.from([file], { objectMode: false }),
  };
}
