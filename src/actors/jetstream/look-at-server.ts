// Why an external NATS ends a connection without a word: the client tells a client certificate that the server misses, or does not
// trust, as a time-out.
import { createConnection, type Socket } from "node:net";
import { connect as connectTls } from "node:tls";

const LIMIT_MS = 2_000;

type Looked = { kind: "certificateWanted" } | { kind: "certificateRefused"; reason: string } | undefined;
type Files = { ca?: Buffer; cert?: Buffer; key?: Buffer };

/** The greeting of a server, in plain text before any TLS. */
function greeting(socket: Socket): Promise<{ tls_verify?: boolean } | undefined> {
  return new Promise((resolve) => {
    let text = "";
    const take = (chunk: Buffer) => {
      text += chunk.toString("latin1");
      const [, json] = /^INFO (\{.*\})\s*\r\n/.exec(text) ?? [];
      if (json === undefined && text.length < 65_536) return;
      socket.off("data", take).pause();
      try {
        resolve(json === undefined ? undefined : JSON.parse(json));
      } catch {
        resolve(undefined); // no NATS
      }
    };
    socket.on("data", take);
    socket.once("close", () => resolve(undefined));
  });
}

/** One handshake. Undefined when the server has accepted the certificate, or says nothing that would explain it. */
function handshake(socket: Socket, servername: string, files: Files): Promise<Looked> {
  return new Promise((resolve) => {
    const { promise, resolve: end } = Promise.withResolvers<Looked>();
    // The CA is judged by the client itself, in its own words.
    const secure = connectTls({ socket, servername, ...files, rejectUnauthorized: false }, () => {
      secure.write("PING\r\n"); // answered, if only by a refusal, once the certificate is accepted
    });
    secure.once("data", () => end(undefined));
    secure.once("error", (error: NodeJS.ErrnoException & { reason?: string }) =>
      end({ kind: "certificateRefused", reason: `${error.reason ?? error.message} (${error.code})` }),
    );
    secure.once("close", () => end(undefined));
    void promise.then((looked) => {
      secure.destroy();
      resolve(looked);
    });
  });
}

/** Looks at one server, `url` as in queue.url. Never rejects, and takes 2 s at most. */
export async function lookAtServer(url: string, files: Files): Promise<Looked> {
  const { hostname, port } = new URL(url.replace(/^(nats|tls):/, "http:"));
  const host = hostname.replace(/^\[|\]$/g, "");
  const socket = createConnection({ host, port: Number(port || 4222) });
  socket.on("error", () => undefined); // away: there is nothing to be said
  const limit = setTimeout(() => socket.destroy(), LIMIT_MS);
  try {
    const info = await greeting(socket);
    if (info?.tls_verify !== true) return undefined;
    if (files.cert === undefined) return { kind: "certificateWanted" };
    return await handshake(socket, /^[\d.:]+$/.test(host) ? "" : host, files);
  } finally {
    clearTimeout(limit);
    socket.destroy();
  }
}
