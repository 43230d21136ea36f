// The whole story: stream under load, back up, relay, lose the primary, recover from each tier, compare every row.
import { chmodSync, existsSync, mkdirSync, mkdtempSync, renameSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import type { Environment } from "../config/config.ts";
import { klio } from "../demo/klio-command.ts";
import { type Load, startLoad } from "../demo/load.ts";
import type { LocalPostgres, PostgresVersion } from "../demo/local-postgres.ts";
import { createNarrator, type Narrator } from "../demo/narrator.ts";
import { type PointInTime, type Recovery, recover } from "../demo/recovery.ts";
import { type DemoFigures, formatTable, holds, tierFigures } from "../demo/report.ts";
import { POSTGRES_SETTINGS, type Stage, setStage } from "../demo/stage.ts";
import { bytesBelow, isRelayed, isTier2Complete } from "../demo/tiers.ts";
import { errorText, exitStatus, KlioError } from "../errors.ts";

export type DemoOptions = {
  once: boolean;
  json: boolean;
  version: PostgresVersion;
  directory?: string;
  env: Environment;
  stdout: NodeJS.WritableStream;
  stderr: NodeJS.WritableStream & { isTTY?: boolean };
  signal: AbortSignal;
};

const SESSIONS = 4;
/** Rows of ballast, so that a base backup has something to copy: about 35 MB. */
const BALLAST_ROWS = 150_000;
const COMMITS_PER_ACT = 400;
const TIER2_LIMIT_MS = 90_000;
/** How long the demo lets S3 be away before it starts it again. */
const S3_OUTAGE_MS = 5_000;

/** Runs the demo and gives the exit status. Everything it started is ended, and its directory removed unless one was named. */
export async function runDemo(options: DemoOptions): Promise<number> {
  const narrator = createNarrator(options.stderr);
  const directory =
    options.directory === undefined ? mkdtempSync(join(tmpdir(), "klio-demo-")) : resolve(options.directory);
  if (options.directory !== undefined && existsSync(join(directory, "server")))
    throw new KlioError("KLIO-USAGE", `${directory} holds an earlier demo`, {
      hint: "name an empty directory, or remove it first",
    });
  const stop = new AbortController();
  const cancelled = () => {
    narrator.warn("asked to stop: ending everything");
    stop.abort();
  };
  options.signal.addEventListener("abort", cancelled, { once: true });
  if (options.signal.aborted) stop.abort();
  const stack = new AsyncDisposableStack();
  if (options.directory === undefined)
    stack.defer(() => rmSync(directory, { recursive: true, force: true, maxRetries: 5 }));
  try {
    mkdirSync(directory, { recursive: true });
    chmodSync(directory, 0o711);
    return await tellStory({ ...options, directory, signal: stop.signal }, narrator, stack);
  } catch (error) {
    if (stop.signal.aborted) return exitStatus.tryAgain;
    throw error;
  } finally {
    options.signal.removeEventListener("abort", cancelled);
    await stack.disposeAsync();
  }
}

type Story = DemoOptions & { directory: string };

async function tellStory(story: Story, narrator: Narrator, stack: AsyncDisposableStack): Promise<number> {
  const started = Date.now();
  const { signal, directory } = story;
  const stage = await setStage({ directory, version: story.version, env: story.env, narrator, stack });
  const faults: string[] = [];

  narrator.step(`load: ${SESSIONS} sessions commit row by row, each commit waits until the server has it on disk`);
  await stage.postgres.query(
    `create table klio_ballast as select i as id, md5(i::text) || md5((i * 7)::text) || repeat('x', 120) as filler from generate_series(1, ${BALLAST_ROWS}) i`,
  );
  const loadStarted = Date.now();
  const load = await startLoad({ dsn: stage.postgres.dsn, sessions: SESSIONS, pauseMs: 2 });
  stack.defer(() => load.stop());
  await load.reached(COMMITS_PER_ACT, signal);
  using watch = watchS3(stage, load, narrator, faults, signal);

  const backup = await takeBackup(stage, load, narrator, signal);
  const relaySeconds = await awaitRelay(stage, backup.name, load, narrator, signal);
  await load.reached(load.ledger.count + COMMITS_PER_ACT, signal);
  const point = await markPointInTime(stage, load, narrator, signal);
  await load.reached(load.ledger.count + COMMITS_PER_ACT, signal);

  const lost = await losePrimary(stage, load, narrator);
  const loadSeconds = (lost.atMs - loadStarted) / 1000;
  const tier2HeldAfter = await awaitTier2(stage, lost.atMs, narrator, faults, signal);
  const common = {
    version: story.version,
    command: { program: stage.program, env: stage.clientEnv, runAs: stage.runAs, signal },
    config: stage.surroundings.sidecarConfig,
    point,
    ledger: load.ledger,
    narrator,
    signal,
  };

  narrator.step("recovering from tier 1: base backup and WAL from the server's local volume");
  const first = await recover({
    ...common,
    directory: join(directory, "recovered-tier1"),
    tier: "tier1",
    port: stage.postgres.port,
    settings: POSTGRES_SETTINGS,
  });
  stack.use(first.postgres);
  await first.postgres.stop();
  const tier1 = tierFigures(first.atPoint, first.atEnd, {
    // No WAL came after the loss: what was found in the end tier 1 held at that moment, and what was not it never did.
    exposureSeconds: first.atEnd.lost === 0 ? 0 : Number.POSITIVE_INFINITY,
    recoverySeconds: first.recoverySeconds,
    storedBytes: stage.surroundings.tier1Directories.reduce((sum, path) => sum + bytesBelow(path), 0),
  });

  narrator.step("losing tier 1: the server's volume is taken away, a server with tier 2 alone takes over");
  const second = tier2HeldAfter === null ? null : await recoverFromTier2(stage, common, directory, narrator, stack);
  const tier2 =
    second === null || tier2HeldAfter === null
      ? null
      : tierFigures(second.atPoint, second.atEnd, {
          exposureSeconds: tier2HeldAfter,
          recoverySeconds: second.recoverySeconds,
          storedBytes: bytesBelow(stage.s3.bucketDirectory),
        });
  const figures: DemoFigures = {
    postgresVersion: story.version,
    commitsAcknowledged: load.ledger.count,
    commitsPerSecond: load.ledger.count / loadSeconds,
    backup,
    relaySeconds,
    tier1,
    tier2,
    faults,
    seconds: (Date.now() - started) / 1000,
    ok: holds(tier1) && holds(tier2),
  };
  watch[Symbol.dispose]();
  story.stderr.write(`${formatTable(figures)}\n`);
  if (story.json) story.stdout.write(`${JSON.stringify(figures, null, 2)}\n`);
  if (!story.once) await stayUp(stage, first.postgres, load, narrator, stack, signal);
  return figures.ok ? exitStatus.done : exitStatus.failed;
}

async function takeBackup(
  stage: Stage,
  load: Load,
  narrator: Narrator,
  signal: AbortSignal,
): Promise<DemoFigures["backup"]> {
  narrator.step("base backup of the running primary by the sidecar: copy, verify every byte, maintenance");
  const since = Date.now();
  const before = load.ledger.count;
  const { program, surroundings, clientEnv: env, runAs } = stage;
  const args = [
    "backup",
    "run",
    "--config",
    surroundings.sidecarConfig,
    "--socket",
    surroundings.sidecarSocket,
    "--enable-tier2-backup",
  ];
  const text = await klio({ program, args, env, runAs, signal, onLine: (line) => narrator.progress(line) });
  const metadata = JSON.parse(text) as { name: string };
  const seconds = (Date.now() - since) / 1000;
  const [size] = await stage.postgres.query("select pg_database_size(current_database())::text as bytes");
  narrator.note(
    `backup ${metadata.name} is complete and verified after ${seconds.toFixed(1)} s; ${load.ledger.count - before} commits meanwhile`,
  );
  return { name: metadata.name, seconds, databaseBytes: Number(size?.bytes) };
}

/** Seconds until the backup was on tier 2. A tier 2 that is down only makes this longer. */
async function awaitRelay(
  stage: Stage,
  backup: string,
  load: Load,
  narrator: Narrator,
  signal: AbortSignal,
): Promise<number> {
  narrator.step("relay of the backup to tier 2: copy, verify, retention");
  const since = Date.now();
  const seconds = () => (Date.now() - since) / 1000;
  while (!(await isRelayed(stage, backup, signal))) {
    if (seconds() * 1000 > TIER2_LIMIT_MS)
      throw new KlioError("KLIO-S3-DOWN", `backup ${backup} did not reach tier 2 within ${TIER2_LIMIT_MS / 1000} s`);
    narrator.progress(
      `not there yet after ${seconds().toFixed(0)} s; ${load.ledger.count} commits acknowledged so far`,
    );
    await pause(250, undefined, { signal });
  }
  narrator.note(`on tier 2 after ${seconds().toFixed(1)} s`);
  return seconds();
}

/** A moment between two commits: the rows of that moment, exactly, and its time on PostgreSQL's clock. */
function markPointInTime(stage: Stage, load: Load, narrator: Narrator, signal: AbortSignal): Promise<PointInTime> {
  return load.pausedDuring(async () => {
    await pause(50, undefined, { signal });
    const [row] = await stage.postgres.query(
      "select to_char(clock_timestamp() at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"') as t",
    );
    const rows = load.ledger.snapshot();
    const time = String(row?.t);
    narrator.note(`point in time to come back to: ${time}, ${rows.size} rows`);
    await pause(50, undefined, { signal });
    return { time, rows };
  });
}

async function losePrimary(stage: Stage, load: Load, narrator: Narrator): Promise<{ atMs: number }> {
  narrator.step("losing the primary: kill -9 in the middle of its commits, and its data directory is removed");
  await stage.postgres.kill();
  const atMs = Date.now();
  await load.stop(500);
  rmSync(stage.postgres.dataDirectory, { recursive: true, force: true });
  narrator.note(`${load.ledger.count} commits were acknowledged until then`);
  return { atMs };
}

/** Seconds from the loss until tier 2 held every WAL byte of tier 1; null when it did not come to that. */
async function awaitTier2(
  stage: Stage,
  lostMs: number,
  narrator: Narrator,
  faults: string[],
  signal: AbortSignal,
): Promise<number | null> {
  while (!(await isTier2Complete(stage, signal))) {
    if (Date.now() - lostMs > TIER2_LIMIT_MS) {
      faults.push(`tier 2 did not hold everything within ${TIER2_LIMIT_MS / 1000} s; nothing was recovered from it`);
      return null;
    }
    narrator.progress("waiting until tier 2 holds the last bytes, too");
    await pause(100, undefined, { signal });
  }
  const seconds = (Date.now() - lostMs) / 1000;
  narrator.note(`tier 2 held the last acknowledged commit ${seconds.toFixed(2)} s after the loss`);
  return seconds;
}

type Common = Omit<Parameters<typeof recover>[0], "directory" | "tier" | "settings" | "port">;

async function recoverFromTier2(
  stage: Stage,
  common: Common,
  directory: string,
  narrator: Narrator,
  stack: AsyncDisposableStack,
): Promise<Recovery> {
  await stage.server.stop();
  for (const path of stage.surroundings.tier1Directories) renameSync(path, `${path}.away`);
  await stage.startServer({ tier1: false, tier2: true });
  narrator.step("recovering from tier 2: base backup and WAL from S3, tier 1 gone");
  const settings = { ...POSTGRES_SETTINGS, synchronous_standby_names: "" };
  const recovery = await recover({ ...common, directory: join(directory, "recovered-tier2"), tier: "tier2", settings });
  stack.use(recovery.postgres);
  await recovery.postgres.stop();
  await stage.server.stop();
  for (const path of stage.surroundings.tier1Directories) renameSync(`${path}.away`, path);
  return recovery;
}

/** Everything is up again: server with both tiers, the cluster recovered from tier 1 as the new primary, and a light load. */
async function stayUp(
  stage: Stage,
  primary: LocalPostgres,
  before: Load,
  narrator: Narrator,
  stack: AsyncDisposableStack,
  signal: AbortSignal,
): Promise<void> {
  narrator.step("staying up: the recovered cluster is the new primary, both tiers are back");
  await stage.startServer({ tier1: true, tier2: true });
  await primary.start();
  while (!(await isStreaming(primary))) {
    narrator.progress("waiting until the sidecar streams from it");
    await pause(200, undefined, { signal });
  }
  const load = await startLoad({
    dsn: primary.dsn,
    sessions: 1,
    pauseMs: 200,
    firstId: before.ledger.count * 10,
    ledger: before.ledger,
  });
  stack.defer(() => load.stop());
  stage.writeEndpoints(primary);
  const { ports, directory } = stage.surroundings;
  for (const [what, where] of [
    ["server console", `http://127.0.0.1:${ports.serverConsole}/`],
    ["server metrics", `http://127.0.0.1:${ports.serverMetrics}/metrics`],
    ["sidecar console", `http://127.0.0.1:${ports.sidecarConsole}/`],
    ["sidecar metrics", `http://127.0.0.1:${ports.sidecarMetrics}/metrics`],
    ["addresses, certificates, process ids", join(directory, "endpoints.json")],
  ])
    narrator.note(`${what}: ${where}`);
  narrator.step("Ctrl-C ends everything");
  if (!signal.aborted)
    await new Promise<void>((done) => signal.addEventListener("abort", () => done(), { once: true }));
}

async function isStreaming(postgres: LocalPostgres): Promise<boolean> {
  const standbys = await postgres.query("select 1 from pg_stat_replication where application_name = 'klio'");
  return standbys.length > 0;
}

/** Tells when S3 goes away, that commits go on meanwhile, and brings it back. */
function watchS3(stage: Stage, load: Load, narrator: Narrator, faults: string[], signal: AbortSignal): Disposable {
  const done = new AbortController();
  const ended = AbortSignal.any([signal, done.signal]);
  const watch = async () => {
    while (!ended.aborted) {
      if (stage.s3.pid === undefined) {
        const before = load.ledger.count;
        narrator.warn("the S3 server is gone: tier 2 waits, WAL reception and commits go on");
        await pause(S3_OUTAGE_MS, undefined, { signal: ended });
        narrator.warn(
          `${load.ledger.count - before} commits were acknowledged in ${S3_OUTAGE_MS / 1000} s without S3; starting it again`,
        );
        faults.push(
          `the S3 server was away for ${S3_OUTAGE_MS / 1000} s; ${load.ledger.count - before} commits were acknowledged meanwhile`,
        );
        await stage.s3.start();
      }
      await pause(100, undefined, { signal: ended });
    }
  };
  watch().catch((error: unknown) => {
    if (!ended.aborted) narrator.warn(`the S3 server cannot be started again: ${errorText(error)}`);
  });
  return { [Symbol.dispose]: () => done.abort() };
}
