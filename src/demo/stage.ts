// The demo's cast: S3 server, PostgreSQL, Klio server and sidecar, each a process of its own; started, told about, stopped.
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import type { Environment } from "../config/config.ts";
import { findTool } from "../config/tools.ts";
import { errorText } from "../errors.ts";
import { type LocalPostgres, type PostgresVersion, preparePostgres } from "./local-postgres.ts";
import { type LocalS3, startS3 } from "./local-s3.ts";
import { type ManagedProcess, startManaged } from "./managed-process.ts";
import type { Narrator } from "./narrator.ts";
import { descendantsOf } from "./process-tree.ts";
import { type Program, reachableProgram, reachableTool } from "./program.ts";
import { type RunAs, unprivileged } from "./run-as.ts";
import { CLUSTER, prepareSurroundings, type Surroundings, telemetryEnvironment } from "./surroundings.ts";

export type Stage = {
  surroundings: Surroundings;
  s3: LocalS3;
  postgres: LocalPostgres;
  program: Program;
  runAs: RunAs;
  server: ManagedProcess;
  sidecar: ManagedProcess;
  /** Environment for `klio` commands: as the sidecar's user, and as the server's. */
  clientEnv: Record<string, string>;
  serverEnv: Record<string, string>;
  startServer(tiers: { tier1: boolean; tier2: boolean }): Promise<ManagedProcess>;
  writeEndpoints(postgres: LocalPostgres): void;
};

export const POSTGRES_SETTINGS = {
  wal_level: "replica",
  max_wal_senders: "10",
  max_replication_slots: "10",
  wal_keep_size: "0",
  max_slot_wal_keep_size: "8GB",
  synchronous_commit: "on",
  synchronous_standby_names: "klio",
  shared_buffers: "64MB",
};

const START_LIMIT_MS = 60_000;
const START_ATTEMPTS = 10;

/** True when the readiness endpoint of a process answers 200. */
async function isReady(port: number): Promise<boolean> {
  try {
    const response = await fetch(`http://127.0.0.1:${port}/readyz`, { signal: AbortSignal.timeout(2_000) });
    await response.body?.cancel();
    return response.ok;
  } catch {
    return false; // not listening yet
  }
}

