// A longer way to a server on loopback: every byte arrives `delayMs / 2` later in either direction, as many as there are.
// HTTP requests that pass are counted by their method. The way is to cost little beside what is measured on it: it reads
// much at once, and writes at once whatever is due.
import { type AddressInfo, createConnection, createServer, type OnReadOpts, Socket } from "node:net";

export type SlowLink = AsyncDisposable & {
  readonly port: number;
  /** Requests by method since the last `reset`. */
  requests(): Record<string, number>;
  /** Bytes that clients sent since the last `reset`. */
  sentBytes(): number;
  reset(): void;
};

const REQUEST_LINE = /^(GET|PUT|POST|HEAD|DELETE) \//;
const READ_BYTES = 256 << 10;
/** Nothing more is read while so much waits to be written. */
const WAITING_BYTES = 4 << 20;

/** One direction: what the socket with `onread` reads is written to the other one, each piece after its delay. */
function direction(delayMs: number, onChunk: (chunk: Buffer) => void) {
  const spare: Buffer[] = [];
  const waiting: { dueMs: number; act: () => void }[] = [];
  let buffer: Buffer;
  let to: Socket | undefined;
  let isArmed = false;
  const deliver = () => {
    const nowMs = performance.now();
    to?.cork();
    while (waiting[0] !== undefined && waiting[0].dueMs <= nowMs) waiting.shift()?.act();
    to?.uncork();
    const [next] = waiting;
    isArmed = next !== undefined;
    if (next !== undefined) setTimeout(deliver, next.dueMs - nowMs);
  };
  const later = (act: () => void) => {
    if (delayMs === 0) return act();
    waiting.push({ dueMs: performance.now() + delayMs, act });
    if (!isArmed) setTimeout(deliver, delayMs);
    isArmed = true;
  };
  const onread: OnReadOpts = {
    buffer() {
      buffer = spare.pop() ?? Buffer.allocUnsafeSlow(READ_BYTES);
      return buffer;
    },
    callback(bytes) {
      const taken = buffer;
      const chunk = taken.subarray(0, bytes);
      onChunk(chunk);
      later(() => {
        if (to?.writable === true) to.write(chunk, () => spare.push(taken));
      });
      return (to?.writableLength ?? 0) < WAITING_BYTES;
    },
  };
  return {
    onread,
    join(from: Socket, target: Socket) {
      to = target;
      target.on("drain", () => from.resume());
      from.once("end", () => later(() => target.end()));
      from.once("error", () => target.destroy());
      from.once("close", () => later(() => target.end()));
      from.resume();
    },
  };
}

/** An accepted connection that reads by way of `onread`, which Node offers to the side that dials only. */
function readingBy(accepted: Socket, onread: OnReadOpts): Socket {
  const { _handle: handle } = accepted as unknown as { _handle: unknown };
  return new Socket({ handle, onread } as ConstructorParameters<typeof Socket>[0]);
}

export async function slowLink(target: { port: number }, delayMs: number): Promise<SlowLink> {
  let counts: Record<string, number> = {};
  let bytes = 0;
  const sockets = new Set<Socket>();
  const server = createServer({ pauseOnConnect: true }, (accepted) => {
    // A request begins where the connection does, or behind an answer; a body behind "100 Continue" is no request line.
    let isBetween = true;
    const there = direction(delayMs / 2, (chunk) => {
      bytes += chunk.length;
      const [, method] = isBetween ? (REQUEST_LINE.exec(chunk.toString("latin1", 0, 8)) ?? []) : [];
      isBetween = false;
      if (method !== undefined) counts[method] = (counts[method] ?? 0) + 1;
    });
    const back = direction(delayMs / 2, () => {
      isBetween = true;
    });
    const client = readingBy(accepted, there.onread);
    const upstream = createConnection({ host: "127.0.0.1", port: target.port, onread: back.onread });
    for (const socket of [client, upstream]) {
      sockets.add(socket.setNoDelay(true));
      socket.once("close", () => sockets.delete(socket));
    }
    there.join(client, upstream);
    back.join(upstream, client);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    port: (server.address() as AddressInfo).port,
    requests: () => ({ ...counts }),
    sentBytes: () => bytes,
    reset() {
      counts = {};
      bytes = 0;
    },
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy();
      server.close();
    },
  };
}
