// A PostgreSQL, a WAL server and a stream between them, as the sidecar runs it.
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import type { ClientConfig } from "../../src/config/config.ts";
import type { LocalPostgres } from "../../src/demo/local-postgres.ts";
import { type RunningStream, type StreamTiming, startWalStream } from "../../src/roles/wal-stream.ts";
import { noTelemetry, type Telemetry } from "../../src/telemetry/telemetry.ts";
import { eventually } from "./eventually.ts";
import { type TestLog, testLog } from "./test-log.ts";
import type { TestWalServer } from "./wal-server.ts";
import { read } from "./wal-store.ts";

/** Short waits, so that a test sees several of them. */
const quick: Partial<StreamTiming> = {
  backoff: { firstMs: 50, factor: 2, limitMs: 400 },
  blockedRecheckMs: 400,
  slotPollMs: 200,
};

export function streamConfig(
  postgres: LocalPostgres,
  server: Pick<TestWalServer, "server" | "certificates">,
  { cluster = "alpha", ...source }: Partial<NonNullable<ClientConfig["source"]>> & { cluster?: string } = {},
): ClientConfig {
  const { cert, key } = server.certificates.client(cluster);
  return {
    clusterName: cluster,
    source: {
      dsn: postgres.replicationDsn,
      standardDsn: postgres.dsn,
      slot: "klio",
      standbyMessageTimeoutMs: 10_000,
      bufferBytes: 2 << 20,
      gapPolicy: "block",
      ...source,
    },
    wal: {
      serverCertPath: server.certificates.server.cert,
      clientCertPath: cert,
      clientKeyPath: key,
      address: server.server.address,
    },
    tier1Retention: {},
    tier2Retention: {},
    tier1Enabled: true,
    tier2BackupEnabled: false,
    tier2RecoveryEnabled: false,
    walPrefetch: { count: 0, maxConcurrentDownloads: 1 },
  };
}

export type TestStream = RunningStream & { log: TestLog; [Symbol.asyncDispose](): Promise<void> };

export async function startStream(
  config: ClientConfig,
  options: { timing?: Partial<StreamTiming>; primary?: boolean; telemetry?: Telemetry } = {},
): Promise<TestStream> {
  const log = testLog();
  const stream = await startWalStream({
    config,
    telemetry: options.telemetry ?? noTelemetry(),
    log,
    primary: options.primary ?? true,
    timing: { ...quick, ...options.timing },
  });
  return { ...stream, log, [Symbol.asyncDispose]: () => stream.stop() };
}

/** Positions of the stream as PostgreSQL knows them, and its own end of WAL. */
export async function replication(postgres: LocalPostgres): Promise<Record<string, string> | undefined> {
  const [row] = await postgres.query(
    "select sent_lsn::text as sent, write_lsn::text as write, flush_lsn::text as flush, replay_lsn::text as replay, sync_state, state, pg_current_wal_flush_lsn()::text as own from pg_stat_replication where application_name = 'klio' order by state = 'startup'",
  );
  return row as Record<string, string> | undefined;
}

/** Waits until everything that PostgreSQL has flushed is confirmed. */
export function caughtUp(postgres: LocalPostgres, timeoutMs = 30_000): Promise<Record<string, string>> {
  return eventually(
    async () => {
      const row = await replication(postgres);
      return row !== undefined && row.flush === row.own ? row : undefined;
    },
    { timeoutMs, what: "a confirmed end of WAL" },
  );
}

/** Ends the current segment, with something in it. */
export async function switchSegment(postgres: LocalPostgres): Promise<void> {
  await postgres.query("select pg_logical_emit_message(false, 'klio', repeat('x', 1000))");
  await postgres.query("select pg_switch_wal()");
}

/**
 * Compares stored segments with pg_wal: whole ones byte for byte, unfinished ones as far as they go. Returns the names of
 * the whole ones. `from` leaves out older timelines: beyond the point of a promotion the source's files differ from what
 * the old primary went on to write, until a checkpoint removes them.
 */
export async function compareWithPgWal(
  postgres: LocalPostgres,
  { store }: Pick<TestWalServer, "store">,
  { from = "" } = {},
): Promise<string[]> {
  const directory = join(postgres.dataDirectory, "pg_wal");
  const own = new Set(readdirSync(directory));
  const whole: string[] = [];
  for (const { name } of await store.list("alpha")) {
    const bare = name.replace(/\.partial$/, "");
    if (!own.has(bare) || bare < from) continue;
    const [stored, source] = [await read(store, "alpha", name), readFileSync(join(directory, bare))];
    if (stored === undefined) throw new Error(`${name} is gone`);
    if (name === bare && stored.length !== source.length)
      throw new Error(`${name} has ${stored.length} bytes, the source's ${source.length}`);
    if (!stored.equals(source.subarray(0, stored.length))) throw new Error(`${name} differs from the source's`);
    if (name === bare) whole.push(name);
  }
  return whole;
}
