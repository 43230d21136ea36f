// A longer way to a server on loopback: every byte arrives `delayMs / 2` later in either direction, as many as there are.
// HTTP requests that pass are counted by their method.
import { type AddressInfo, createConnection, createServer, type Socket } from "node:net";

export type SlowLink = AsyncDisposable & {
  readonly port: number;
  /** Requests by method since the last `reset`. */
  requests(): Record<string, number>;
  /** Bytes that clients sent since the last `reset`. */
  sentBytes(): number;
  reset(): void;
};

const REQUEST_LINE = /^(GET|PUT|POST|HEAD|DELETE) \//;

export async function slowLink(target: { port: number }, delayMs: number): Promise<SlowLink> {
  let counts: Record<string, number> = {};
  let bytes = 0;
  const sockets = new Set<Socket>();
  const carry = (from: Socket, to: Socket, onChunk: (chunk: Buffer) => void) => {
    const later = (act: () => void) => (delayMs === 0 ? act() : setTimeout(act, delayMs / 2));
    from.on("data", (chunk: Buffer) => {
      onChunk(chunk);
      later(() => {
        if (to.writable && !to.write(chunk)) from.pause();
      });
    });
    to.on("drain", () => from.resume());
    from.once("end", () => later(() => to.end()));
    from.once("error", () => to.destroy());
    from.once("close", () => later(() => to.end()));
  };
  const server = createServer((client) => {
    const upstream = createConnection({ host: "127.0.0.1", port: target.port });
    for (const socket of [client, upstream]) {
      sockets.add(socket.setNoDelay(true));
      socket.once("close", () => sockets.delete(socket));
    }
    // A request begins where the connection does, or behind an answer; a body behind "100 Continue" is no request line.
    let isBetween = true;
    carry(client, upstream, (chunk) => {
      bytes += chunk.length;
      const [, method] = isBetween ? (REQUEST_LINE.exec(chunk.toString("latin1", 0, 8)) ?? []) : [];
      isBetween = false;
      if (method !== undefined) counts[method] = (counts[method] ?? 0) + 1;
    });
    carry(upstream, client, () => {
      isBetween = true;
    });
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
      await new Promise((resolve) => server.close(resolve));
    },
  };
}
