// How a get-wal process asks the prefetcher that an earlier one left behind: one request and one answer, each a line of
// JSON, over a socket in the spool. The directory lets only its owner in; the socket carries names, never bytes.
import { rmSync, statSync } from "node:fs";
import { createConnection, createServer, type Server, type Socket } from "node:net";
import { join, relative } from "node:path";
import type { WalFetchOutput } from "../../machines/wal-fetch.machine.ts";
import { SOCKET_NAME } from "./spool.ts";

/** `origin`: configuration file and tiers; a prefetcher of another origin does not answer for this one. */
export type FetchRequest = { name: string; file: string; partial: boolean; origin: string };
export type FetchReply = WalFetchOutput | { kind: "other" };

/** Longest path that every system takes for a socket. */
const PATH_LIMIT = 100;
/** A request is two paths and a name. */
const LINE_LIMIT = 64 << 10;

/** Path of the socket, as short as it can be said from the working directory; undefined when it is too long even so. */
export function socketPath(spool: string, workingDirectory: string): string | undefined {
  const absolute = join(spool, SOCKET_NAME);
  const short = relative(workingDirectory, absolute);
  const path = short.length < absolute.length ? short : absolute;
  return Buffer.byteLength(path) > PATH_LIMIT ? undefined : path;
}

function readLine(socket: Socket, onLine: (line: string) => void): void {
  let text = "";
  socket.setEncoding("utf8").on("data", (more: string) => {
    text += more;
    const end = text.indexOf("\n");
    if (end >= 0) onLine(text.slice(0, end));
    else if (text.length > LINE_LIMIT) socket.destroy();
  });
}

/** The prefetcher's answer; undefined when none is listening, or when it ended before it answered. Never rejects. */
export function askPrefetcher(
  path: string,
  request: FetchRequest,
  signal?: AbortSignal,
): Promise<FetchReply | undefined> {
  return new Promise((resolve) => {
    const socket = createConnection(path);
    const abort = () => socket.destroy();
    signal?.addEventListener("abort", abort, { once: true });
    const end = (reply: FetchReply | undefined) => {
      signal?.removeEventListener("abort", abort);
      socket.destroy();
      resolve(reply);
    };
    socket.once("error", () => end(undefined)).once("close", () => end(undefined));
    socket.once("connect", () => socket.write(`${JSON.stringify(request)}\n`));
    readLine(socket, (line) => end(JSON.parse(line) as FetchReply));
  });
}

export type FetchServer = AsyncDisposable & {
  /** False when the socket was removed or replaced: then nobody can ask any more. */
  isReachable(): boolean;
};

/**
 * Listens on `path`; undefined when a living prefetcher already does, or its directory is gone. A socket that a killed one left is replaced.
 * `answer` must not reject but with a bug.
 */
export async function serveFetches(
  path: string,
  answer: (request: FetchRequest, signal: AbortSignal) => Promise<FetchReply>,
): Promise<FetchServer | undefined> {
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    const gone = new AbortController();
    sockets.add(socket);
    socket
      .on("error", () => gone.abort())
      .once("close", () => {
        sockets.delete(socket);
        gone.abort();
      });
    readLine(socket, (line) => {
      void answer(JSON.parse(line) as FetchRequest, gone.signal).then((reply) => {
        if (!socket.destroyed) socket.end(`${JSON.stringify(reply)}\n`);
      });
    });
  });
  if (!(await listen(server, path))) {
    if (await isListening(path)) return undefined;
    rmSync(path, { force: true });
    if (!(await listen(server, path))) return undefined;
  }
  const own = statSync(path).ino;
  return {
    isReachable: () => statSync(path, { throwIfNoEntry: false })?.ino === own,
    async [Symbol.asyncDispose]() {
      const closed = new Promise((resolve) => server.close(resolve));
      for (const socket of sockets) socket.destroy();
      await closed;
    },
  };
}

/** False when the path is in use, or its directory is gone. */
function listen(server: Server, path: string): Promise<boolean> {
  return new Promise((resolve, reject) => {
    const failed = (error: NodeJS.ErrnoException) =>
      error.code === "EADDRINUSE" || error.code === "ENOENT" ? resolve(false) : reject(error);
    server.once("error", failed);
    server.listen(path, () => {
      server.off("error", failed);
      resolve(true);
    });
  });
}

function isListening(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = createConnection(path);
    socket.once("connect", () => {
      socket.destroy();
      resolve(true);
    });
    socket.once("error", () => resolve(false));
  });
}
