// A PostgreSQL of our own on loopback, for the demo and the tests: initdb, start, stop, kill, query.
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { randomInt } from "node:crypto";
import { closeSync, existsSync, mkdirSync, openSync, readFileSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import pg from "pg";
import { errorText, KlioError } from "../errors.ts";
import { descendantsOf, isRunning, killHard } from "./process-tree.ts";
import { giveTo, isReachableByAll, linkTree, type RunAs, unprivileged } from "./run-as.ts";

export type PostgresVersion = 15 | 16 | 17 | 18;
export type PostgresOptions = {
  /** Holds the data directory (`data`), the log and the socket. */
  directory: string;
  version: PostgresVersion;
  /** Default: a free one. */
  port?: number;
  settings?: Readonly<Record<string, string>>;
  walSegmentMiB?: number;
  /** Use the data directory as it is (a restored one) instead of making one. */
  existing?: boolean;
};

export interface LocalPostgres extends AsyncDisposable {
  readonly directory: string;
  readonly dataDirectory: string;
  readonly logFile: string;
  readonly host: string;
  readonly port: number;
  readonly version: PostgresVersion;
  readonly binDirectory: string;
  readonly runAs: RunAs;
  /** Process id of the postmaster, undefined while it is down. */
  readonly pid: number | undefined;
  /** For ordinary sessions, database `postgres`, superuser. */
  readonly dsn: string;
  /** The same with `replication=yes`. */
  readonly replicationDsn: string;
  /** Resolves when connections are accepted (also by a hot standby). Rejects with the end of the log. */
  start(): Promise<void>;
  stop(mode?: "fast" | "immediate"): Promise<void>;
  /** SIGKILL to the postmaster and its children; resolves when they are gone. */
  kill(): Promise<void>;
  query(sql: string, values?: unknown[]): Promise<Record<string, unknown>[]>;
}

const PASSWORD = "klio-demo";
const START_LIMIT_MS = 60_000;

/** Below the range from which systems give ports to connections: what is free now is free in a moment, too. */
const PORTS = { from: 15_000, to: 32_000 };
const handedOut = new Set<number>();

/** A free TCP port on loopback, another one at each call. Rejects with KLIO-PORT-BUSY when none is found. */
export async function freePort(): Promise<number> {
  for (let tries = 0; tries < 1_000; tries++) {
    const port = randomInt(PORTS.from, PORTS.to);
    if (handedOut.has(port) || !(await isFree(port))) continue;
    handedOut.add(port);
    return port;
  }
  throw new KlioError("KLIO-PORT-BUSY", `no free port from ${PORTS.from} to ${PORTS.to}`);
}

export function isFree(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const probe = createServer();
    probe.once("error", () => resolve(false));
    probe.listen(port, "127.0.0.1", () => probe.close(() => resolve(true)));
  });
}

/** The programs that came with the optional npm packages. Throws KLIO-TOOL-MISSING. */
function nativeDirectory(version: PostgresVersion): string {
  const name = `pg${version}-${process.platform}-${process.arch}`;
  const native = fileURLToPath(new URL(`../../node_modules/${name}/native`, import.meta.url));
  if (!existsSync(join(native, "bin", "postgres")))
    throw new KlioError(
      "KLIO-TOOL-MISSING",
      `PostgreSQL ${version} for ${process.platform}-${process.arch} is not installed`,
      {
        hint: "run 'npm ci' without --omit=optional",
      },
    );
  return native;
}

/** Makes (unless `existing`) and starts a server. The caller owns it: `await using`, or stop(). */
export async function startPostgres(options: PostgresOptions): Promise<LocalPostgres> {
  const postgres = await preparePostgres(options);
  await postgres.start();
  return postgres;
}

/** Like `startPostgres`, but does not start it. */
export async function preparePostgres(options: PostgresOptions): Promise<LocalPostgres> {
  const runAs = unprivileged();
  let native = nativeDirectory(options.version);
  mkdirSync(options.directory, { recursive: true });
  if (runAs.uid !== undefined && !isReachableByAll(native)) {
    const copy = join(options.directory, `postgresql-${options.version}`);
    linkTree(native, copy);
    native = copy;
  }
  const dataDirectory = resolve(options.directory, "data");
  const binDirectory = join(native, "bin");
  await giveTo(options.directory, runAs);
  if (options.existing !== true) {
    const passwordFile = join(options.directory, "password");
    writeFileSync(passwordFile, PASSWORD, { mode: 0o600 });
    await giveTo(passwordFile, runAs);
    const args = [
      "-D",
      dataDirectory,
      "-U",
      "postgres",
      "-A",
      "scram-sha-256",
      "--pwfile",
      passwordFile,
      "-k",
      "-E",
      "UTF8",
    ];
    if (options.walSegmentMiB !== undefined) args.push(`--wal-segsize=${options.walSegmentMiB}`);
    try {
      execFileSync(join(binDirectory, "initdb"), [...args, "--no-locale", "--no-sync"], {
        ...runAs,
        stdio: "pipe",
        cwd: options.directory,
      });
    } catch (cause) {
      throw new KlioError(
        "KLIO-SOURCE-DOWN",
        `initdb failed: ${errorText((cause as { stderr?: Buffer }).stderr?.toString() ?? cause)}`,
        { cause },
      );
    }
  }
  // Only now: until it listens, another process may take the port that is free.
  const port = options.port ?? (await freePort());
  return new Postgres(options, { dataDirectory, binDirectory, port, runAs });
}

