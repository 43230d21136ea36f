// WAL from the socket to the blocks that are sent: each byte is copied once, into a buffer with room for a message's head
// before each block. Small blocks share a buffer, so that a synchronous commit does not cost two mebibytes.
import { HEADROOM_BYTES } from "../../wire/wal-message.ts";

/** `buffer[start, end)`; the `HEADROOM_BYTES` before `start` belong to it, too. `release` gives the room back, once. */
export type Block = { buffer: Buffer; start: number; end: number; release: () => void };

/** What is left of a buffer is used on as long as a decent block fits. */
const MIN_ROOM_BYTES = 64 << 10;
/** Buffers kept for reuse. */
const POOL = 8;

type Shared = { buffer: Buffer; blocks: number; isOpen: boolean };

export class BlockBuilder {
  readonly #blockBytes: number;
  #free: Buffer[] = [];
  #current: Shared;
  #start = HEADROOM_BYTES;
  #end = HEADROOM_BYTES;

  constructor(blockBytes: number) {
    this.#blockBytes = blockBytes;
    this.#current = this.#open();
  }

  /** Bytes that wait for `cut`. */
  get bytes(): number {
    return this.#end - this.#start;
  }
  /** Bytes that fit before `cut` is due. */
  get room(): number {
    return this.#current.buffer.length - this.#end;
  }

  /** Copies `chunk[from, to)`, which must fit. */
  append(chunk: Buffer, from: number, to: number): void {
    this.#end += chunk.copy(this.#current.buffer, this.#end, from, to);
  }

  /** The gathered bytes as a block; undefined when there are none. */
  cut(): Block | undefined {
    if (this.bytes === 0) return undefined;
    const shared = this.#current;
    const { buffer } = shared;
    const [start, end] = [this.#start, this.#end];
    shared.blocks += 1;
    let isReleased = false;
    const release = () => {
      if (isReleased) return;
      isReleased = true;
      shared.blocks -= 1;
      this.#recycle(shared);
    };
    if (buffer.length - end >= HEADROOM_BYTES + Math.min(MIN_ROOM_BYTES, this.#blockBytes)) {
      this.#start = end + HEADROOM_BYTES;
    } else {
      shared.isOpen = false;
      this.#current = this.#open();
      this.#start = HEADROOM_BYTES;
    }
    this.#end = this.#start;
    return { buffer, start, end, release };
  }

  #open(): Shared {
    const buffer = this.#free.pop() ?? Buffer.allocUnsafeSlow(HEADROOM_BYTES + this.#blockBytes);
    return { buffer, blocks: 0, isOpen: true };
  }

  #recycle(shared: Shared): void {
    if (!shared.isOpen && shared.blocks === 0 && this.#free.length < POOL) this.#free.push(shared.buffer);
  }
}
