// A stored file on its way to another tier: the header wrapped for that tier's key, the frames as they are. Every frame
// is checked first, so that damage is never copied. Files of many tiny frames are packed anew.
import { createHash, randomBytes } from "node:crypto";
import { type FileHandle, open } from "node:fs/promises";
import { Readable } from "node:stream";
import { crc32 } from "node:zlib";
import { KlioError } from "../../errors.ts";
import { rewrapHeader } from "../../wire/wal-file.ts";
import { encodeWalFile } from "../../wire/wal-file-encode.ts";
import type { MasterKey } from "../../wire/wal-file-header.ts";
import { isMissing } from "./classify.ts";
import { type ChunkBuffers, fileBody } from "./file-body.ts";
import { type Scan, type StoredVisitor, scanFrames, scanRaw } from "./wal-scan.ts";

/**
 * `bytes` and `crc32` are of the whole body, which `body()` gives from its start each time. It is never held in memory unless
 * it was packed anew: whoever keeps a chunk of it copies it. One body at a time. Close it when whoever had the last one is
 * done with it, not only at its end; a second call is safe.
 */
export type ExportedWal = {
  bytes: number;
  rawBytes: number;
  complete: boolean;
  crc32: number;
  body(): Readable;
  /** Reads the body through. */
  digest(algorithm: "sha256" | "md5"): Promise<Buffer>;
  close(): Promise<void>;
};

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
  buffers: ChunkBuffers,
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
    const sum = new BodySum(target);
    const scan = await scanFrames(handle, master, source, sum.take);
    if (scan.damage !== undefined) throw scan.damage;
    if (scan.header === undefined) return undefined;
    if (source.complete && scan.footer === undefined)
      throw new KlioError("KLIO-WAL-DAMAGED", `${source.name} of ${source.cluster} is damaged: it has no footer`);
    if (isWorthPacking(scan)) return await packAnew(handle, source, master, target);
    const exported = copyFrames(handle, scan, sum, buffers);
    isHandedOver = true;
    return exported;
  } finally {
    if (!isHandedOver) await handle.close();
  }
}

function isWorthPacking({ frames, rawBytes }: Scan): boolean {
  return frames >= MIN_FRAMES && rawBytes <= MAX_REPACK_RAW_BYTES && rawBytes / frames < TINY_FRAME_BYTES;
}

/** The new header, and the checksum of it and the frames behind it, taken while the frames are checked. */
class BodySum {
  head: Buffer | undefined;
  crc32 = 0;
  readonly #target: MasterKey;
  constructor(target: MasterKey) {
    this.#target = target;
  }
  readonly take: StoredVisitor = (bytes, { header, fileKey }) => {
    if (this.head === undefined) {
      this.head = rewrapHeader(header, fileKey, this.#target, randomBytes(12));
      this.crc32 = crc32(this.head);
    }
    this.crc32 = crc32(bytes, this.crc32);
  };
}

/** What is read between the check and the body may be written on, never changed. */
function copyFrames(handle: FileHandle, scan: Scan, { head, crc32: sum }: BodySum, spare: ChunkBuffers): ExportedWal {
  const { header, wholeBytes, rawBytes, footer } = scan;
  if (header === undefined || head === undefined) throw new KlioError("KLIO-BUG", "a file without frames");
  let buffers: Buffer[] = [];
  /** Read to its end by whoever had it: then, and only then, the buffers are nobody's. */
  let isDone = false;
  const body = () => {
    isDone = false;
    if (buffers.length === 0) buffers = spare.take();
    const stream = fileBody(handle, head, header.bytes, wholeBytes, buffers);
    return stream.once("end", () => {
      isDone = true;
    });
  };
  let closing: Promise<void> | undefined;
  return {
    bytes: head.length + wholeBytes - header.bytes,
    rawBytes,
    complete: footer !== undefined,
    crc32: sum,
    body,
    async digest(algorithm) {
      const hash = createHash(algorithm);
      for await (const piece of body()) hash.update(piece);
      return hash.digest();
    },
    close() {
      if (closing === undefined && isDone) spare.give(buffers);
      closing ??= handle.close();
      return closing;
    },
  };
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
  return {
    bytes: pieces.reduce((sum, { length }) => sum + length, 0),
    rawBytes,
    complete: footer !== undefined,
    crc32: pieces.reduce((sum, piece) => crc32(piece, sum), 0),
    body: () => Readable.from(pieces, { objectMode: false }),
    async digest(algorithm) {
      const hash = createHash(algorithm);
      for (const piece of pieces) hash.update(piece);
      return hash.digest();
    },
    close: async () => undefined,
  };
}