/** Starts the whole cast; what was started is given to `stack`, which ends it in reverse order. */
export async function setStage(options: {
  directory: string;
  version: PostgresVersion;
  env: Environment;
  narrator: Narrator;
  stack: AsyncDisposableStack;
  /** False: any free ports, for several stages side by side. */
  usualPorts?: boolean;
  /** Whole telemetry environment of each process, instead of the caller's OTEL_* with a Prometheus endpoint. */
  telemetry?: Record<"server" | "sidecar", Readonly<Record<string, string>>>;
  /** Of PostgreSQL, beside the stage's own. */
  settings?: Readonly<Record<string, string>>;
  /** Added to the environment of each process. */
  processEnv?: Record<"server" | "sidecar", Readonly<Record<string, string>>>;
}): Promise<Stage> {
  const { directory, env, narrator, stack, usualPorts = true } = options;
  const runAs = unprivileged();
  narrator.step(`starting an S3 server and PostgreSQL ${options.version} in ${directory}`);
  mkdirSync(directory, { recursive: true });
  const s3 = stack.use(
    await startS3({ directory: join(directory, "s3"), bucket: "klio-demo", executable: findTool("versitygw", env) }),
  );
  const postgres = stack.use(
    await preparePostgres({
      directory: join(directory, "postgresql"),
      version: options.version,
      settings: { ...POSTGRES_SETTINGS, ...options.settings },
    }),
  );
  await postgres.start();
  const surroundings = await prepareSurroundings({ directory, runAs, env, postgres, s3, usualPorts });
  for (const text of surroundings.moved) narrator.warn(text);
  const program = reachableProgram(directory, runAs);
  const { ports } = surroundings;
  // The tools of a root may lie in a directory of its own.
  const tool = (name: "kopia" | "nats-server") => reachableTool(directory, runAs, findTool(name, env));
  const tools = { KLIO_KOPIA: tool("kopia"), KLIO_NATS_SERVER: tool("nats-server") };
  const sidecarDirectory = join(directory, "sidecar");
  const { NODE_COMPILE_CACHE: compiled } = env;
  const base = {
    PATH: "/usr/local/bin:/usr/bin:/bin",
    NO_COLOR: "1",
    ...tools,
    ...(compiled !== undefined && { NODE_COMPILE_CACHE: compiled }),
  };
  const serverEnv = { ...base, HOME: join(directory, "server"), TMPDIR: join(directory, "server") };
  const clientEnv = { ...base, HOME: sidecarDirectory, TMPDIR: sidecarDirectory };
  const telemetry = options.telemetry ?? {
    server: telemetryEnvironment(env, "klio-server", ports.serverMetrics),
    sidecar: telemetryEnvironment(env, "klio-plugin", ports.sidecarMetrics),
  };

  const startOnce = (tiers: { tier1: boolean; tier2: boolean }) =>
    startManaged({
      name: "server",
      command: program.node,
      args: [
        program.main,
        "server",
        "start",
        "--config",
        surroundings.serverConfig,
        "--socket-path",
        surroundings.adminSocket,
        tiers.tier1 ? "--tier1" : "--no-tier1",
        ...(tiers.tier2 ? ["--tier2"] : []),
      ],
      env: { ...serverEnv, ...telemetry.server, ...options.processEnv?.server },
      runAs: {},
      cwd: directory,
      logFile: join(directory, "server", "server.log"),
      isReady: () => isReady(ports.serverConsole),
      readyWithinMs: START_LIMIT_MS,
      tell: narrator.warn,
    });

  // The usual ports are among those that systems give to connections: one may hold a port for a moment.
  const startServer = async (tiers: { tier1: boolean; tier2: boolean }): Promise<ManagedProcess> => {
    for (let attempt = 1; ; attempt++) {
      try {
        return await startOnce(tiers);
      } catch (error) {
        if (attempt === START_ATTEMPTS || !/address already in use|is in use/.test(errorText(error))) throw error;
        narrator.warn("a port is taken for a moment; starting the server again");
        await pause(1_000);
      }
    }
  };

  narrator.step(
    "starting the Klio server: tier 1 on local disk, tier 2 on S3, nats-server and two Kopia servers below it",
  );
  let server = await startServer({ tier1: true, tier2: true });
  stack.defer(async () => void (await server.stop()));
  narrator.step("starting the sidecar: PostgreSQL's only synchronous standby");
  const sidecar = await startManaged({
    name: "sidecar",
    command: program.node,
    args: [
      program.main,
      "sidecar",
      "--config",
      surroundings.sidecarConfig,
      "--socket-path",
      surroundings.sidecarSocket,
      "--console-listen-address",
      `127.0.0.1:${ports.sidecarConsole}`,
    ],
    env: { ...clientEnv, ...telemetry.sidecar, ...options.processEnv?.sidecar },
    runAs,
    cwd: sidecarDirectory,
    logFile: join(sidecarDirectory, "sidecar.log"),
    isReady: async () =>
      (await postgres.query("select 1 from pg_stat_replication where application_name = 'klio'")).length > 0,
    readyWithinMs: START_LIMIT_MS,
    tell: narrator.warn,
  });
  stack.defer(async () => void (await sidecar.stop()));
  const stage: Stage = {
    surroundings,
    s3,
    postgres,
    program,
    runAs,
    get server() {
      return server;
    },
    sidecar,
    clientEnv,
    serverEnv,
    async startServer(tiers) {
      server = await startServer(tiers);
      return server;
    },
    writeEndpoints(current) {
      const processes = (pid: number | undefined) => (pid === undefined ? null : { pid, children: descendantsOf(pid) });
      const { certificates } = surroundings;
      const endpoints = {
        cluster: CLUSTER,
        postgresql: {
          version: current.version,
          dsn: current.dsn,
          replicationDsn: current.replicationDsn,
          dataDirectory: current.dataDirectory,
          ...processes(current.pid),
        },
        server: {
          base: { tier1: `https://127.0.0.1:${ports.base1}`, tier2: `https://127.0.0.1:${ports.base2}` },
          wal: { tier1: `127.0.0.1:${ports.wal1}`, tier2: `127.0.0.1:${ports.wal2}` },
          console: `http://127.0.0.1:${ports.serverConsole}/`,
          metrics: `http://127.0.0.1:${ports.serverMetrics}/metrics`,
          adminSocket: surroundings.adminSocket,
          config: surroundings.serverConfig,
          ...processes(server.pid()),
        },
        sidecar: {
          console: `http://127.0.0.1:${ports.sidecarConsole}/`,
          metrics: `http://127.0.0.1:${ports.sidecarMetrics}/metrics`,
          socket: surroundings.sidecarSocket,
          config: surroundings.sidecarConfig,
          ...processes(sidecar.pid()),
        },
        s3: {
          endpoint: s3.endpoint,
          region: s3.region,
          bucket: s3.bucket,
          accessKeyId: s3.accessKeyId,
          secretAccessKey: s3.secretAccessKey,
          pid: s3.pid ?? null,
        },
        certificates: { ca: certificates.caCert, server: certificates.server, client: certificates.client(CLUSTER) },
      };
      writeFileSync(join(directory, "endpoints.json"), `${JSON.stringify(endpoints, null, 2)}\n`, { mode: 0o600 });
    },
  };
  stage.writeEndpoints(postgres);
  return stage;
}
