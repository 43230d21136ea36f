// What comes of a file that was asked for: unpacked, counted, and compared with what the server says of the whole.
import { createHash } from "node:crypto";
import { errorText, KlioError } from "../../errors.ts";
import { BlockCodec, type GetResult } from "../../proto/generated/klio/wal/v1/wal_pb.ts";
import { MAX_ZSTD_RAW_BYTES, zstdUnpack } from "../../wire/zstd.ts";

/** Buffers that no file uses now. A new one for each block would cost more than unpacking it. */
const spare: Buffer[] = [];
/** As many as a fetcher downloads at once by default, and some. */
const SPARE_LIMIT = 8;

export class ReceivedFile {
  readonly #peer: string;
  readonly #walName: string;
  /** A raw block is good until the next one is taken. */
  readonly #reuses: boolean;
  #own: Buffer | undefined;
  readonly #hash = createHash("sha256");
  #bytes = 0;
  #isPacked = false;
  #sha256: Uint8Array = new Uint8Array();

  constructor(peer: string, walName: string, { reuses = false } = {}) {
    this.#peer = peer;
    this.#walName = walName;
    this.#reuses = reuses;
  }

  /** The raw bytes of a message; none in the last one. Throws KLIO-SERVER-DOWN for a block that is not what it says. */
  take({ walBlock, codec, rawSize, sha256 }: GetResult): Uint8Array {
    if (sha256.length > 0) this.#sha256 = sha256;
    const raw = codec === BlockCodec.NONE ? walBlock : this.#unpack(walBlock, codec, Number(rawSize));
    this.#bytes += raw.length;
    this.#hash.update(raw);
    return raw;
  }

  /** After the last message. Throws KLIO-SERVER-DOWN for a file that is not whole, or not the one that was stored. */
  check(segmentBytes: number, complete: boolean): void {
    if (this.#bytes > segmentBytes || (complete && this.#bytes < segmentBytes))
      throw this.#wrong(`${this.#bytes} of ${segmentBytes} bytes`);
    if (!complete || (!this.#isPacked && this.#sha256.length === 0)) return; // an older server has compared it itself
    if (!this.#hash.digest().equals(this.#sha256)) throw this.#wrong("other bytes than were stored");
  }

  /** The last block is not looked at any more. */
  close(): void {
    if (this.#own !== undefined && spare.length < SPARE_LIMIT) spare.push(this.#own);
    this.#own = undefined;
  }

  #unpack(block: Uint8Array, codec: number, rawBytes: number): Uint8Array {
    this.#isPacked = true;
    if (codec !== BlockCodec.ZSTD) throw this.#wrong(`a block with codec ${codec}, which was not asked for`);
    try {
      const raw = zstdUnpack(Buffer.from(block.buffer, block.byteOffset, block.byteLength), rawBytes);
      if (!this.#reuses) return Buffer.from(raw);
      this.#own ??= spare.pop() ?? Buffer.allocUnsafeSlow(MAX_ZSTD_RAW_BYTES);
      raw.copy(this.#own);
      return this.#own.subarray(0, raw.length);
    } catch (cause) {
      throw this.#wrong(`a block that cannot be unpacked (${errorText(cause)})`, cause);
    }
  }

  #wrong(what: string, cause?: unknown): KlioError {
    return new KlioError("KLIO-SERVER-DOWN", `${this.#peer} sent ${what} of ${this.#walName}`, { cause });
  }
}
