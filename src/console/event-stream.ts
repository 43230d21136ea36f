// Server-sent events to the pages that are open.
//   M1. A reader that does not keep up is dropped, not waited for; its browser comes back by itself and gets a whole
//       picture. So what is owed to a reader is bounded, and so is the number of readers.
import type { ServerResponse } from "node:http";

/** Pages open at a time; more would be a mistake or an attack. */
export const MAX_READERS = 16;
/** Unsent bytes after which a reader is dropped: several whole pictures. */
const MAX_BACKLOG_BYTES = 4 << 20;

export class EventStream {
  private readonly readers = new Set<ServerResponse>();
  private readonly maxBacklogBytes: number;
  private readonly onEmpty: () => void;
  constructor({ onEmpty, maxBacklogBytes = MAX_BACKLOG_BYTES }: { onEmpty: () => void; maxBacklogBytes?: number }) {
    this.onEmpty = onEmpty;
    this.maxBacklogBytes = maxBacklogBytes;
  }

  get size(): number {
    return this.readers.size;
  }

  /** Opens the stream on a response; false (and status 503) when there are too many. */
  add(response: ServerResponse): boolean {
    if (this.readers.size >= MAX_READERS) {
      response.writeHead(503, { "content-type": "text/plain; charset=utf-8", "retry-after": "5" });
      response.end("too many open pages\n");
      return false;
    }
    response.writeHead(200, {
      "content-type": "text/event-stream; charset=utf-8",
      // A proxy that collects the answer first would show nothing.
      "x-accel-buffering": "no",
    });
    this.readers.add(response);
    response.on("error", () => response.destroy());
    response.on("close", () => {
      this.readers.delete(response);
      if (this.readers.size === 0) this.onEmpty();
    });
    return true;
  }

  /** To one reader. */
  send(response: ServerResponse, event: string, data: unknown): void {
    this.write([response], message(event, data));
  }

  /** To all of them; serialised once, and only when there is one. */
  broadcast(event: string, data: () => unknown): void {
    if (this.readers.size > 0) this.write([...this.readers], message(event, data()));
  }

  /** A comment: keeps proxies from closing a quiet connection, and finds readers that are gone. */
  keepAlive(): void {
    this.write([...this.readers], ": still here\n\n");
  }

  close(): void {
    for (const response of [...this.readers]) response.destroy();
  }

  private write(readers: readonly ServerResponse[], text: string): void {
    for (const response of readers) {
      if (response.writableLength > this.maxBacklogBytes) response.destroy();
      else response.write(text);
    }
  }
}

function message(event: string, data: unknown): string {
  return `event: ${event}\ndata: ${JSON.stringify(data)}\n\n`;
}
