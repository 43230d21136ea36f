// The frames behind the head of a stored WAL file: pieces of it, each compressed, encrypted and bound to its place.
//   D2. No nonce repeats under a key: each opening of a file for writing derives a frame key of its own (HKDF of the
//       data key with 32 fresh random bytes, stored with its first frame); the nonce is the frame's number under it.
//
//   offset  bytes  field (numbers little-endian)
//        0      1  1 data, 2 footer; plus 0x80 on the first frame of an opening, 0x40 on the first frame of a write: what lies
//                  before it was durable when it was written
//        1      1  codec: 0 none, 1 zstd
//        2      2  zero
//        4      4  raw bytes
//        8      4  encrypted bytes
//       12      4  CRC-32 of the twelve bytes before it: tells a torn frame from a changed one
//       16   0/32  salt, on the first frame of an opening
//                  encrypted bytes (AES-256-GCM; additional data: file identity, raw offset, this head)
//            16    tag
import { createCipheriv, createDecipheriv, createSecretKey, hkdfSync, type KeyObject } from "node:crypto";
import { crc32, zstdCompress, zstdDecompress, zstdDecompressSync } from "node:zlib";
import { KlioError } from "../errors.ts";
import type { FileKey } from "./wal-file-header.ts";
import { MAX_ZSTD_RAW_BYTES, ZSTD_PARAMS, zstdPack } from "./zstd.ts";

export const FRAME_HEAD_BYTES = 16;
export const SALT_BYTES = 32;
const TAG_BYTES = 16;
/** Raw bytes of a frame at most: what a reader holds at once, and what a client of older make takes in one message. */
export const MAX_FRAME_RAW_BYTES = MAX_ZSTD_RAW_BYTES;
/** Below this, compressing costs more latency than it saves space. */
export const MIN_COMPRESS_BYTES = 8 << 10;
/** From here on the thread pool is worth its two hops: the event loop stays free. */
export const ASYNC_COMPRESS_BYTES = 64 << 10;

const FIRST = 0x80;
const STARTS_WRITE = 0x40;
export type FrameKind = "data" | "footer";
type FrameCodec = "none" | "zstd";
const KINDS: Readonly<Record<FrameKind, number>> = { data: 1, footer: 2 };
const CODECS: Readonly<Record<FrameCodec, number>> = { none: 0, zstd: 1 };

export type Packed = { codec: FrameCodec; payload: Uint8Array; rawBytes: number };

const zstdOptions = (bytes: number) => ({
  params: ZSTD_PARAMS,
  pledgedSrcSize: bytes,
  // Each chunk of output is a round trip through the thread pool, and memory that is held until the frame is written.
  chunkSize: Math.min(256 << 10, Math.max(64 << 10, bytes)),
});

/** Compressed only when that makes it smaller, so a frame is never longer than its raw bytes. */
function smaller(raw: Uint8Array, compressed: Buffer): Packed {
  return compressed.length < raw.length
    ? { codec: "zstd", payload: compressed, rawBytes: raw.length }
    : { codec: "none", payload: raw, rawBytes: raw.length };
}

function whole(raw: readonly Uint8Array[]): Uint8Array {
  return raw.length === 1 && raw[0] !== undefined ? raw[0] : Buffer.concat(raw);
}

/** `raw` together has at most `MAX_FRAME_RAW_BYTES`; it must not change until the frame is sealed. */
export function packSync(raw: readonly Uint8Array[]): Packed {
  const bytes = whole(raw);
  if (bytes.length < MIN_COMPRESS_BYTES) return { codec: "none", payload: bytes, rawBytes: bytes.length };
  const packed = zstdPack(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length));
  return smaller(bytes, packed.length < bytes.length ? Buffer.from(packed) : packed);
}

/** Like `packSync`, in the thread pool. */
export function pack(raw: readonly Uint8Array[]): Promise<Packed> {
  const bytes = whole(raw);
  return new Promise((resolve, reject) =>
    zstdCompress(bytes, zstdOptions(bytes.length), (error, compressed) =>
      error === null ? resolve(smaller(bytes, compressed)) : reject(error),
    ),
  );
}

function frameKey(file: FileKey, salt: Uint8Array): KeyObject {
  return createSecretKey(Buffer.from(hkdfSync("sha256", file.dataKey, salt, "klio wal frames 1", 32)));
}

function nonceOf(counter: number): Buffer {
  const nonce = Buffer.alloc(12);
  nonce.writeUIntLE(counter, 0, 6); // 2^48 frames in one opening of a file
  return nonce;
}

function boundTo(file: FileKey, rawOffset: number, head: Buffer): Buffer {
  const aad = Buffer.alloc(file.identity.length + 8 + FRAME_HEAD_BYTES);
  file.identity.copy(aad);
  aad.writeBigUInt64LE(BigInt(rawOffset), file.identity.length);
  head.copy(aad, file.identity.length + 8, 0, FRAME_HEAD_BYTES);
  return aad;
}

/** Makes the frames of one opening of a file, in the order of their bytes. */
export class FrameSealer {
  readonly #file: FileKey;
  readonly #salt: Buffer;
  readonly #key: KeyObject;
  #counter = 0; // D2

  /** `salt`: 32 random bytes that were never used before. */
  constructor(file: FileKey, salt: Buffer) {
    this.#file = file;
    this.#salt = salt;
    this.#key = frameKey(file, salt);
  }

