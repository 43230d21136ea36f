// What comes of a file that was asked for: unpacked, counted, and compared with what the server says of the whole.
import { createHash } from "node:crypto";
import { errorText, KlioError } from "../../errors.ts";
import { BlockCodec, type GetResult } from "../../proto/generated/klio/wal/v1/wal_pb.ts";
import { zstdUnpack } from "../../wire/zstd.ts";

export class ReceivedFile {
  readonly #peer: string;
  readonly #walName: string;
  readonly #hash = createHash("sha256");
  #bytes = 0;
  #isPacked = false;
  #sha256: Uint8Array = new Uint8Array();

  constructor(peer: string, walName: string) {
    this.#peer = peer;
    this.#walName = walName;
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

  #unpack(block: Uint8Array, codec: number, rawBytes: number): Uint8Array {
    this.#isPacked = true;
    if (codec !== BlockCodec.ZSTD) throw this.#wrong(`a block with codec ${codec}, which was not asked for`);
    try {
      return Buffer.from(zstdUnpack(Buffer.from(block.buffer, block.byteOffset, block.byteLength), rawBytes));
    } catch (cause) {
      throw this.#wrong(`a block that cannot be unpacked (${errorText(cause)})`, cause);
    }
  }

  #wrong(what: string, cause?: unknown): KlioError {
    return new KlioError("KLIO-SERVER-DOWN", `${this.#peer} sent ${what} of ${this.#walName}`, { cause });
  }
}
