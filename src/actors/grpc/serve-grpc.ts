// A gRPC server with mutual TLS, receive windows that suit WAL, the health service and an orderly end. The services
// themselves are given by the callers: WAL of either tier, administration, the sidecar's local control.
import { createPrivateKey, X509Certificate } from "node:crypto";
import { readFile } from "node:fs/promises";
import type { Http2Server, ServerHttp2Session } from "node:http2";
import {
  Server,
  ServerCredentials,
  type ServerInterceptor,
  type ServiceDefinition,
  type UntypedServiceImplementation,
} from "@grpc/grpc-js";
import { HealthImplementation } from "grpc-health-check";
import type { Log } from "../../domain/log.ts";
import { errorText, KlioError } from "../../errors.ts";
import { MAX_MESSAGE_BYTES } from "../../wire/wal-message.ts";
import { bindError } from "./classify.ts";

/** PEM files: certificate chain and key of the server, and the authorities whose client certificates are accepted. */
export type ServerTlsFiles = { cert: string; key: string; clientCaCert: string };

type GrpcService = { name: string; definition: ServiceDefinition; implementation: UntypedServiceImplementation };

export type GrpcServerOptions = {
  /** `host:port` (an empty host is every interface, port 0 any), or `unix:/path`. */
  listenAddress: string;
  /** Absent: no TLS, for sockets of this machine only. */
  tls?: ServerTlsFiles;
  services: readonly GrpcService[];
  interceptors: ServerInterceptor[];
  log: Log;
};

export type GrpcServer = {
  /** Where it listens, with the port that was given. */
  address: string;
  port: number;
  /** Tells health watchers; `false` while draining. */
  setServing(serving: boolean): void;
  /** Refuses new calls, waits for the running ones at most `graceMs`, then cuts them. Safe to call twice. */
  close(graceMs: number): Promise<void>;
};

/** What a client may have on its way to us: bounds memory, and throughput over distance. */
const STREAM_WINDOW_BYTES = 8 << 20;
/** The same for all clients together, shared out between their connections as they come and go. */
const ALL_WINDOWS_BYTES = 32 << 20;
const CONNECTION_WINDOW = { least: 1 << 20, most: 16 << 20 };

/** Streams of one client at a time: its segments, its restores, and nothing that could exhaust us. */
const MAX_STREAMS = 100;
/** A peer that is gone must free its files: pinged after this silence, dropped without an answer. */
const KEEPALIVE_MS = 10_000;
const KEEPALIVE_TIMEOUT_MS = 10_000;
/** A connection that is cut ends at once, or never: over TLS, node:http2 may not see the end of one that was reset while it wrote. */
const CUT_MS = 1_000;

/**
 * grpc-js has no public option for a server's receive window (64 KiB by default, which costs half the throughput on
 * loopback and nearly all of it over distance). Private fields of the pinned version, guarded: false when they are gone.
 */
function widenStreamWindow(server: Server): boolean {
  const options: unknown = Reflect.get(server, "commonServerOptions");
  if (typeof options !== "object" || options === null) return false;
  const settings: unknown = Reflect.get(options, "settings");
  return Reflect.set(options, "settings", {
    ...(typeof settings === "object" ? settings : {}),
    initialWindowSize: STREAM_WINDOW_BYTES,
  });
}

function widenConnectionWindow(server: Server): boolean {
  const servers: unknown = Reflect.get(server, "http2Servers");
  if (!(servers instanceof Map) || servers.size === 0) return false;
  const sessions = new Set<ServerHttp2Session>();
  // A client hears of a larger share with the next frame that goes to it.
  const share = () => {
    const { least, most } = CONNECTION_WINDOW;
    const bytes = Math.max(least, Math.min(most, Math.floor(ALL_WINDOWS_BYTES / sessions.size)));
    for (const session of sessions) if (!session.destroyed) session.setLocalWindowSize(bytes);
  };
  for (const http2 of servers.keys() as Iterable<Http2Server>)
    http2.on("session", (session: ServerHttp2Session) => {
      sessions.add(session);
      session.once("close", () => {
        sessions.delete(session);
        share();
      });
      share();
    });
  return true;
}

