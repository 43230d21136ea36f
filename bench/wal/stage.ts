// The cast of the WAL bench: a real PostgreSQL, a Klio server, a sidecar per run, and pg_receivewal beside it.
import { type ChildProcess, execFile, spawn } from "node:child_process";
import { mkdirSync, openSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import pg from "pg";
import { stringify } from "yaml";
import type { S3Settings } from "../../src/actors/s3/s3-client.ts";
import { findTool } from "../../src/config/tools.ts";
import { createKeyFiles } from "../../src/demo/age-keys.ts";
import { type Certificates, createCertificates } from "../../src/demo/certificates.ts";
import { freePort, type LocalPostgres, startPostgres } from "../../src/demo/local-postgres.ts";
import { type ManagedProcess, startManaged } from "../../src/demo/managed-process.ts";

const VERSION = 15;
/** Of a copy of the source that only replays. */
export const COPY_SETTINGS = { shared_buffers: "512MB", max_wal_senders: "20", max_replication_slots: "20" };
const SETTINGS = {
  wal_level: "replica",
  ...COPY_SETTINGS,
  max_wal_size: "8GB",
  checkpoint_timeout: "1h",
  synchronous_commit: "on",
  wal_compression: "off",
  autovacuum: "off",
};

export type Usage = { cpuSeconds: number; peakMiB: number };

/** CPU seconds and peak memory of a process so far. */
export function usageOf(pid: number): Usage {
  const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  const peak = /VmHWM:\s+(\d+) kB/.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1];
  return { cpuSeconds: (Number(fields[11]) + Number(fields[12])) / 100, peakMiB: Number(peak) / 1024 };
}

/** Lets the peak of a process begin at what it holds now. */
export function forgetPeak(pid: number): void {
  writeFileSync(`/proc/${pid}/clear_refs`, "5");
}

export type Receiver = { pid: number; stop(): Promise<void> };

export class WalBench implements AsyncDisposable {
  readonly directory: string;
  readonly postgres: LocalPostgres;
  readonly certificates: Certificates;
  readonly session: pg.Client;
  readonly server: ManagedProcess;
  readonly serverAddress: string;
  readonly walDirectory: string;
  readonly adminSocket: string;
  readonly hasTier2: boolean;
  readonly #program: { node: string; main: string };
  readonly #stack: AsyncDisposableStack;

  private constructor(parts: {
    directory: string;
    postgres: LocalPostgres;
    certificates: Certificates;
    session: pg.Client;
    server: ManagedProcess;
    serverAddress: string;
    walDirectory: string;
    adminSocket: string;
    hasTier2: boolean;
    program: { node: string; main: string };
    stack: AsyncDisposableStack;
  }) {
    this.directory = parts.directory;
    this.postgres = parts.postgres;
    this.certificates = parts.certificates;
    this.session = parts.session;
    this.server = parts.server;
    this.serverAddress = parts.serverAddress;
    this.walDirectory = parts.walDirectory;
    this.adminSocket = parts.adminSocket;
    this.hasTier2 = parts.hasTier2;
    this.#program = parts.program;
    this.#stack = parts.stack;
  }

  /** `clusters`: all that will ever stream. `tier2`: the store that everything is relayed to; `env`: of the server. */
  static async open(
    directory: string,
    clusters: readonly string[],
    more: { tier2?: S3Settings; env?: Record<string, string> } = {},
  ): Promise<WalBench> {
    const { tier2 } = more;
    await using stack = new AsyncDisposableStack();
    const postgres = stack.use(
      await startPostgres({ directory: join(directory, "postgresql"), version: VERSION, settings: SETTINGS }),
    );
    const session = new pg.Client({ connectionString: postgres.dsn });
    await session.connect();
    stack.defer(() => session.end());
    const certificates = await createCertificates(join(directory, "tls"), { clusters });
    const data = (name: string) => {
      const path = join(directory, "server", name);
      mkdirSync(path, { recursive: true });
      return path;
    };
    const keys = await createKeyFiles(data("keys"), "tier1");
    const [base, wal, console] = [await freePort(), await freePort(), await freePort()];
    const adminSocket = join(directory, "server", "admin.sock");
    const walDirectory = data("wal");
    const config = join(directory, "server", "klio.yaml");
    writeFileSync(
      config,
      stringify({
        tls: { cert: certificates.server.cert, key: certificates.server.key, client_ca_cert: certificates.caCert },
        tier1: {
          encryption_key_file: keys.encryptionKeyFile,
          identity_file: keys.identityFile,
          base: { cache: data("cache"), repository: data("base"), listen_address: `127.0.0.1:${base}` },
          wal: { path: walDirectory, listen_address: `127.0.0.1:${wal}` },
        },
        ...(tier2 !== undefined && { tier2: await tier2Config(tier2, data) }),
        queue_directory: data("queue"),
        console_listen_address: `127.0.0.1:${console}`,
      }),
    );
    // As images and packages run it: compiled.
    const program = { node: process.execPath, main: fileURLToPath(new URL("../../dist/main.js", import.meta.url)) };
    const server = await startManaged({
      name: "server",
      command: program.node,
      args: [
        ...nodeOptions("server"),
        program.main,
        "server",
        "start",
        "--config",
        config,
        "--socket-path",
        adminSocket,
        ...(tier2 === undefined ? [] : ["--tier2"]),
      ],
      env: {
        PATH: "/usr/local/bin:/usr/bin:/bin",
        HOME: directory,
        TMPDIR: join(directory, "server"),
        KLIO_KOPIA: findTool("kopia", process.env),
        KLIO_NATS_SERVER: findTool("nats-server", process.env),
        ...more.env,
      },
      runAs: {},
      cwd: directory,
      logFile: join(directory, "server", "server.log"),
      isReady: async () => (await fetch(`http://127.0.0.1:${console}/readyz`).catch(() => undefined))?.ok === true,
      readyWithinMs: 60_000,
      tell: (text) => void process.stderr.write(`${text}\n`),
    });
    stack.defer(async () => void (await server.stop()));
    return new WalBench({
      directory,
      postgres,
      certificates,
      session,
      server,
      serverAddress: `127.0.0.1:${wal}`,
      walDirectory,
      adminSocket,
      hasTier2: tier2 !== undefined,
      program,
      stack: stack.move(),
    });
  }

