// An S3 server that misbehaves in one way at a time: a true one, behind a proxy on a true socket which spoils what the test asks for.
import { createServer, request as httpRequest, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo, Socket } from "node:net";

export type Asked = { method: string; path: string; query: URLSearchParams; headers: IncomingMessage["headers"] };
export type Answer = { status: number; headers: Record<string, string | string[] | undefined>; body: Buffer };

export type Fault =
  /** Answered by the proxy; the server hears nothing of it. */
  | { kind: "answer"; status: number; code?: string; message?: string; headers?: Record<string, string> }
  /** The connection is reset after so many bytes of the request's body. */
  | { kind: "resetInBody"; afterBytes: number }
  /** The server does it, and the answer never comes: the connection is reset in its place. */
  | { kind: "loseAnswer" }
  /** The answer is cut off after so many bytes of its body. */
  | { kind: "cutAnswer"; afterBytes: number }
  /** The answer's body arrives in pieces with pauses. */
  | { kind: "trickle"; pieces: number; pauseMs: number }
  | { kind: "edit"; edit: (answer: Answer) => Answer };

export type FaultyS3 = AsyncDisposable & {
  port: number;
  endpoint: string;
  /** Undefined: as the true server has it. Replaces the last rule. */
  spoil(rule: ((asked: Asked) => Fault | undefined) | undefined): void;
  /** Requests since the last rule was set, and how many of them were spoiled. */
  counts(): { requests: number; spoiled: number };
};

export const isPut = ({ method, query }: Asked) => method === "PUT" && query.size <= 1;
export const isList = ({ query }: Asked) => query.get("list-type") === "2";
export const slowDown: Fault = { kind: "answer", status: 503, code: "SlowDown" };

/** The rule's fault for the first `times` requests that it picks. */
export function firstTimes(times: number, pick: (asked: Asked) => boolean, fault: Fault) {
  let left = times;
  return (asked: Asked): Fault | undefined => (pick(asked) && left-- > 0 ? fault : undefined);
}

const errorBody = (code: string, message = "spoiled") =>
  `<?xml version="1.0"?><Error><Code>${code}</Code><Message>${message}</Message></Error>`;

type Rewrite = (request: {
  method: string;
  url: URL;
  headers: IncomingMessage["headers"];
}) => IncomingMessage["headers"];

/** `rewrite`: the headers that the true server gets. */
export async function faultyS3(
  target: { port: number },
  rewrite: Rewrite = ({ headers }) => headers,
): Promise<FaultyS3> {
  let rule: ((asked: Asked) => Fault | undefined) | undefined;
  let counts = { requests: 0, spoiled: 0 };
  const sockets = new Set<Socket>();

  const handle = (incoming: IncomingMessage, response: ServerResponse) => {
    const url = new URL(incoming.url ?? "/", "http://s3");
    const fault = rule?.({
      method: incoming.method ?? "",
      path: decodeURIComponent(url.pathname),
      query: url.searchParams,
      headers: incoming.headers,
    });
    counts.requests += 1;
    if (fault !== undefined) counts.spoiled += 1;
    const reset = () => void incoming.socket.resetAndDestroy();
    incoming.on("error", () => undefined);
    if (fault?.kind === "answer") {
      incoming.resume().once("end", () => {
        response.writeHead(fault.status, { "content-type": "application/xml", ...fault.headers });
        response.end(fault.code === undefined ? "" : errorBody(fault.code, fault.message));
      });
      return;
    }
    const upstream = httpRequest({
      host: "127.0.0.1",
      port: target.port,
      method: incoming.method,
      path: incoming.url,
      // The host among them: it is part of the signature.
      headers: rewrite({ method: incoming.method ?? "", url, headers: incoming.headers }),
    });
    upstream.on("error", reset);
    let passed = 0;
    incoming.on("data", (chunk: Buffer) => {
      passed += chunk.length;
      if (fault?.kind === "resetInBody" && passed > fault.afterBytes) {
        upstream.destroy();
        reset();
      } else if (!upstream.write(chunk)) {
        incoming.pause();
        upstream.once("drain", () => incoming.resume());
      }
    });
    incoming.once("end", () => upstream.end());
    upstream.once("response", (answered) => {
      const parts: Buffer[] = [];
      answered.on("data", (chunk: Buffer) => parts.push(chunk));
      answered.once("end", () => {
        const answer = { status: answered.statusCode ?? 500, headers: answered.headers, body: Buffer.concat(parts) };
        if (fault?.kind === "loseAnswer") return reset();
        void deliver(fault, answer, response, reset);
      });
    });
  };
  const server = createServer(handle);
  server.on("connection", (socket) => {
    sockets.add(socket);
    socket.on("error", () => undefined);
    socket.once("close", () => sockets.delete(socket));
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  return {
    port,
    endpoint: `http://127.0.0.1:${port}`,
    spoil(next) {
      rule = next;
      counts = { requests: 0, spoiled: 0 };
    },
    counts: () => ({ ...counts }),
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

async function deliver(fault: Fault | undefined, given: Answer, response: ServerResponse, reset: () => void) {
  const { status, headers, body } = fault?.kind === "edit" ? fault.edit(given) : given;
  const { connection: _, "transfer-encoding": __, ...kept } = headers;
  // A HEAD has no body and tells its length all the same.
  response.writeHead(status, body.length > 0 ? { ...kept, "content-length": String(body.length) } : kept);
  if (fault?.kind === "cutAnswer") {
    response.write(body.subarray(0, fault.afterBytes), reset);
    return;
  }
  if (fault?.kind === "trickle") {
    const size = Math.ceil(body.length / fault.pieces);
    for (let at = 0; at < body.length; at += size) {
      response.write(body.subarray(at, at + size));
      await pause(fault.pauseMs);
    }
  } else response.write(body);
  response.end();
}

/** What makes the answer slow; nothing waits for it. */
function pause(ms: number): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  setTimeout(resolve, ms);
  return promise;
}
