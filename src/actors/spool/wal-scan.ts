// Looking through a stored file that may be written on: what of it is whole, and the state a writer goes on from.
import { createHash, type Hash } from "node:crypto";
import type { FileHandle } from "node:fs/promises";
import { KlioError } from "../../errors.ts";
import { type Footer, WalFileDecoder } from "../../wire/wal-file.ts";
import { unpack } from "../../wire/wal-file-frame.ts";
import type { FileKey, MasterKey, WalFileHeader } from "../../wire/wal-file-header.ts";

const READ_BYTES = 1 << 20;

/** The file's bytes from the start; each chunk is the reader's to keep. */
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

async function walk(
  handle: FileHandle,
  master: MasterKey,
  expected: { cluster: string; name: string },
  visit: FrameVisitor | undefined,
): Promise<Scan> {
  const decoder = new WalFileDecoder(master, expected);
  let damage: KlioError | undefined;
  let frames = 0;
  const { size: fileBytes } = await handle.stat();
  try {
    for await (const chunk of readChunks(handle, 0, fileBytes)) {
      decoder.push(chunk);
      for (let frame = decoder.next(); frame !== undefined; frame = decoder.next()) {
        frames++;
        visit?.(await unpack(frame.head, frame.payload), frame.rawOffset);
      }
    }
  } catch (error) {
    if (!(error instanceof KlioError) || error.code !== "KLIO-WAL-DAMAGED") throw error;
    damage = error;
  }
  const { header, fileKey, footer, rawBytes, wholeBytes } = decoder;
  return { header, fileKey, footer, rawBytes, wholeBytes, fileBytes, frames, damage };
}

/** Checks every frame without decompressing it. Rejects with KLIO-KEY-MISMATCH and system errors; damage is in the answer. */
export function scanFrames(
  handle: FileHandle,
  master: MasterKey,
  expected: { cluster: string; name: string },
): Promise<Scan> {
  return walk(handle, master, expected, undefined);
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
  const scan = await walk(handle, master, expected, (raw, rawOffset) => {
    hash.update(raw);
    if (rawOffset + raw.length > fromOffset) tail.update(raw.subarray(Math.max(0, fromOffset - rawOffset)));
    visit(raw, rawOffset);
  });
  const digest = tail.digest();
  if (scan.footer === undefined || hash.copy().digest().equals(scan.footer.sha256)) return { ...scan, hash, digest };
  // Every frame is genuine and the sum is not: nothing of this file can be trusted.
  const reason = `${expected.name} of ${expected.cluster} is damaged: its SHA-256 is another one`;
  const damage = new KlioError("KLIO-WAL-DAMAGED", reason);
  return { ...scan, header: undefined, footer: undefined, rawBytes: 0, wholeBytes: 0, damage, hash, digest };
}
