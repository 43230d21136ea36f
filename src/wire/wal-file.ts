// Reading a stored WAL file from its bytes, whatever brings them: a file of tier 1, an object of tier 2.
//   D1. No changed, missing, added or exchanged byte of a complete file goes unnoticed, nor of a partial one before its
//       last whole frame: reading it ends with KLIO-WAL-DAMAGED, never with other bytes.
//   D3. A torn tail (the end of a frame was not written) is told apart from a changed frame, so that opening a file
//       again cuts only what was never confirmed.
//   D4. A file is complete when its footer is there and says the length and SHA-256 of the raw bytes before it.
//   D5. A file whose header was wrapped anew reads the same under the new master key.
import { createHash, type Hash } from "node:crypto";
import type { OpenWal } from "../domain/wal-reader.ts";
import { errorText, KlioError } from "../errors.ts";
import {
  FRAME_HEAD_BYTES,
  type FrameHead,
  FrameOpener,
  type FrameSealer,
  parseFrameHead,
  unpack,
} from "./wal-file-frame.ts";
import {
  encodeHeader,
  type FileKey,
  type MasterKey,
  parseHeader,
  unwrapHeader,
  type WalFileHeader,
} from "./wal-file-header.ts";

const FOOTER_RAW_BYTES = 40;
export type Footer = { rawBytes: number; sha256: Buffer };

/** All before it must be durable. */
export function sealFooter(sealer: FrameSealer, { rawBytes, sha256 }: Footer): Buffer[] {
  const raw = Buffer.alloc(FOOTER_RAW_BYTES);
  raw.writeBigUInt64LE(BigInt(rawBytes));
  sha256.copy(raw, 8);
  return sealer.seal("footer", { codec: "none", payload: raw, rawBytes: FOOTER_RAW_BYTES }, rawBytes, true);
}

/** A data frame that was found whole. `payload` is still compressed; `stored` are its bytes as they lie in the file. */
export type StoredFrame = { head: FrameHead; rawOffset: number; payload: Buffer; stored: Buffer };

/**
 * Takes a file's bytes as they come and gives its frames. Without compression work; see `unpack`. Every method that reads
 * throws KLIO-WAL-DAMAGED or KLIO-KEY-MISMATCH.
 */
export class WalFileDecoder {
  header: WalFileHeader | undefined;
  fileKey: FileKey | undefined;
  footer: Footer | undefined;
  /** Raw bytes of the frames so far. */
  rawBytes = 0;
  /** Bytes of the file up to the end of the last whole frame (or header). */
  wholeBytes = 0;
  /** Bytes behind it that were given, and are no whole frame yet. */
  #rest: Buffer = Buffer.alloc(0);
  #opener: FrameOpener | undefined;
  #isZeroTail = false;
  readonly #master: MasterKey;
  readonly #expected: { cluster: string; name: string };

  /** `name` without `.partial`. */
  constructor(master: MasterKey, expected: { cluster: string; name: string }) {
    this.#master = master;
    this.#expected = expected;
  }

