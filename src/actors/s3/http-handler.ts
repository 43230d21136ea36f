// The AWS client's way to the store, over Node's own HTTP client. The handler that comes with it opens a connection of its own for
// each body that waits for "100 Continue", which every segment does, and that connection knows nothing of a custom CA.
import {
  type ClientRequest,
  Agent as HttpAgent,
  request as httpRequest,
  type IncomingHttpHeaders,
  type IncomingMessage,
} from "node:http";
import { Agent as HttpsAgent, request as httpsRequest } from "node:https";
import { Readable } from "node:stream";
import { buildQueryString } from "@smithy/core/protocols";

/**
 * A request on which no byte moves for this long, in either direction, is given up. It has no limit as a whole: a slow way to the store
 * is shared by many segments, and all of them would be broken off each time.
 */
const IDLE_LIMIT_MS = 60_000;
const CONNECT_LIMIT_MS = 5_000;
/** A store that says nothing to "Expect" gets the body after this long, as curl has it. */
const CONTINUE_LIMIT_MS = 1_000;
const MAX_SOCKETS = 64;
/** A buffer goes out in pieces of this size: below TLS one large write shows no byte until all of it is gone. */
const PIECE_BYTES = 256 << 10;

type Sent = {
  protocol: string;
  hostname: string;
  port?: number | undefined;
  method: string;
  path: string;
  query?: Record<string, string | string[] | null> | undefined;
  headers: Record<string, string>;
  body?: unknown;
};
type Answered = { statusCode: number; reason: string; headers: Record<string, string>; body: Readable };

const named = (name: string, message: string) => Object.assign(new Error(message), { name });

const flat = (headers: IncomingHttpHeaders): Record<string, string> =>
  Object.fromEntries(
    Object.entries(headers).flatMap(([name, value]) =>
      value === undefined ? [] : [[name, Array.isArray(value) ? value.join(", ") : value]],
    ),
  );

/**
 * The answer may come before all of the body is sent: then the rest is not, and the connection ends with the answer. `idleMs`: for tests.
 * What is aborted, or stands still, while the body of its answer is read ends that body with an error.
 */
export function s3HttpHandler(ca: string | undefined, { idleMs = IDLE_LIMIT_MS }: { idleMs?: number } = {}) {
  const kept = { maxSockets: MAX_SOCKETS, keepAlive: true };
  const http = new HttpAgent(kept);
  const https = new HttpsAgent({ ...kept, ...(ca !== undefined && { ca, minVersion: "TLSv1.2" }) });

  function send(sent: Sent, signal: AbortSignal | undefined): Promise<{ response: Answered }> {
    const { port, method, path, headers, body } = sent;
    const query = buildQueryString(sent.query ?? {});
    const host = sent.hostname.replace(/^\[|\]$/g, "");
    const isSecure = sent.protocol === "https:";
    const isWaiting = Object.entries(headers).some(([name, value]) => /^expect$/i.test(name) && /^100-/.test(value));
    return new Promise((resolve, reject) => {
      const options = {
        host,
        method,
        headers,
        path: query === "" ? path : `${path}?${query}`,
        ...(port !== undefined && { port }),
      };
      const out = isSecure ? httpsRequest({ ...options, agent: https }) : httpRequest({ ...options, agent: http });
      const timers: NodeJS.Timeout[] = [];
      const after = (ms: number, act: () => void) => timers.push(setTimeout(act, ms));
      let hasBegun = false;
      let answer: IncomingMessage | undefined;
      const stopTimers = () => {
        for (const timer of timers) clearTimeout(timer);
      };
      const standsStill = () => {
        // What lies here unread waits for its reader, not for the store.
        if (answer === undefined || (answer.readableLength === 0 && !answer.complete))
          fail(named("TimeoutError", `no byte within ${idleMs} ms`));
        else out.socket?.setTimeout(idleMs);
      };
      const done = () => {
        stopTimers();
        out.socket?.off("timeout", standsStill);
        signal?.removeEventListener("abort", stop);
      };
      const fail = (error: Error) => {
        done();
        answer?.destroy(error);
        out.destroy();
        reject(error);
      };
      const stop = () => fail(named("AbortError", "cancelled"));
      const begin = () => {
        if (hasBegun || out.destroyed || answer !== undefined) return;
        hasBegun = true;
        writeBody(out, body, fail);
      };
      out.once("error", (error: NodeJS.ErrnoException) => {
        // A kept connection that the store had closed meanwhile; it has seen nothing of this request.
        const isStale = out.reusedSocket && error.code === "ECONNRESET" && (body === undefined || !hasBegun);
        if (!isStale || signal?.aborted === true) return fail(error);
        done();
        resolve(send(sent, signal));
      });
      out.once("response", (incoming: IncomingMessage) => {
        stopTimers();
        answer = incoming;
        incoming.once("close", () => {
          done();
          if (!out.writableFinished) out.destroy();
        });
        resolve({
          response: {
            statusCode: incoming.statusCode ?? 0,
            reason: incoming.statusMessage ?? "",
            headers: flat(incoming.headers),
            body: incoming,
          },
        });
      });
      const unconnected = setTimeout(() => fail(named("TimeoutError", `no connection within ${idleMs} ms`)), idleMs);
      timers.push(unconnected);
      out.once("socket", (socket) => {
        clearTimeout(unconnected);
        socket.setTimeout(idleMs).on("timeout", standsStill); // the agent ends it when it has the socket back
        if (!socket.connecting) return;
        const limit = setTimeout(
          () => fail(named("TimeoutError", `no connection within ${CONNECT_LIMIT_MS} ms`)),
          CONNECT_LIMIT_MS,
        );
        timers.push(limit);
        socket.once(isSecure ? "secureConnect" : "connect", () => clearTimeout(limit));
      });
      signal?.addEventListener("abort", stop, { once: true });
      if (signal?.aborted === true) return stop();
      if (!isWaiting) return begin();
      out.once("continue", begin);
      out.once("socket", () => after(CONTINUE_LIMIT_MS, begin));
      out.flushHeaders();
    });
  }

  return {
    metadata: { handlerProtocol: "http/1.1" },
    handle: (sent: Sent, { abortSignal }: { abortSignal?: unknown } = {}) =>
      send(sent, abortSignal instanceof AbortSignal ? abortSignal : undefined),
    destroy() {
      http.destroy();
      https.destroy();
    },
    updateHttpClientConfig: () => undefined,
    httpHandlerConfigs: () => ({}),
  };
}

function writeBody(out: ClientRequest, body: unknown, fail: (error: Error) => void): void {
  if (body instanceof Readable) {
    body.once("error", fail);
    body.pipe(out);
  } else if (body instanceof Uint8Array && body.length > PIECE_BYTES)
    Readable.from(piecesOf(body), { objectMode: false }).pipe(out);
  else if (typeof body === "string" || body instanceof Uint8Array) out.end(body);
  else if (body === undefined) out.end();
  else fail(new TypeError("a body of this kind cannot be sent"));
}

function* piecesOf(bytes: Uint8Array): Generator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += PIECE_BYTES) yield bytes.subarray(at, at + PIECE_BYTES);
}
