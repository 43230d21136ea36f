// A range of a file as a stream that makes no garbage: it reads into the same few buffers again and again.
import type { FileHandle } from "node:fs/promises";
import { Readable } from "node:stream";

/** Each read is a hop to the thread pool and back: fewer and larger ones cost less, and more memory. */
const CHUNK_BYTES = 512 << 10;
/**
 * One that the receiver writes, one that waits in the stream, one that is being read into, and one to spare. A receiver that
 * heeds back-pressure never has more, because each chunk is above anybody's high-water mark.
 */
const BUFFERS = 4;
/** Sets kept for the next files: as many as are on their way at once. */
const SPARE_SETS = 10;

/** Buffers that one body after the other reads into. Left to the garbage collector they would cost more than the reading. */
export class ChunkBuffers {
  readonly #spare: Buffer[][] = [];

  take(): Buffer[] {
    return this.#spare.pop() ?? [];
  }

  /** Nobody else may have them any more. */
  give(buffers: Buffer[]): void {
    if (buffers.length > 0 && this.#spare.length < SPARE_SETS) this.#spare.push(buffers);
  }
}

/**
 * Gives `head` and then the file's bytes from `from` to `to`, by way of `buffers`, which it fills up. Whoever keeps a chunk
 * copies it: its memory is used again.
 */
export function fileBody(handle: FileHandle, head: Buffer, from: number, to: number, buffers: Buffer[]): Readable {
  let turn = 0;
  let at = from;
  let isBegun = false;
  return new Readable({
    highWaterMark: 1,
    read() {
      if (!isBegun) {
        isBegun = true;
        this.push(head);
        return;
      }
      if (at >= to) {
        this.push(null);
        return;
      }
      const buffer = buffers[turn] ?? Buffer.allocUnsafeSlow(CHUNK_BYTES);
      buffers[turn] = buffer;
      turn = (turn + 1) % BUFFERS;
      handle.read(buffer, 0, Math.min(CHUNK_BYTES, to - at), at).then(
        ({ bytesRead }) => {
          at = bytesRead === 0 ? to : at + bytesRead;
          this.push(bytesRead === 0 ? null : buffer.subarray(0, bytesRead));
        },
        (error: Error) => this.destroy(error),
      );
    },
  });
}
