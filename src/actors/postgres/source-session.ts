// A replication connection. The package pg-logical-replication makes and ends it; its plugin hands the client out for
// commands, and the socket itself while WAL is streamed, so that not one of the package's acknowledgements (which name
// positions that nobody flushed) ever leaves.
import { Socket } from "node:net";
import pg from "pg";
import { LogicalReplicationService } from "pg-logical-replication";
import { failureOf, type Outcome, ok } from "../../domain/outcome.ts";
import { KlioError } from "../../errors.ts";
import { quoteSlot } from "../../wire/pg-replication.ts";
import { ANSWER_MS, type Row, socketOf } from "./ask-source.ts";
import { sourceError } from "./classify.ts";
import { clientConfig, parseConninfo, replicationMode } from "./conninfo.ts";

/** The socket of a connection, all its bytes ours from `take` to `giveBack`. */
export type RawReplication = {
  socket: Socket;
  /** Sends a command without waiting for its result. */
  command(text: string): void;
  /** Sends a CopyData message. */
  copyData(content: Buffer): void;
  copyDone(): void;
  /** After ReadyForQuery: `pg` reads again. */
  giveBack(): void;
};

export interface SourceSession {
  /** Runs a replication command; values are text or null. KLIO-SOURCE-DOWN when no answer comes. */
  command(text: string): Promise<Outcome<Row[]>>;
  /** Detaches `pg` from the socket and gives its bytes to `onData`. Between commands only. */
  take(onData: (chunk: Buffer) => void): RawReplication;
  /** Resolves when the connection is gone, whoever ended it; never rejects. */
  readonly gone: Promise<KlioError>;
  /** Ends the connection; at the latest after a second its socket is destroyed. Safe to call twice. */
  close(): Promise<void>;
}

type Plugin = Parameters<LogicalReplicationService["subscribe"]>[0];

/** A peer that does not take our goodbye is not waited for. */
const GOODBYE_MS = 1_000;

/** Connects. Rejects with KLIO-CONFIG and KLIO-CERTIFICATE for a string that cannot be used; what PostgreSQL says is an outcome. */
export async function openSession(
  dsn: string,
  options: { applicationName: string; slot: string; signal: AbortSignal },
): Promise<Outcome<SourceSession>> {
  const conninfo = parseConninfo(dsn);
  const config = clientConfig(conninfo, options);
  const service = new LogicalReplicationService(config, { acknowledge: { auto: false, timeoutSeconds: 0 } });
  const connected = Promise.withResolvers<pg.Client>();
  const ended = Promise.withResolvers<void>();
  const gone = Promise.withResolvers<KlioError>();
  let own: ReadingSocket | undefined;
  const lose = (error: unknown) => gone.resolve(sourceError(error));
  service.on("error", lose);
  // The package knows `replication=database` only; a pg_hba.conf line for `replication` does not match that.
  const connect = async () => {
    if (config.ssl === false || config.ssl === undefined) own = openReadingSocket();
    const client = new pg.Client({
      ...config,
      replication: replicationMode(conninfo),
      query_timeout: ANSWER_MS,
      ...(own !== undefined && { stream: own.socket }),
    } as pg.ClientConfig);
    client.on("error", lose);
    const abort = () => socketOf(client).destroy(new Error("cancelled"));
    options.signal.addEventListener("abort", abort, { once: true });
    try {
      if (options.signal.aborted) throw new KlioError("KLIO-CANCELLED", "connecting was cancelled");
      await client.connect();
    } finally {
      options.signal.removeEventListener("abort", abort);
    }
    Reflect.set(service, "_client", client);
    Reflect.set(service, "_connection", client.connection);
    return [client, client.connection];
  };
  if (!("client" in service) || !Reflect.set(service, "client", connect))
    throw new KlioError("KLIO-BUG", "this version of pg-logical-replication makes its client elsewhere");
  const plugin: Plugin = {
    name: "klio-physical",
    options: {},
    start(client) {
      connected.resolve(client);
      return ended.promise;
    },
    parse: (buffer) => buffer,
  };
  service.subscribe(plugin, quoteSlot(options.slot), "0/0").catch((error: unknown) => connected.reject(error));
  let client: pg.Client;
  try {
    client = await connected.promise;
  } catch (error) {
    if (options.signal.aborted)
      return { kind: "retryable", code: "KLIO-CANCELLED", reason: "connecting was cancelled" };
    return failureOf(sourceError(error));
  }
  const socket = socketOf(client);
  socket.once("close", () => lose(new KlioError("KLIO-SOURCE-DOWN", "PostgreSQL closed the replication connection")));
  let closing: Promise<void> | undefined;
  const close = async () => {
    const killer = setTimeout(() => socket.destroy(), GOODBYE_MS);
    socket.resume(); // a paused socket never sees the end
    await service.stop();
    clearTimeout(killer);
    ended.resolve();
    await service.destroy();
  };
  return ok({
    gone: gone.promise,
    async command(text) {
      try {
        const result: pg.QueryResult<Row> = await client.query(text);
        return ok(result.rows);
      } catch (error) {
        return failureOf(sourceError(error));
      }
    },
    take: (onData) => takeSocket(client, socket, own, onData),
    close() {
      closing ??= close();
      return closing;
    },
  });
}

/** How much is read at once. */
const READ_BYTES = 256 << 10;

type ReadingSocket = {
  socket: Socket;
  /** Shows the bytes as they lie in the buffer, good during the call only, instead of giving copies of them as `data`. */
  show(onData: ((chunk: Buffer) => void) | undefined): void;
};

/** A socket that reads into one buffer: with a new one for each read, the garbage collector would never rest. */
function openReadingSocket(): ReadingSocket {
  let onData: ((chunk: Buffer) => void) | undefined;
  const socket: Socket = new Socket({
    onread: {
      buffer: Buffer.allocUnsafeSlow(READ_BYTES),
      callback(bytes, buffer) {
        const chunk = Buffer.from(buffer.buffer, buffer.byteOffset, bytes);
        if (onData === undefined) socket.emit("data", Buffer.from(chunk));
        else onData(chunk);
        return true;
      },
    },
  });
  return {
    socket,
    show(next) {
      onData = next;
    },
  };
}

function takeSocket(
  client: pg.Client,
  socket: Socket,
  own: ReadingSocket | undefined,
  onData: (chunk: Buffer) => void,
): RawReplication {
  const theirs = socket.listeners("data");
  socket.removeAllListeners("data");
  if (own === undefined) socket.on("data", onData);
  else own.show(onData);
  const { connection } = client;
  const send = (method: string, ...args: unknown[]) => {
    const call: unknown = Reflect.get(connection, method);
    if (typeof call !== "function") throw new KlioError("KLIO-BUG", `this version of pg has no ${method}`);
    if (socket.writable) Reflect.apply(call, connection, args);
  };
  return {
    socket,
    command: (text) => send("query", text),
    copyData: (content) => send("sendCopyFromChunk", content),
    copyDone: () => send("endCopyFrom"),
    giveBack() {
      socket.off("data", onData);
      own?.show(undefined);
      for (const listener of theirs) socket.on("data", listener as (chunk: Buffer) => void);
      socket.resume();
    },
  };
}
