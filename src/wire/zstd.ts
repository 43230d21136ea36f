// zstd for blocks of at most 1 MiB, with one context and one output buffer for all of them. Node's one-shot functions make
// both anew for each block, which costs more than the work itself, and the memory that they leave behind makes the
// garbage collector go through the whole heap every few blocks.
//   Z1. A payload counts as good only when it is one whole frame that gives exactly the length that was said: what a
//       context has left over of one payload could else come out with the next.
import { constants, createZstdCompress, createZstdDecompress, zstdCompressSync, zstdDecompressSync } from "node:zlib";

/** Raw bytes of a block at most. */
export const MAX_ZSTD_RAW_BYTES = 1 << 20;
/** The library's bound for what incompressible input becomes. */
const MAX_PACKED_BYTES = MAX_ZSTD_RAW_BYTES + (MAX_ZSTD_RAW_BYTES >> 8) + (64 << 10);
/** Level 1: the fastest that still finds repetition well. */
export const ZSTD_PARAMS = { [constants.ZSTD_c_compressionLevel]: 1 };

const MAGIC = 0xfd2fb528;

/** Z1: is this one frame, from its magic to the end of its last block, without a dictionary? */
export function isWholeFrame(bytes: Buffer): boolean {
  if (bytes.length < 6 || bytes.readUInt32LE(0) !== MAGIC) return false;
  const descriptor = bytes[4] ?? 0;
  const isSingleSegment = (descriptor & 0x20) !== 0;
  if ((descriptor & 0x0b) !== 0) return false; // a dictionary, or a reserved bit
  const contentSizeBytes = [isSingleSegment ? 1 : 0, 2, 4, 8][descriptor >> 6] ?? 0;
  const checksumBytes = (descriptor & 0x04) === 0 ? 0 : 4;
  let at = 5 + (isSingleSegment ? 0 : 1) + contentSizeBytes;
  for (;;) {
    if (at + 3 > bytes.length) return false;
    const head = bytes.readUIntLE(at, 3);
    const type = (head >> 1) & 3;
    if (type === 3) return false;
    at += 3 + (type === 1 ? 1 : head >> 3);
    if ((head & 1) === 1) return at + checksumBytes === bytes.length;
  }
}

type Handle = {
  writeSync(flush: number, from: Buffer, at: number, bytes: number, to: Buffer, toAt: number, room: number): void;
  onerror: (message: string) => void;
};

/** A native context of Node's, which has no public use without a stream around it. Undefined when it looks different. */
class Context {
  readonly #handle: Handle;
  /** [room left in the output, bytes left of the input]. */
  readonly #state: Uint32Array;
  readonly #output: Buffer;
  #error = "";

  private constructor(handle: Handle, state: Uint32Array, output: Buffer) {
    this.#handle = handle;
    this.#state = state;
    this.#output = output;
    handle.onerror = (message) => {
      this.#error = message;
    };
  }

  static over(stream: object, outputBytes: number): Context | undefined {
    const handle: unknown = Reflect.get(stream, "_handle");
    const state: unknown = Reflect.get(stream, "_writeState");
    if (typeof handle !== "object" || handle === null || !(state instanceof Uint32Array)) return undefined;
    if (typeof Reflect.get(handle, "writeSync") !== "function") return undefined;
    return new Context(handle as Handle, state, Buffer.allocUnsafeSlow(outputBytes));
  }

  /** A view that is good until the next call. Throws when `input` is not taken whole, or gives nothing. */
  run(flush: number, input: Buffer, room: number): Buffer {
    this.#handle.writeSync(flush, input, 0, input.length, this.#output, 0, room);
    if (this.#error !== "") throw new Error(this.#error);
    const [left = 0, unread = 0] = this.#state;
    if (unread > 0) throw new Error("the block has more bytes than it says");
    return this.#output.subarray(0, room - left);
  }
}

let packer: Context | undefined | "unknown" = "unknown";
let unpacker: Context | undefined | "unknown" = "unknown";

const newPacker = () => Context.over(createZstdCompress({ params: ZSTD_PARAMS }), MAX_PACKED_BYTES);
// One byte of room more than is said: a frame that gives more shows it.
const newUnpacker = () => Context.over(createZstdDecompress(), MAX_ZSTD_RAW_BYTES + 1);

/** True when contexts are kept: else each call makes its own. */
export function keepsContexts(): boolean {
  packer = packer === "unknown" ? newPacker() : packer;
  unpacker = unpacker === "unknown" ? newUnpacker() : unpacker;
  return packer !== undefined && unpacker !== undefined;
}

/** One frame; `raw` has 1 to `MAX_ZSTD_RAW_BYTES` bytes. A view that is good until the next call. */
export function zstdPack(raw: Buffer): Buffer {
  if (packer === "unknown") packer = newPacker();
  if (packer === undefined) return zstdCompressSync(raw, { params: ZSTD_PARAMS });
  try {
    return packer.run(constants.ZSTD_e_end, raw, MAX_PACKED_BYTES);
  } catch (error) {
    packer = newPacker();
    throw error;
  }
}

/**
 * What `zstdPack` was given. A view that is good until the next call. Throws an Error for anything but one whole frame of
 * that length (Z1), and for a length that is not 1 to `MAX_ZSTD_RAW_BYTES`.
 */
export function zstdUnpack(packed: Buffer, rawBytes: number): Buffer {
  if (rawBytes < 1 || rawBytes > MAX_ZSTD_RAW_BYTES)
    throw new Error(`the block says that it has ${rawBytes} raw bytes`);
  if (!isWholeFrame(packed)) throw new Error("the block is not one whole zstd frame");
  if (unpacker === "unknown") unpacker = newUnpacker();
  try {
    const raw =
      unpacker === undefined
        ? zstdDecompressSync(packed, { maxOutputLength: rawBytes + 1 })
        : unpacker.run(constants.ZSTD_e_continue, packed, rawBytes + 1);
    if (raw.length !== rawBytes) throw new Error(`the block gives ${raw.length} bytes, not ${rawBytes}`);
    return raw;
  } catch (error) {
    unpacker = newUnpacker();
    throw error;
  }
}