  /** The frame as pieces to be written one after the other. `startsWrite`: all frames before it are durable. */
  seal(kind: FrameKind, { codec, payload, rawBytes }: Packed, rawOffset: number, startsWrite: boolean): Buffer[] {
    const isFirst = this.#counter === 0;
    const head = Buffer.alloc(FRAME_HEAD_BYTES);
    head[0] = KINDS[kind] | (isFirst ? FIRST : 0) | (startsWrite ? STARTS_WRITE : 0);
    head[1] = CODECS[codec];
    head.writeUInt32LE(rawBytes, 4);
    head.writeUInt32LE(payload.length, 8);
    head.writeUInt32LE(crc32(head.subarray(0, 12)), 12);
    const cipher = createCipheriv("aes-256-gcm", this.#key, nonceOf(this.#counter++));
    cipher.setAAD(boundTo(this.#file, rawOffset, head));
    const body = cipher.update(payload);
    cipher.final();
    return isFirst ? [head, this.#salt, body, cipher.getAuthTag()] : [head, body, cipher.getAuthTag()];
  }
}

/** A frame's head, read. `bytes`: length of the whole frame. */
export type FrameHead = {
  kind: FrameKind;
  isFirst: boolean;
  startsWrite: boolean;
  codec: FrameCodec;
  rawBytes: number;
  storedBytes: number;
  bytes: number;
};

/** The head at the start of `bytes` (16 at least); undefined when it is none. */
export function parseFrameHead(bytes: Buffer): FrameHead | undefined {
  if (bytes.readUInt32LE(12) !== crc32(bytes.subarray(0, 12)) || bytes.readUInt16LE(2) !== 0) return undefined;
  const flags = bytes.readUInt8(0);
  const kind = (["data", "footer"] as const).find((name) => KINDS[name] === (flags & ~(FIRST | STARTS_WRITE)));
  const codec = (["none", "zstd"] as const).find((name) => CODECS[name] === bytes.readUInt8(1));
  const rawBytes = bytes.readUInt32LE(4);
  const storedBytes = bytes.readUInt32LE(8);
  if (kind === undefined || codec === undefined || rawBytes === 0 || rawBytes > MAX_FRAME_RAW_BYTES) return undefined;
  if (codec === "none" ? storedBytes !== rawBytes : storedBytes === 0 || storedBytes >= rawBytes) return undefined;
  const isFirst = (flags & FIRST) !== 0;
  const length = FRAME_HEAD_BYTES + (isFirst ? SALT_BYTES : 0) + storedBytes + TAG_BYTES;
  const startsWrite = (flags & STARTS_WRITE) !== 0;
  return { kind, isFirst, startsWrite, codec, rawBytes, storedBytes, bytes: length };
}

/** Does a write begin somewhere in these bytes, at any offset? Then what lies before it was durable once. */
export function holdsWriteStart(bytes: Buffer): boolean {
  for (let at = 0; at + FRAME_HEAD_BYTES <= bytes.length; at++) {
    if (((bytes[at] ?? 0) & STARTS_WRITE) === 0 || bytes[at + 2] !== 0 || bytes[at + 3] !== 0) continue;
    if (parseFrameHead(bytes.subarray(at, at + FRAME_HEAD_BYTES))?.startsWrite === true) return true;
  }
  return false;
}

/** Opens the frames of a file in their order. */
export class FrameOpener {
  readonly #file: FileKey;
  #key: KeyObject | undefined;
  #counter = 0;

  constructor(file: FileKey) {
    this.#file = file;
  }

  /** The payload, still compressed. `frame`: the whole frame. Throws KLIO-WAL-DAMAGED. */
  open(head: FrameHead, frame: Buffer, rawOffset: number): Buffer {
    let at = FRAME_HEAD_BYTES;
    if (head.isFirst) {
      this.#key = frameKey(this.#file, frame.subarray(at, at + SALT_BYTES));
      this.#counter = 0;
      at += SALT_BYTES;
    }
    if (this.#key === undefined) throw new KlioError("KLIO-WAL-DAMAGED", "the first frame is missing");
    const decipher = createDecipheriv("aes-256-gcm", this.#key, nonceOf(this.#counter++), { authTagLength: TAG_BYTES })
      .setAAD(boundTo(this.#file, rawOffset, frame))
      .setAuthTag(frame.subarray(at + head.storedBytes, at + head.storedBytes + TAG_BYTES));
    const payload = decipher.update(frame.subarray(at, at + head.storedBytes));
    try {
      decipher.final();
    } catch (cause) {
      throw new KlioError("KLIO-WAL-DAMAGED", `the frame at raw offset ${rawOffset} was changed`, { cause });
    }
    return payload;
  }
}

/** The raw bytes of an opened payload; small ones at once, others from the thread pool. Rejects with KLIO-WAL-DAMAGED. */
export async function unpack(head: FrameHead, payload: Buffer): Promise<Buffer> {
  if (head.codec === "none") return payload;
  const options = { maxOutputLength: head.rawBytes, chunkSize: Math.max(64 << 10, head.rawBytes) };
  try {
    const raw =
      head.rawBytes < ASYNC_COMPRESS_BYTES
        ? zstdDecompressSync(payload, options)
        : await new Promise<Buffer>((resolve, reject) =>
            zstdDecompress(payload, options, (error, result) => (error === null ? resolve(result) : reject(error))),
          );
    if (raw.length === head.rawBytes) return raw;
  } catch (cause) {
    throw new KlioError("KLIO-WAL-DAMAGED", "a frame cannot be decompressed", { cause });
  }
  throw new KlioError("KLIO-WAL-DAMAGED", "a frame has another length than it says");
}
