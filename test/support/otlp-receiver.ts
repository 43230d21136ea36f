// A collector on a true socket: OTLP over gRPC and over http/protobuf, with mutual TLS, that can refuse, hang or answer
// garbage. What it got is kept as bytes; texts in protobuf are plain, so a test can look for names in them.
import { readFileSync } from "node:fs";
import { createServer, type Server as HttpsServer } from "node:https";
import type { TLSSocket } from "node:tls";
import { gunzipSync } from "node:zlib";
import { Server, ServerCredentials, type ServerUnaryCall, type sendUnaryData, status } from "@grpc/grpc-js";

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

const SERVICES = {
  "/opentelemetry.proto.collector.trace.v1.TraceService/Export": "trace.v1.TraceService",
  "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export": "metrics.v1.MetricsService",
};
const raw = (bytes: Buffer) => bytes;

/** Common name in the subject of the call's client certificate. */
function commonName(subject: unknown): string {
  return typeof subject === "object" && subject !== null && "CN" in subject ? String(subject.CN) : "";
}

export async function otlpOverGrpc(tls: ReceiverTls): Promise<OtlpReceiver> {
  const requests: Received[] = [];
  let behaviour: Behaviour = "accept";
  const server = new Server();
  for (const [path, name] of Object.entries(SERVICES))
    server.addService(
      {
        Export: {
          path,
          requestStream: false,
          responseStream: false,
          requestSerialize: raw,
          requestDeserialize: raw,
          responseSerialize: raw,
          responseDeserialize: raw,
          originalName: `${name}.Export`,
        },
      },
      {
        Export: (call: ServerUnaryCall<Buffer, Buffer>, answer: sendUnaryData<Buffer>) => {
          const headers = Object.fromEntries(
            Object.entries(call.metadata.getMap()).map(([key, value]) => [key, String(value)]),
          );
          const peer = commonName(call.getAuthContext().sslPeerCertificate?.subject);
          requests.push({ path, body: call.request, headers, peer, isPacked: headers["grpc-encoding"] === "gzip" });
          if (behaviour === "accept") answer(null, Buffer.alloc(0));
          else if (behaviour === "garbage") answer(null, Buffer.from([0xff, 0xff, 0xff, 0x01]));
          else if (behaviour === "unavailable") answer({ code: status.UNAVAILABLE, details: "restarting" });
        },
      },
    );
  const [ca, cert, key] = [tls.caCert, tls.server.cert, tls.server.key].map((file) => readFileSync(file));
  const credentials = ServerCredentials.createSsl(ca!, [{ private_key: key!, cert_chain: cert! }], true);
  const port = await new Promise<number>((resolve, reject) =>
    server.bindAsync("localhost:0", credentials, (error, bound) => (error === null ? resolve(bound) : reject(error))),
  );
  return {
    port,
    requests,
    behave: (next) => {
      behaviour = next;
    },
    async [Symbol.asyncDispose]() {
      server.forceShutdown();
    },
  };
}

export async function otlpOverHttp(tls: ReceiverTls): Promise<OtlpReceiver> {
  const requests: Received[] = [];
  let behaviour: Behaviour = "accept";
  const server: HttpsServer = createServer(
    {
      ca: readFileSync(tls.caCert),
      cert: readFileSync(tls.server.cert),
      key: readFileSync(tls.server.key),
      requestCert: true,
      rejectUnauthorized: true,
    },
    async (request, response) => {
      const chunks: Buffer[] = [];
      for await (const chunk of request) chunks.push(chunk);
      const isPacked = request.headers["content-encoding"] === "gzip";
      const sent = Buffer.concat(chunks);
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
