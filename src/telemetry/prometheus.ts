// The Prometheus endpoint: a metric reader with its own HTTP server.
import { lookup } from "node:dns/promises";
import {
  createServer,
  type IncomingMessage,
  type OutgoingHttpHeaders,
  type Server,
  type ServerResponse,
} from "node:http";
import { promisify } from "node:util";
import { gzip } from "node:zlib";
import { AggregationTemporality, InstrumentType, MetricReader } from "@opentelemetry/sdk-metrics";
import { errorText, KlioError } from "../errors.ts";
import { handlerErrors, prometheusText, type TextFormat } from "./prometheus-text.ts";

const compress = promisify(gzip);
/** A slow callback must not hold the scrape up: what is there by then is served. */
const COLLECT_TIMEOUT_MS = 5_000;
const CONTENT_TYPE: Record<TextFormat, string> = {
  text: "text/plain; version=0.0.4; charset=utf-8; escaping=underscores",
  openmetrics: "application/openmetrics-text; version=1.0.0; charset=utf-8; escaping=underscores",
};

/**
 * Observable gauges as deltas, which for gauges only means that a series is not exported any more once nobody observes it:
 * the snapshots of a removed cluster would stay for ever otherwise.
 */
export function temporalityOf(type: InstrumentType): AggregationTemporality {
  return type === InstrumentType.OBSERVABLE_GAUGE ? AggregationTemporality.DELTA : AggregationTemporality.CUMULATIVE;
}

/** The format the client likes best, by the order and the weights of its Accept header. */
export function formatFor(accept: string | undefined): TextFormat {
  let best: { format: TextFormat; weight: number } = { format: "text", weight: 0 };
  for (const part of (accept ?? "").split(",")) {
    const [type = "", ...parameters] = part.split(";").map((text) => text.trim());
    const weight = Number(parameters.find((text) => text.startsWith("q="))?.slice(2) ?? 1);
    const version = parameters.find((text) => text.startsWith("version="))?.slice(8);
    const isOpen =
      type === "application/openmetrics-text" && (version === undefined || /^(0\.0\.1|1\.0\.0)$/.test(version));
    if (isOpen && weight > best.weight) best = { format: "openmetrics", weight };
    if (type === "text/plain" && weight > best.weight) best = { format: "text", weight };
  }
  return best.format;
}

export class PrometheusReader extends MetricReader {
  #server: Server | undefined;
  readonly #running = new Map<TextFormat, Promise<Buffer>>();
  readonly #errors = { gathering: 0, encoding: 0 };

  constructor() {
    super({ aggregationTemporalitySelector: temporalityOf });
  }

  protected override async onForceFlush(): Promise<void> {
    // There is nothing to flush: a scrape collects.
  }

  protected override async onShutdown(): Promise<void> {
    this.#server?.close();
    this.#server?.closeAllConnections();
  }

  /**
   * Resolves with the address in use (an IPv4 one when the name has both). Rejects with KLIO-PORT-BUSY, or KLIO-CONFIG for an
   * address that cannot be.
   */
  async listen(host: string, port: number): Promise<{ host: string; port: number }> {
    const server = createServer((request, response) => void this.#answer(request, response));
    try {
      const { address } = await lookup(host, { order: "ipv4first" });
      await new Promise<void>((resolve, reject) => {
        server.once("error", reject);
        server.listen({ host: address, port }, resolve);
      });
    } catch (cause) {
      const where = `OTEL_EXPORTER_PROMETHEUS_HOST=${host} and OTEL_EXPORTER_PROMETHEUS_PORT=${port}`;
      const isBusy = cause instanceof Error && "code" in cause && cause.code === "EADDRINUSE";
      const needed = isBusy ? "a free port" : "a name or an address of this machine";
      throw new KlioError(
        isBusy ? "KLIO-PORT-BUSY" : "KLIO-CONFIG",
        `metrics cannot be served at ${where}: ${errorText(cause)}; ${needed} is accepted`,
        { cause },
      );
    }
    server.unref();
    this.#server = server;
    const address = server.address();
    return { host, port: typeof address === "object" && address !== null ? address.port : port };
  }

  /** Scrapes at the same time share one collection. */
  #page(format: TextFormat): Promise<Buffer> {
    const running = this.#running.get(format);
    if (running !== undefined) return running;
    const page = this.#render(format).finally(() => this.#running.delete(format));
    this.#running.set(format, page);
    return page;
  }

  async #render(format: TextFormat): Promise<Buffer> {
    const { resourceMetrics, errors } = await this.collect({ timeoutMillis: COLLECT_TIMEOUT_MS });
    this.#errors.gathering += errors.length;
    return Buffer.from(prometheusText(resourceMetrics, format, [handlerErrors(this.#errors)]));
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    if ((request.url ?? "").split("?")[0] !== "/metrics") {
      response.writeHead(404, { "content-type": "text/plain" }).end("metrics are at /metrics\n");
      return;
    }
    if (request.method !== "GET" && request.method !== "HEAD") {
      response.writeHead(405, { allow: "GET, HEAD" }).end();
      return;
    }
    try {
      const format = formatFor(request.headers.accept);
      let body = await this.#page(format);
      const headers: OutgoingHttpHeaders = { "content-type": CONTENT_TYPE[format], vary: "accept, accept-encoding" };
      if (/\bgzip\b/.test(String(request.headers["accept-encoding"] ?? ""))) {
        body = await compress(body, { level: 1 });
        headers["content-encoding"] = "gzip";
      }
      headers["content-length"] = body.length;
      response.writeHead(200, headers).end(request.method === "HEAD" ? undefined : body);
    } catch {
      this.#errors.encoding += 1;
      if (!response.headersSent) response.writeHead(503);
      response.end();
    }
  }
}
