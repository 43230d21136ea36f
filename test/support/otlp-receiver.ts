// A collector on a true socket: OTLP over gRPC and over http/protobuf, with mutual TLS, that can refuse, hang or answer
// garbage. What it got is kept as bytes: otlp-decode.ts reads them, and texts in protobuf are plain, so a test can look for
// names in them.
import { readFileSync } from "node:fs";
import { createSecureServer, type ServerHttp2Session, type ServerHttp2Stream } from "node:http2";
import { createServer, type Server as HttpsServer } from "node:https";
import type { TLSSocket } from "node:tls";
import { gunzipSync } from "node:zlib";

type Received = {
  /** "/v1/traces", or the gRPC method. */
  path: string;
  body: Buffer;
  headers: Record<string, string>;
  /** Common name of the client's certificate. */
  peer: string;
  isPacked: boolean;
};
export type ReceiverTls = { caCert: string; server: { cert: string; key: string } };
type Behaviour = "accept" | "unavailable" | "hang" | "garbage";
export type OtlpReceiver = AsyncDisposable & {
  port: number;
  requests: Received[];
  behave(behaviour: Behaviour): void;
};

/** Common name in the subject of a client certificate. */
function commonName(subject: unknown): string {
  return typeof subject === "object" && subject !== null && "CN" in subject ? String(subject.CN) : "";
}

async function bytesOf(stream: AsyncIterable<Buffer>): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of stream) chunks.push(chunk);
  return Buffer.concat(chunks);
}

const UNAVAILABLE = { "grpc-status": "14", "grpc-message": "restarting" };

/** gRPC as it is on the wire, so that a test sees what a library takes out: encoding, and the mark of a packed message. */
function answerCall(stream: ServerHttp2Stream, behaviour: Behaviour): void {
  const head = { ":status": 200, "content-type": "application/grpc" };
  if (behaviour === "hang") return;
  if (behaviour === "unavailable") {
    stream.respond({ ...head, ...UNAVAILABLE }, { endStream: true });
    return;
  }
  stream.respond(head, { waitForTrailers: true });
  stream.on("wantTrailers", () => stream.sendTrailers({ "grpc-status": "0" }));
  const answer = behaviour === "garbage" ? Buffer.from([0xff, 0xff, 0xff, 0x01]) : Buffer.alloc(0);
  const frame = Buffer.alloc(5);
  frame.writeUInt32BE(answer.length, 1);
  stream.end(Buffer.concat([frame, answer]));
}

export async function otlpOverGrpc(tls: ReceiverTls): Promise<OtlpReceiver> {
  const requests: Received[] = [];
  const sessions = new Set<ServerHttp2Session>();
  let behaviour: Behaviour = "accept";
  const server = createSecureServer({ ...certificatesOf(tls), requestCert: true, rejectUnauthorized: true });
  server.on("session", (session) => {
    sessions.add(session);
    session.on("close", () => sessions.delete(session));
  });
  server.on("stream", async (stream, received) => {
    stream.on("error", () => stream.close()); // the exporter gave up
    const sent = await bytesOf(stream).catch(() => undefined);
    if (sent === undefined) return;
    const isPacked = sent[0] === 1;
    const message = sent.subarray(5);
    const peer = commonName((stream.session?.socket as TLSSocket | undefined)?.getPeerCertificate().subject);
    const headers = Object.fromEntries(Object.entries(received).map(([key, value]) => [key, String(value)]));
    const path = headers[":path"] ?? "";
    requests.push({ path, body: isPacked ? gunzipSync(message) : message, headers, peer, isPacked });
    answerCall(stream, behaviour);
  });
  await new Promise<void>((resolve) => server.listen(0, "localhost", resolve));
  const address = server.address();
  return {
    port: typeof address === "object" && address !== null ? address.port : 0,
    requests,
    behave: (next) => {
      behaviour = next;
    },
    async [Symbol.asyncDispose]() {
      for (const session of sessions) session.destroy();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

const certificatesOf = ({ caCert, server }: ReceiverTls) => ({
  ca: readFileSync(caCert),
  cert: readFileSync(server.cert),
  key: readFileSync(server.key),
});

export async function otlpOverHttp(tls: ReceiverTls): Promise<OtlpReceiver> {
  const requests: Received[] = [];
  let behaviour: Behaviour = "accept";
  const server: HttpsServer = createServer(
    { ...certificatesOf(tls), requestCert: true, rejectUnauthorized: true },
    async (request, response) => {
      const isPacked = request.headers["content-encoding"] === "gzip";
      const sent = await bytesOf(request);
      const headers = Object.fromEntries(Object.entries(request.headers).map(([key, value]) => [key, String(value)]));
      const peer = commonName((request.socket as TLSSocket).getPeerCertificate().subject);
      requests.push({ path: request.url ?? "", body: isPacked ? gunzipSync(sent) : sent, headers, peer, isPacked });
      if (behaviour === "hang") return;
      if (behaviour === "garbage") response.writeHead(200, { "content-type": "text/html" }).end("<html>\xff</html>");
      else response.writeHead(behaviour === "accept" ? 200 : 503).end();
    },
  );
  await new Promise<void>((resolve) => server.listen(0, "localhost", resolve));
  const address = server.address();
  return {
    port: typeof address === "object" && address !== null ? address.port : 0,
    requests,
    behave: (next) => {
      behaviour = next;
    },
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      server.close();
    },
  };
}
