// The messages of one incoming stream, one at a time. Nothing is read ahead but what grpc-js has in hand, so a sender is
// held back by whoever is slow behind us: disk -> call -> HTTP/2 window -> its socket.
import type { Readable } from "node:stream";

export type Received<T> = { kind: "message"; message: T } | { kind: "end" } | { kind: "gone" } | { kind: "stopped" };

/** grpc-js would buffer 16 messages of up to 8 MiB each per stream. A private field of Node's streams, so guarded. */
function limitReadAhead(stream: Readable, messages: number): void {
  const state: unknown = Reflect.get(stream, "_readableState");
  if (typeof state === "object" && state !== null && "highWaterMark" in state) state.highWaterMark = messages;
}

export class Inbox<T> {
  readonly #stream: Readable;
  #queue: T[] = [];
  #ending: Exclude<Received<T>, { kind: "message" }> | undefined;
  #wake: (() => void) | undefined;

  constructor(stream: Readable) {
    this.#stream = stream;
    limitReadAhead(stream, 2);
    stream.on("data", (message: T) => {
      this.#queue.push(message);
      stream.pause();
      this.#wake?.();
    });
    const end = (kind: "end" | "gone") => () => {
      this.#ending ??= { kind };
      this.#wake?.();
    };
    stream.on("end", end("end"));
    stream.on("cancelled", end("gone"));
    stream.on("error", end("gone"));
    stream.on("close", end("gone"));
    stream.pause();
  }

  /** The next message, or how the stream ended; one caller at a time. */
  async next(): Promise<Received<T>> {
    for (;;) {
      const message = this.#queue.shift();
      if (message !== undefined) return { kind: "message", message };
      if (this.#ending !== undefined) return this.#ending;
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
        this.#stream.resume();
      });
    }
  }

  /** `next` answers `stopped` when what is in hand was taken; nothing more is read. */
  stop(): void {
    this.#ending ??= { kind: "stopped" };
    this.#stream.pause();
    this.#wake?.();
  }
}
