// What a restore_command runs, once per WAL file. Most calls of a recovery find their file in the spool: these load neither
// the configuration nor the network code, so modules that do are imported where they are needed.
import { spawn } from "node:child_process";
import { dirname, extname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { askPrefetcher, socketPath } from "../actors/wal-fetch/fetch-socket.ts";
import { makeSpool, spoolFor, takeSpooled } from "../actors/wal-fetch/spool.ts";
import type { ClientConfig, Environment } from "../config/config.ts";
import type { Log } from "../domain/log.ts";
import { requireWalName } from "../domain/wal-segment.ts";
import type { WalFetchOutput } from "../machines/wal-fetch.machine.ts";
import type { AskedTier, WalFetcherOptions } from "./wal-fetch.ts";

export type GetWalOptions = {
  name: string;
  file: string;
  tier: AskedTier;
  partial: boolean;
  attempts: number;
  /** Absolute path of the file that `loadConfig` reads; undefined: the default one, or the environment alone. */
  configFile?: string;
  loadConfig: () => Promise<ClientConfig>;
  logLevel: string;
  stderr: NodeJS.WritableStream & { isTTY?: boolean };
  env: Environment;
  signal: AbortSignal;
};

const FIRST_WAIT_MS = 500;
const WAIT_LIMIT_MS = 8_000;
/** The prefetcher ends when a recovery asked for nothing during so long. */
const IDLE_MS = 60_000;

const openLog = async ({ stderr, logLevel }: GetWalOptions): Promise<Log> =>
  (await import("./command-log.ts")).commandLog(stderr, logLevel);
const originOf = ({ tier, configFile }: Pick<GetWalOptions, "tier" | "configFile">) => `${tier} ${configFile ?? ""}`;

/** Rejects with KLIO-NAME-INVALID, KLIO-CONFIG or KLIO-TIER-MISSING, or a bug; all else is told in the answer. */
export async function getWal(options: GetWalOptions): Promise<WalFetchOutput> {
  const { name, partial, signal } = options;
  const { kind } = requireWalName(name);
  const file = resolve(options.file);
  const spool = spoolFor(file);
  if (spool !== undefined && (await takeSpooled(spool, name, file)))
    return { kind: "fetched", from: "spool", partial: false, bytes: 0, segmentBytes: 0 };
  const socket = spool === undefined ? undefined : socketPath(spool, process.cwd());
  const request = { name, file, partial, origin: originOf(options) };
  const reply = socket === undefined ? undefined : await askPrefetcher(socket, request, signal);
  if (reply?.kind === "fetched" || reply?.kind === "missing") return reply;

  const { openWalFetcher } = await import("./wal-fetch.ts");
  const settings = await fetcherOptions(options, options.attempts);
  await using fetcher = await openWalFetcher({
    ...settings,
    prefetch: { ...settings.prefetch, count: 0 },
    ...(spool !== undefined && { spool }),
  });
  const output = await fetcher.fetch({ name, file, partial, signal });
  const isWanted = kind === "segment" && output.kind === "fetched" && !output.partial && settings.prefetch.count > 0;
  if (isWanted && spool !== undefined && reply === undefined) await leaveBehind(options, spool, output.segmentBytes);
  return output;
}

async function fetcherOptions(options: GetWalOptions, attempts: number): Promise<WalFetcherOptions> {
  const [config, log] = [await options.loadConfig(), await openLog(options)];
  const { walTiers } = await import("./wal-fetch.ts");
  const { noTelemetry } = await import("../telemetry/telemetry.ts");
  const tiers = walTiers(config, options.tier);
  const { serverCertPath = "", clientCertPath = "", clientKeyPath = "" } = config.wal ?? {};
  return {
    clusterName: config.clusterName,
    tls: { serverCertPath, clientCertPath, clientKeyPath },
    tiers,
    prefetch: config.walPrefetch,
    attempts: { max: attempts, firstMs: FIRST_WAIT_MS, limitMs: WAIT_LIMIT_MS },
    telemetry: noTelemetry({}),
    log,
  };
}

/** Starts the prefetcher, detached: it must outlive this process, and the recovery must not wait for it. */
async function leaveBehind(options: GetWalOptions, spool: string, segmentBytes: number): Promise<void> {
  const log = await openLog(options);
  await makeSpool(spool);
  const own = fileURLToPath(import.meta.url);
  const main = join(dirname(own), "..", `main${extname(own)}`);
  const config = options.configFile === undefined ? [] : ["--config", options.configFile];
  const rest = ["--prefetcher", String(segmentBytes), "--tier", options.tier, options.name, spool];
  const child = spawn(process.execPath, [main, ...config, "get-wal", ...rest], {
    cwd: spool,
    env: { ...options.env },
    detached: true,
    stdio: "ignore",
  });
  child.once("error", (error) => log.warn("wal.prefetch.failed", `cannot fetch ahead: ${error.message}`));
  child.unref();
}

/** The prefetcher's own process; `name` was handed out last, `file` is the spool. */
export async function stayBehind(options: GetWalOptions, segmentBytes: number): Promise<void> {
  const { runPrefetchDaemon } = await import("./prefetch-daemon.ts");
  await runPrefetchDaemon({
    ...(await fetcherOptions(options, 1)),
    spool: resolve(options.file),
    origin: originOf(options),
    after: options.name,
    segmentBytes,
    idleMs: IDLE_MS,
    signal: options.signal,
  });
}
