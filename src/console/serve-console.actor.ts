// One HTTP server for people and probes: the console, `/healthz` (the process lives) and `/readyz` (all parts serve).
// No TLS and no login: it listens on loopback unless configured otherwise, shows no secrets and changes nothing.
//   M5. Only GET and HEAD are answered; a request changes nothing.
//   M6. On loopback only requests for an address or for localhost are answered: a foreign page whose name was made to
//       point here (DNS rebinding) reads nothing.
//   M7. `/healthz` is 200 while the process lives; `/readyz` is 200 when all parts serve, else 503, and names them.
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import { type AddressInfo, isIP } from "node:net";
import type { Log } from "../domain/log.ts";
import { errorText, KlioError } from "../errors.ts";
import type { Console } from "./console.ts";

export type ConsoleReadiness = { ready: boolean; parts: readonly { name: string; ready: boolean; detail: string }[] };
export type ServeConsoleOptions = {
  /** `host:port`, `[v6]:port` or `:port` (every interface); port 0: any free one. */
  listenAddress: string;
  console: Console;
  /** Asked at each `/readyz`. */
  readiness: () => ConsoleReadiness;
  log: Log;
};
export type ConsoleServer = {
  /** `host:port` as it can be dialled, with the port that was given. */
  address: string;
  /** Ends open pages, refuses new ones; resolves when the port is free. Safe to call twice. */
  close(): Promise<void>;
};

function splitAddress(listenAddress: string): { host: string; port: number } {
  const colon = listenAddress.lastIndexOf(":");
  const digits = listenAddress.slice(colon + 1);
  const port = Number(digits);
  if (colon < 0 || !/^\d{1,5}$/.test(digits) || port > 65_535)
    throw new KlioError("KLIO-CONFIG", `console_listen_address: "${listenAddress}" is not host:port`);
  return { host: listenAddress.slice(0, colon).replace(/^\[|\]$/g, ""), port };
}

function dialable({ address, family, port }: AddressInfo): string {
  return family === "IPv6" ? `[${address}]:${port}` : `${address}:${port}`;
}

/** Whether a page at `Host: ${host}` may read what is served on the loopback interface. */
function isLocalName(host: string): boolean {
  const name = host.replace(/:\d*$/, "").toLowerCase();
  return name === "localhost" || name.endsWith(".localhost") || isIP(name.replace(/^\[|\]$/g, "")) !== 0;
}

const isLoopback = (address: string) => address === "::1" || /^(::ffff:)?127\./.test(address);

function bindError(error: unknown, listenAddress: string): unknown {
  const code = error instanceof Error && "code" in error ? error.code : undefined;
  if (code === "EADDRINUSE")
    return new KlioError("KLIO-PORT-BUSY", `console_listen_address: ${listenAddress} is in use`, { cause: error });
  if (code === "EADDRNOTAVAIL" || code === "ENOTFOUND" || code === "EACCES")
    return new KlioError(
      "KLIO-CONFIG",
      `console_listen_address: cannot listen on ${listenAddress}: ${errorText(error)}`,
    );
  return error;
}

function answer(response: ServerResponse, status: number, type: string, body: string, headers = {}): void {
  response.writeHead(status, {
    "content-type": `${type}; charset=utf-8`,
    "content-length": Buffer.byteLength(body),
    "cache-control": "no-store",
    "x-content-type-options": "nosniff",
    ...headers,
  });
  response.end(body);
}

/** Rejects with KLIO-PORT-BUSY or KLIO-CONFIG. Owns the server, and the console's pages once it is closed. */
export async function serveConsole(options: ServeConsoleOptions): Promise<ConsoleServer> {
  const { console, listenAddress, log, readiness } = options;
  let isSheltered = true;

  const route = (request: IncomingMessage, response: ServerResponse) => {
    if (request.method !== "GET" && request.method !== "HEAD")
      return answer(response, 405, "text/plain", "only GET: the console changes nothing\n", { allow: "GET, HEAD" });
    // Without the header it is no browser.
    if (isSheltered && !isLocalName(request.headers.host ?? "localhost"))
      return answer(response, 421, "text/plain", "listening on loopback: ask for localhost or an address\n");
    const [path] = (request.url ?? "/").split("?", 1);
    if (path === "/healthz") return answer(response, 200, "text/plain", "ok\n");
    if (path === "/readyz") {
      const state = readiness();
      return answer(response, state.ready ? 200 : 503, "application/json", `${JSON.stringify(state)}\n`);
    }
    if (!console.handle(request, response)) answer(response, 404, "text/plain", "not found\n");
  };

  const server = createServer((request, response) => {
    try {
      route(request, response);
    } catch (error) {
      log.warn("console.request.failed", `cannot answer a request of the console: ${errorText(error)}`);
      response.destroy();
    }
  });
  const { host, port } = splitAddress(listenAddress);
  await new Promise<void>((resolve, reject) => {
    server.once("error", (error) => reject(bindError(error, listenAddress)));
    server.listen({ port, ...(host !== "" && { host }) }, resolve);
  });
  server.on("error", (error) => log.warn("console.server.failed", `console: ${errorText(error)}`));
  const bound = server.address();
  if (bound === null || typeof bound === "string") throw new KlioError("KLIO-BUG", "the console listens on no port");
  isSheltered = isLoopback(bound.address);
  const address = dialable(bound);
  log.info("console.listening", `the console is at http://${address}/`, { address });

  let closing: Promise<void> | undefined;
  return {
    address,
    close: () => {
      closing ??= new Promise<void>((resolve) => {
        server.close(() => resolve());
        console.close();
        server.closeAllConnections();
      });
      return closing;
    },
  };
}
