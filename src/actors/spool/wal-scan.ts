// Looking through a stored file that may be written on: what of it is whole, and the state a writer goes on from.
import { createHash, type Hash } from "node:crypto";
import type { FileHandle } from "node:fs/promises";
import { KlioError } from "../../errors.ts";
import { type Footer, WalFileDecoder } from "../../wire/wal-file.ts";
import { MAX_FRAME_RAW_BYTES, unpack } from "../../wire/wal-file-frame.ts";
import type { FileKey, MasterKey, WalFileHeader } from "../../wire/wal-file-header.ts";

const READ_BYTES = 1 << 20;
/** Read at once while scanning: the longest frame, and some more so that several shorter ones are whole in it. */
const SCAN_BYTES = MAX_FRAME_RAW_BYTES + (256 << 10);

/** The file's bytes from `from` to `to`; each chunk is the reader's to keep. */
export async function* readChunks(handle: FileHandle, from = 0, to = Infinity): AsyncGenerator<Buffer> {
  for (let at = from; at < to; ) {
    const buffer = Buffer.allocUnsafeSlow(Math.min(READ_BYTES, to - at));
    const { bytesRead } = await handle.read(buffer, 0, buffer.length, at);
    if (bytesRead === 0) return;
    at += bytesRead;
    yield buffer.subarray(0, bytesRead);
  }
}

export type Scan = {
  /** Undefined: the file ends before its header does. */
  header: WalFileHeader | undefined;
  fileKey: FileKey | undefined;
  footer: Footer | undefined;
  rawBytes: number;
  /** Length of what is whole; what lies behind was never confirmed, unless `damage` says otherwise. */
  wholeBytes: number;
  fileBytes: number;
  /** Number of data frames. */
  frames: number;
  damage: KlioError | undefined;
};

export type FullScan = Scan & {
  /** SHA-256 of all raw bytes so far, to go on with. */
  hash: Hash;
  /** SHA-256 of the raw bytes from `fromOffset` on. */
  digest: Buffer;
};

type FrameVisitor = (raw: Buffer, rawOffset: number) => void;
/** Sees the file's whole frames as they are stored, one after the other; `bytes` are its to read, not to keep. */
export type StoredVisitor = (bytes: Buffer, file: { header: WalFileHeader; fileKey: FileKey }) => void;
type Visitors = { raw?: FrameVisitor; stored?: StoredVisitor };

/**
 * Gives memory back at once that nobody needs any more. Left to the garbage collector, a gigabyte of small buffers costs more
 * time than their decryption: each few dozen megabytes of them make it walk the whole heap.
 */
function release({ buffer }: Buffer): void {
  if (buffer instanceof ArrayBuffer) buffer.transfer(0);
}

async function walk(
  handle: FileHandle,
  master: MasterKey,
  expected: { cluster: string; name: string },
  visit: Visitors,
): Promise<Scan> {
  const decoder = new WalFileDecoder(master, expected);
  let damage: KlioError | undefined;
  let frames = 0;
  const { size: fileBytes } = await handle.stat();
  // One buffer for the whole file: each read begins behind the last whole frame, so nothing is kept and nothing joined.
  const buffer = Buffer.allocUnsafeSlow(Math.min(SCAN_BYTES, fileBytes));
  try {
    for (let end = 0; end < fileBytes; ) {
      const from = decoder.wholeBytes;
      const { bytesRead } = await handle.read(buffer, 0, Math.min(buffer.length, fileBytes - from), from);
      if (bytesRead === 0) break;
      if (from + bytesRead > end) decoder.restart(buffer.subarray(0, bytesRead));
      // No frame is that long: a tail of zeros, which the decoder looks through.
      else for await (const chunk of readChunks(handle, end, fileBytes)) decoder.push(chunk);
      end = from + bytesRead > end ? from + bytesRead : fileBytes;
      for (let frame = decoder.next(); frame !== undefined; frame = decoder.next()) {
        frames++;
        if (visit.raw === undefined) release(frame.payload);
        else visit.raw(await unpack(frame.head, frame.payload), frame.rawOffset);
      }
      const { header, fileKey, wholeBytes } = decoder;
      if (header === undefined || fileKey === undefined) continue;
      const begin = Math.max(from, header.bytes);
      visit.stored?.(buffer.subarray(begin - from, wholeBytes - from), { header, fileKey });
    }
  } catch (error) {
    if (!(error instanceof KlioError) || error.code !== "KLIO-WAL-DAMAGED") throw error;
    damage = error;
  } finally {
    release(buffer);
  }
  const { header, fileKey, footer, rawBytes, wholeBytes } = decoder;
  return { header, fileKey, footer, rawBytes, wholeBytes, fileBytes, frames, damage };
}

/** Checks every frame without decompressing it. Rejects with KLIO-KEY-MISMATCH and system errors; damage is in the answer. */
export function scanFrames(
  handle: FileHandle,
  master: MasterKey,
  expected: { cluster: string; name: string },
  stored?: StoredVisitor,
): Promise<Scan> {
  return walk(handle, master, expected, stored === undefined ? {} : { stored });
}

/** Like `scanFrames`, and reads the raw bytes: hashes them, and shows them to `visit` (which may throw). */
export async function scanRaw(
  handle: FileHandle,
  master: MasterKey,
  expected: { cluster: string; name: string },
  fromOffset: number,
  visit: FrameVisitor,
): Promise<FullScan> {
  const hash = createHash("sha256");
  const tail = createHash("sha256");
  const scan = await walk(handle, master, expected, {
    raw(raw, rawOffset) {
      hash.update(raw);
      if (rawOffset + raw.length > fromOffset) tail.update(raw.subarray(Math.max(0, fromOffset - rawOffset)));
      visit(raw, rawOffset);
    },
  });
  const digest = tail.digest();
  if (scan.footer === undefined || hash.copy().digest().equals(scan.footer.sha256)) return { ...scan, hash, digest };
  // Every frame is genuine and the sum is not: nothing of this file can be trusted.
  const reason = `${expected.name} of ${expected.cluster} is damaged: its SHA-256 is another one`;
  const damage = new KlioError("KLIO-WAL-DAMAGED", reason);
  return { ...scan, header: undefined, footer: undefined, rawBytes: 0, wholeBytes: 0, damage, hash, digest };
}