class Postgres implements LocalPostgres {
  readonly directory: string;
  readonly dataDirectory: string;
  readonly logFile: string;
  readonly host = "127.0.0.1";
  readonly port: number;
  readonly version: PostgresVersion;
  readonly binDirectory: string;
  readonly runAs: RunAs;
  readonly dsn: string;
  readonly replicationDsn: string;
  private readonly settings: Readonly<Record<string, string>>;
  private child: ChildProcess | undefined;
  private gone: Promise<void> = Promise.resolve();

  constructor(
    options: PostgresOptions,
    made: { dataDirectory: string; binDirectory: string; port: number; runAs: RunAs },
  ) {
    this.directory = options.directory;
    this.version = options.version;
    this.settings = options.settings ?? {};
    this.dataDirectory = made.dataDirectory;
    this.logFile = join(options.directory, "postgresql.log");
    this.binDirectory = made.binDirectory;
    this.port = made.port;
    this.runAs = made.runAs;
    this.dsn = `postgresql://postgres:${PASSWORD}@${this.host}:${this.port}/postgres`;
    this.replicationDsn = `${this.dsn}?replication=yes`;
  }

  get pid(): number | undefined {
    return this.child?.exitCode === null && this.child.signalCode === null ? this.child.pid : undefined;
  }

  async start(): Promise<void> {
    if (this.pid !== undefined) return;
    const settings = {
      listen_addresses: this.host,
      port: String(this.port),
      unix_socket_directories: "",
      fsync: "on",
      ...this.settings,
    };
    const args = ["-D", this.dataDirectory, ...Object.entries(settings).flatMap(([k, v]) => ["-c", `${k}=${v}`])];
    const log = openSync(this.logFile, "a");
    const logged = readFileSync(this.logFile).length;
    // A server of its own session: a Ctrl-C at the terminal must reach us first, so that we stop it in order.
    const child = spawn(join(this.binDirectory, "postgres"), args, {
      ...this.runAs,
      stdio: ["ignore", log, log],
      cwd: dirname(this.dataDirectory),
      detached: true,
      env: { PATH: "/usr/local/bin:/usr/bin:/bin", HOME: this.directory, TZ: "UTC", LC_ALL: "C" },
    });
    closeSync(log);
    this.child = child;
    this.gone = new Promise((resolve) => child.once("exit", () => resolve()));
    const deadline = Date.now() + START_LIMIT_MS;
    let last = "";
    while (Date.now() < deadline) {
      if (this.pid === undefined) break;
      try {
        const [answer] = await this.query("show data_directory");
        // Who answers may have been there before, with ours about to give up the port.
        if (answer?.data_directory === this.dataDirectory) return;
        last = `port ${this.port} belongs to the server of ${String(answer?.data_directory)}`;
      } catch (error) {
        last = errorText(error);
      }
      await new Promise((resolve) => setTimeout(resolve, 25));
    }
    const tail = readFileSync(this.logFile).subarray(logged).toString().split("\n").slice(-12).join("\n");
    throw new KlioError("KLIO-SOURCE-DOWN", `PostgreSQL did not start (${last}):\n${tail}`);
  }

  async stop(mode: "fast" | "immediate" = "fast"): Promise<void> {
    this.child?.kill(mode === "fast" ? "SIGINT" : "SIGQUIT");
    await this.gone;
  }

  async kill(): Promise<void> {
    const { pid } = this;
    // Each of its children leads a process group of its own, and would live on for a moment.
    const children = pid === undefined ? [] : descendantsOf(pid);
    this.child?.kill("SIGKILL");
    for (const child of children) killHard(child.pid);
    await this.gone;
    // The data directory must not be touched before.
    while (children.some((child) => isRunning(child.pid))) await new Promise((resolve) => setTimeout(resolve, 20));
  }

  async query(sql: string, values: unknown[] = []): Promise<Record<string, unknown>[]> {
    const client = new pg.Client({ connectionString: this.dsn, connectionTimeoutMillis: 5_000 });
    client.on("error", errorText); // the pending query rejects with the same error
    try {
      await client.connect();
      const result = await client.query(sql, values);
      return (Array.isArray(result) ? result.at(-1) : result).rows;
    } finally {
      await client.end().catch(errorText); // the connection is gone already
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.pid !== undefined) await this.stop("immediate");
  }
}
