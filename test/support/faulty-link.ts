// A TCP connection between two real peers that goes wrong when a test wants it to: slow, cut, silent in one or both directions.
import { once } from "node:events";
import { connect, createServer, type Socket } from "node:net";

/** `up`: from the client to the server. */
type Direction = "up" | "down";

export type FaultyLink = AsyncDisposable & {
  port: number;
  /** Connections since the start. */
  accepted(): number;
  /** Each chunk comes so much later, in both directions. */
  delay(ms: number): void;
  /** Ends all connections at once, without a farewell. */
  cut(): void;
  /**
   * Nothing gets through any more, not even the end of a connection: those of now never recover. Those that come later are
   * as dead, until `heal`.
   */
  halfOpen(): void;
  /** The next connection over which the client sends this text is half open from then on. */
  halfOpenAt(text: string): void;
  /** Bytes of these directions wait, up to what buffers hold; in connections of now and of later, until `heal`. */
  stall(directions: readonly Direction[]): void;
  heal(): void;
};

type Pair = { client: Socket; server: Socket; isDead: boolean };

export async function startFaultyLink(target: { host: string; port: number }): Promise<FaultyLink> {
  const pairs = new Set<Pair>();
  let [delayMs, accepted, isDead] = [0, 0, false];
  let stalled: readonly Direction[] = [];
  let fatalText: string | undefined;

  const press = ({ client, server }: Pair) => {
    for (const [direction, from] of [
      ["up", client],
      ["down", server],
    ] as const)
      if (stalled.includes(direction)) from.pause();
      else from.resume();
  };
  const forward = (pair: Pair, direction: Direction) => {
    const [from, to] = direction === "up" ? [pair.client, pair.server] : [pair.server, pair.client];
    const later = (act: () => void) => {
      if (delayMs === 0) act();
      else setTimeout(act, delayMs);
    };
    from.on("data", (chunk) => {
      if (fatalText !== undefined && direction === "up" && chunk.includes(fatalText)) {
        pair.isDead = true;
        fatalText = undefined;
      }
      if (!pair.isDead)
        later(() => {
          if (pair.isDead || to.destroyed || to.write(chunk) || stalled.includes(direction)) return;
          from.pause();
          to.once("drain", () => press(pair));
        });
    });
    from.on("end", () => {
      if (!pair.isDead) later(() => to.end());
    });
    from.on("close", () => {
      if (!pair.isDead) later(() => to.destroy());
    });
    from.on("error", () => undefined); // its close follows
  };

  const listener = createServer({ allowHalfOpen: true }, (client) => {
    accepted++;
    const pair = { client, server: connect({ ...target, allowHalfOpen: true }), isDead };
    pairs.add(pair);
    for (const direction of ["up", "down"] as const) forward(pair, direction);
    press(pair);
  });
  listener.listen(0, "127.0.0.1");
  await once(listener, "listening");
  const address = listener.address();
  if (address === null || typeof address === "string") throw new Error("the link has no port");
  const cut = () => {
    for (const { client, server } of pairs) {
      client.resetAndDestroy();
      server.resetAndDestroy();
    }
    pairs.clear();
  };
  return {
    port: address.port,
    accepted: () => accepted,
    delay(ms) {
      delayMs = ms;
    },
    cut,
    halfOpen() {
      isDead = true;
      for (const pair of pairs) pair.isDead = true;
    },
    halfOpenAt(text) {
      fatalText = text;
    },
    stall(directions) {
      stalled = directions;
      for (const pair of pairs) press(pair);
    },
    heal() {
      isDead = false;
      stalled = [];
      for (const pair of pairs) press(pair);
    },
    async [Symbol.asyncDispose]() {
      listener.close();
      cut();
    },
  };
}