async function readPem(file: string): Promise<Buffer> {
  try {
    const pem = await readFile(file);
    if (!pem.includes("-----BEGIN ")) throw new Error("not a PEM file");
    return pem;
  } catch (cause) {
    throw new KlioError("KLIO-CERTIFICATE", `cannot use ${file}: ${errorText(cause)}`, { cause });
  }
}

async function credentialsOf(tls: ServerTlsFiles | undefined): Promise<ServerCredentials> {
  if (tls === undefined) return ServerCredentials.createInsecure();
  const [ca, cert, key] = await Promise.all([readPem(tls.clientCaCert), readPem(tls.cert), readPem(tls.key)]);
  try {
    if (!new X509Certificate(cert).checkPrivateKey(createPrivateKey(key)))
      throw new Error("the key is not that of the certificate");
    return ServerCredentials.createSsl(ca, [{ private_key: key, cert_chain: cert }], true);
  } catch (cause) {
    throw new KlioError("KLIO-CERTIFICATE", `${tls.cert} and ${tls.key}: ${errorText(cause)}`, { cause });
  }
}

/** Can these files be served with? Rejects with KLIO-CERTIFICATE. */
export async function checkServerTls(tls: ServerTlsFiles): Promise<void> {
  await credentialsOf(tls);
}

/** ":52000" as Go programs write it means every interface. */
function bindAddress(listenAddress: string): string {
  return listenAddress.startsWith(":") ? `[::]${listenAddress}` : listenAddress;
}

/** Rejects with KLIO-CERTIFICATE, KLIO-PORT-BUSY or KLIO-CONFIG. The caller closes it. */
export async function serveGrpc(options: GrpcServerOptions): Promise<GrpcServer> {
  const { log } = options;
  const server = new Server({
    "grpc.max_receive_message_length": MAX_MESSAGE_BYTES,
    "grpc.max_send_message_length": MAX_MESSAGE_BYTES,
    "grpc.max_concurrent_streams": MAX_STREAMS,
    "grpc.keepalive_time_ms": KEEPALIVE_MS,
    "grpc.keepalive_timeout_ms": KEEPALIVE_TIMEOUT_MS,
    interceptors: options.interceptors,
  });
  const health = new HealthImplementation({ "": "SERVING" });
  health.addToServer(server);
  for (const service of options.services) {
    server.addService(service.definition, service.implementation);
    health.setStatus(service.name, "SERVING");
  }
  const isStreamWide = widenStreamWindow(server);
  const credentials = await credentialsOf(options.tls);
  const port = await new Promise<number>((resolve, reject) =>
    server.bindAsync(bindAddress(options.listenAddress), credentials, (error, bound) =>
      error === null ? resolve(bound) : reject(bindError(error, options.listenAddress)),
    ),
  );
  if (!widenConnectionWindow(server) || !isStreamWide)
    log.warn("grpc.window.default", "this version of grpc-js keeps its small receive window; uploads will be slow");
  const isSocket = options.listenAddress.startsWith("unix:");
  const host = options.listenAddress.slice(0, options.listenAddress.lastIndexOf(":"));
  const setServing = (serving: boolean) => {
    for (const name of ["", ...options.services.map((service) => service.name)])
      health.setStatus(name, serving ? "SERVING" : "NOT_SERVING");
  };
  let closing: Promise<void> | undefined;
  return {
    address: isSocket ? options.listenAddress : `${host}:${port}`,
    port,
    setServing,
    close(graceMs) {
      closing ??= new Promise((resolve) => {
        setServing(false);
        const done = () => {
          clearTimeout(timer);
          server.forceShutdown(); // connections without calls
          resolve();
        };
        let timer = setTimeout(() => {
          server.forceShutdown();
          timer = setTimeout(done, CUT_MS);
        }, graceMs);
        server.tryShutdown(done);
      });
      return closing;
    },
  };
}