  /** `chunk` may be kept until its frames were taken. */
  push(chunk: Uint8Array): void {
    const bytes = Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength);
    this.#rest = this.#rest.length === 0 ? bytes : Buffer.concat([this.#rest, bytes]);
  }

  /** The file's bytes from `wholeBytes` on, in place of what was pushed and is no whole frame yet; kept like a chunk. */
  restart(bytes: Buffer): void {
    this.#rest = bytes;
  }

  /** The next data frame; undefined when more bytes are needed for it, or the footer has come. */
  next(): StoredFrame | undefined {
    if (this.#opener === undefined && !this.#readHeader()) return undefined;
    while (this.#rest.length >= FRAME_HEAD_BYTES) {
      if (this.footer !== undefined) throw this.#damaged("there are bytes behind the footer");
      if (this.#isZeroTail || this.#rest.subarray(0, FRAME_HEAD_BYTES).every((byte) => byte === 0)) {
        this.#readZeroTail();
        return undefined;
      }
      const head = parseFrameHead(this.#rest);
      if (head === undefined) throw this.#damaged(`no frame at file offset ${this.wholeBytes}`);
      if (this.#rest.length < head.bytes) return undefined;
      const stored = this.#rest.subarray(0, head.bytes);
      const rawOffset = this.rawBytes;
      const payload = this.#open(head, stored, rawOffset);
      this.#rest = this.#rest.subarray(head.bytes);
      this.wholeBytes += head.bytes;
      if (head.kind === "data") {
        this.rawBytes += head.rawBytes;
        return { head, rawOffset, payload, stored };
      }
      this.#readFooter(payload);
    }
    if (this.footer !== undefined && this.#rest.length > 0) throw this.#damaged("there are bytes behind the footer");
    return undefined;
  }

  /** After the last byte: how many bytes at the end are no whole frame (or header). */
  get tornBytes(): number {
    return this.#rest.length;
  }

  #readHeader(): boolean {
    const header = parseHeader(this.#rest);
    if (header === undefined) return false;
    const { cluster, name } = this.#expected;
    if (header.cluster !== cluster || header.name !== name)
      throw this.#damaged(`it is ${header.name} of ${header.cluster}`);
    this.fileKey = unwrapHeader(header, this.#rest, this.#master);
    this.header = header;
    this.#opener = new FrameOpener(this.fileKey);
    this.#rest = this.#rest.subarray(header.bytes);
    this.wholeBytes = header.bytes;
    return true;
  }

  /** A power loss may leave a file longer than what was written, filled with zeros: torn, too (D3). */
  #readZeroTail(): void {
    this.#isZeroTail = true;
    if (this.#rest.some((byte) => byte !== 0)) throw this.#damaged(`no frame at file offset ${this.wholeBytes}`);
  }

  #open(head: FrameHead, stored: Buffer, rawOffset: number): Buffer {
    if (this.#opener === undefined) throw new KlioError("KLIO-BUG", "a frame came before the header");
    try {
      return this.#opener.open(head, stored, rawOffset);
    } catch (cause) {
      throw this.#damaged(errorText(cause), cause);
    }
  }

  #readFooter(payload: Buffer): void {
    if (payload.length !== FOOTER_RAW_BYTES) throw this.#damaged("the footer has another length");
    this.footer = { rawBytes: Number(payload.readBigUInt64LE(0)), sha256: payload.subarray(8) };
    if (this.footer.rawBytes !== this.rawBytes || this.rawBytes !== this.header?.segmentBytes)
      throw this.#damaged(`${this.rawBytes} raw bytes, the footer says ${this.footer.rawBytes}`); // D4
  }

  #damaged(reason: string, cause?: unknown): KlioError {
    const { cluster, name } = this.#expected;
    return new KlioError("KLIO-WAL-DAMAGED", `${name} of ${cluster} is damaged: ${reason}`, { cause });
  }
}

export type DecodeOptions = { master: MasterKey; cluster: string; name: string; signal?: AbortSignal };

/**
 * Opens the file that `source` brings. `name` may carry `.partial`: then a missing footer and a torn tail are no damage,
 * and the blocks end at the last whole frame. Undefined when the source ends before the header does (nothing of such a
 * file was ever confirmed). Rejects with KLIO-WAL-DAMAGED or KLIO-KEY-MISMATCH.
 */
export async function decodeWalFile(
  source: AsyncIterable<Uint8Array>,
  { master, cluster, name, signal }: DecodeOptions,
): Promise<OpenWal | undefined> {
  const complete = !name.endsWith(".partial");
  const decoder = new WalFileDecoder(master, { cluster, name: complete ? name : name.slice(0, -".partial".length) });
  const chunks = source[Symbol.asyncIterator]();
  let frame: StoredFrame | undefined;
  let isAtEnd = false;
  /** Reads on until a frame is whole or the source has ended. */
  const advance = async (): Promise<void> => {
    frame = decoder.next();
    while (frame === undefined && !isAtEnd) {
      const chunk = await chunks.next();
      if (chunk.done === true) isAtEnd = true;
      else {
        decoder.push(chunk.value);
        frame = decoder.next();
      }
    }
  };
  const close = async () => {
    if (!isAtEnd) await chunks.return?.();
    isAtEnd = true;
  };
  try {
    await advance();
  } catch (error) {
    await close();
    throw error;
  }
  const { header } = decoder;
  if (header === undefined) {
    if (complete && decoder.tornBytes > 0) throw damaged(cluster, name, "its header is cut off");
    return undefined;
  }
  const frames = async function* (): AsyncGenerator<StoredFrame> {
    try {
      while (frame !== undefined) {
        if (signal?.aborted) throw new KlioError("KLIO-CANCELLED", `reading ${name} was cancelled`);
        yield frame;
        await advance();
      }
    } finally {
      await close();
    }
  };
  const blocks = async function* (): AsyncGenerator<Uint8Array> {
    const hash = createHash("sha256");
    for await (const each of frames()) {
      const raw = await unpackFrame(each, cluster, name);
      hash.update(raw);
      yield raw;
    }
    checkEnd(decoder, hash, complete, cluster, name);
  };
  const packed = async function* (): AsyncGenerator<{ bytes: Uint8Array; packedFrom?: number }> {
    for await (const { head, payload } of frames())
      yield head.codec === "none" ? { bytes: payload } : { bytes: payload, packedFrom: head.rawBytes };
    checkEnd(decoder, undefined, complete, cluster, name);
  };
  const stored = { blocks: packed(), sha256: () => decoder.footer?.sha256 };
  return { segmentBytes: header.segmentBytes, complete, blocks: blocks(), stored, [Symbol.asyncDispose]: close };
}

async function unpackFrame(frame: StoredFrame, cluster: string, name: string): Promise<Buffer> {
  try {
    return await unpack(frame.head, frame.payload);
  } catch (error) {
    throw damaged(cluster, name, errorText(error), error);
  }
}

/** D4; without a hash the reader of what is stored compares it. */
function checkEnd(
  decoder: WalFileDecoder,
  hash: Hash | undefined,
  complete: boolean,
  cluster: string,
  name: string,
): void {
  if (decoder.footer === undefined) {
    if (complete) throw damaged(cluster, name, `it ends after ${decoder.rawBytes} raw bytes`);
    return;
  }
  if (decoder.tornBytes > 0) throw damaged(cluster, name, "there are bytes behind the footer");
  if (hash !== undefined && !hash.digest().equals(decoder.footer.sha256))
    throw damaged(cluster, name, "its SHA-256 is another one");
}

function damaged(cluster: string, name: string, reason: string, cause?: unknown): KlioError {
  return new KlioError("KLIO-WAL-DAMAGED", `${name} of ${cluster} is damaged: ${reason}`, { cause });
}

/**
 * The same header for another master key (D5): the frames behind it stay as they are. `nonce`: 12 fresh random bytes.
 * `header`, `fileKey`: from the decoder that read the file.
 */
export function rewrapHeader(header: WalFileHeader, fileKey: FileKey, target: MasterKey, nonce: Buffer): Buffer {
  return encodeHeader(header, fileKey.dataKey, target, nonce);
}