  /** Process id of the Klio server. */
  get serverPid(): number {
    const pid = this.server.pid();
    if (pid === undefined) throw new Error("the server has ended: see server.log");
    return pid;
  }

  async value(sql: string): Promise<string> {
    const { rows } = await this.session.query<Record<string, unknown>>(sql);
    return String(Object.values(rows[0] ?? {})[0]);
  }

  /** Path of a client configuration. `dsn` reaches the source through a slot; `address` the server. */
  clientConfig(cluster: string, slot: string, address = this.serverAddress): string {
    const client = this.certificates.client(cluster);
    const file = join(this.directory, `client-${cluster}.yaml`);
    const tls = {
      server_cert_path: this.certificates.caCert,
      client_cert_path: client.cert,
      client_key_path: client.key,
    };
    writeFileSync(
      file,
      stringify({
        source: { dsn: this.postgres.replicationDsn, standard_dsn: this.postgres.dsn, slot },
        client: { cluster_name: cluster, wal: { address, ...tls } },
        tier2_backup_enabled: this.hasTier2,
        wal_prefetch: { count: 4, max_concurrent_downloads: 4 },
      }),
      { mode: 0o600 },
    );
    return file;
  }

  /** `klio ARGS`, as a restore_command would call it. */
  klio(...args: string[]): string[] {
    return [this.#program.node, this.#program.main, ...args];
  }

  /** Segments that wait for tier 2. */
  async pendingWals(): Promise<number> {
    const [node = "", ...args] = this.klio("admin", "queue", "status", "--socket-path", this.adminSocket, "--json");
    return JSON.parse((await promisify(execFile)(node, args)).stdout).pending_wals;
  }

  /** Starts the sidecar's stream; it is there when PostgreSQL shows it. */
  async sidecar(cluster: string, slot: string, address?: string): Promise<Receiver> {
    const config = this.clientConfig(cluster, slot, address);
    const args = [...nodeOptions("sidecar"), this.#program.main, "send-wal", "--config", config];
    return this.#receiver(spawn(this.#program.node, args, this.#output("sidecar")), "SIGTERM");
  }

  /** Starts pg_receivewal into an empty directory. */
  receivewal(directory: string, slot: string, more: readonly string[] = []): Receiver {
    rmSync(directory, { recursive: true, force: true });
    mkdirSync(directory, { recursive: true });
    const args = ["-d", this.postgres.dsn, "-D", directory, "-S", slot, "--synchronous", "--no-loop", ...more];
    return this.#receiver(spawn("pg_receivewal", args, this.#output("pg_receivewal")), "SIGINT");
  }

  #output(name: string): { stdio: ["ignore", "ignore", number] } {
    return { stdio: ["ignore", "ignore", openSync(join(this.directory, `${name}.log`), "a")] };
  }

  #receiver(child: ChildProcess, signal: NodeJS.Signals): Receiver {
    const gone = new Promise<void>((resolve, reject) => {
      child.once("exit", () => resolve());
      child.once("error", reject);
    });
    const stop = async () => {
      child.kill(signal);
      await gone;
    };
    this.#stack.defer(stop);
    return { pid: child.pid ?? 0, stop };
  }

  /** Waits for a fact that a query tells. */
  async until(sql: string, everyMs = 5): Promise<void> {
    while ((await this.value(sql)) !== "true") await new Promise((resolve) => setTimeout(resolve, everyMs));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#stack.disposeAsync();
  }
}

async function tier2Config(s3: S3Settings, data: (name: string) => string) {
  const keys = await createKeyFiles(data("keys"), "tier2");
  return {
    encryption_key_file: keys.encryptionKeyFile,
    identity_file: keys.identityFile,
    base_listen_address: `127.0.0.1:${await freePort()}`,
    wal_listen_address: `127.0.0.1:${await freePort()}`,
    cache: data("cache2"),
    s3: {
      enabled: true,
      bucket_name: s3.bucketName,
      region: s3.region,
      endpoint: s3.endpoint,
      access_key_id: s3.accessKeyId,
      secret_access_key: s3.secretAccessKey,
    },
  };
}

/** KLIO_BENCH_PROFILE=server|sidecar: a CPU profile of that process, in the directory it runs in. */
function nodeOptions(process_: string): string[] {
  if (process.env.KLIO_BENCH_NODE !== undefined) return process.env.KLIO_BENCH_NODE.split(" ");
  return process.env.KLIO_BENCH_PROFILE === process_ ? ["--cpu-prof", "--cpu-prof-dir=/tmp/klio-profile"] : [];
}
