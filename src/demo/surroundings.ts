// Everything the demo's processes need before they start: directories, certificates, keys, ports, configuration files, and
// `endpoints.json`, by which any client can join.
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { stringify } from "yaml";
import type { Environment } from "../config/config.ts";
import { createKeyFiles } from "./age-keys.ts";
import { type Certificates, createCertificates } from "./certificates.ts";
import { freePort, isFree, type LocalPostgres } from "./local-postgres.ts";
import type { LocalS3 } from "./local-s3.ts";
import { giveTo, openForWalking, type RunAs } from "./run-as.ts";

export const CLUSTER = "demo";
const SLOT = "klio";

type Ports = {
  base1: number;
  wal1: number;
  base2: number;
  wal2: number;
  serverMetrics: number;
  sidecarMetrics: number;
  serverConsole: number;
  sidecarConsole: number;
};

export type Surroundings = {
  directory: string;
  ports: Ports;
  certificates: Certificates;
  serverConfig: string;
  sidecarConfig: string;
  adminSocket: string;
  sidecarSocket: string;
  tier1Directories: string[];
  moved: string[];
};

const PREFERRED: Ports = {
  base1: 51515,
  wal1: 52000,
  base2: 51516,
  wal2: 52001,
  serverMetrics: 9464,
  sidecarMetrics: 9465,
  serverConsole: 9474,
  sidecarConsole: 9475,
};

/** The usual ports, unless any will do; a busy one moves to a free one. `moved` says which. */
async function choosePorts(env: Environment, usual: boolean): Promise<{ ports: Ports; moved: string[] }> {
  const asked = Number(env.OTEL_EXPORTER_PROMETHEUS_PORT);
  const preferred =
    Number.isInteger(asked) && asked > 0 && asked < 65535
      ? { ...PREFERRED, serverMetrics: asked, sidecarMetrics: asked + 1 }
      : PREFERRED;
  const ports = { ...preferred };
  const moved: string[] = [];
  for (const name of Object.keys(preferred) as (keyof Ports)[]) {
    const wanted = preferred[name];
    if (usual && (await isFree(wanted))) continue;
    ports[name] = await freePort();
    if (usual) moved.push(`port ${wanted} (${name}) is busy, ${ports[name]} is used`);
  }
  return { ports, moved };
}

/** Writes everything below `directory`. The sidecar's part is given to the user that PostgreSQL runs as. */
export async function prepareSurroundings(options: {
  directory: string;
  runAs: RunAs;
  env: Environment;
  postgres: Pick<LocalPostgres, "dsn" | "replicationDsn">;
  s3: LocalS3;
  usualPorts: boolean;
}): Promise<Surroundings> {
  const { directory, postgres, s3 } = options;
  openForWalking(directory);
  const { ports, moved } = await choosePorts(options.env, options.usualPorts);
  const server = join(directory, "server");
  const sidecar = join(directory, "sidecar");
  for (const path of [server, sidecar]) mkdirSync(path, { recursive: true });
  const certificates = await createCertificates(join(directory, "tls"), { clusters: [CLUSTER] });
  const keys1 = await createKeyFiles(join(server, "keys"), "tier1");
  const keys2 = await createKeyFiles(join(server, "keys"), "tier2");
  const data = (name: string) => {
    const path = join(server, name);
    mkdirSync(path, { recursive: true });
    return path;
  };
  const on = (port: number) => `127.0.0.1:${port}`;
  const tier1 = { base: data("data/base"), wal: data("data/wal"), queue: data("queue") };
  const serverConfig = join(server, "klio.yaml");
  const config = {
    tls: { cert: certificates.server.cert, key: certificates.server.key, client_ca_cert: certificates.caCert },
    tier1: {
      encryption_key_file: keys1.encryptionKeyFile,
      identity_file: keys1.identityFile,
      base: { cache: data("cache1"), repository: tier1.base, listen_address: on(ports.base1) },
      wal: { path: tier1.wal, listen_address: on(ports.wal1) },
    },
    tier2: {
      encryption_key_file: keys2.encryptionKeyFile,
      identity_file: keys2.identityFile,
      base_listen_address: on(ports.base2),
      wal_listen_address: on(ports.wal2),
      cache: data("cache2"),
      s3: {
        enabled: true,
        bucket_name: s3.bucket,
        region: s3.region,
        endpoint: s3.endpoint,
        prefix: "klio",
        access_key_id: s3.accessKeyId,
        secret_access_key: s3.secretAccessKey,
      },
    },
    queue_directory: tier1.queue,
    console_listen_address: on(ports.serverConsole),
  };
  writeFileSync(serverConfig, stringify(config), { mode: 0o600 });
  const client = certificates.client(CLUSTER);
  const tls = { server_cert_path: certificates.caCert, client_cert_path: client.cert, client_key_path: client.key };
  const sidecarConfig = join(sidecar, "klio.yaml");
  const sidecarDocument = {
    source: { dsn: postgres.replicationDsn, standard_dsn: postgres.dsn, slot: SLOT },
    client: {
      cluster_name: CLUSTER,
      base: { url: `https://${on(ports.base1)}`, tier2_url: `https://${on(ports.base2)}`, ...tls },
      wal: { address: on(ports.wal1), tier2_address: on(ports.wal2), ...tls },
    },
    tier1_retention: { keep_latest: 3 },
    tier2_retention: { keep_latest: 5 },
    tier2_backup_enabled: true,
    tier2_recovery_enabled: true,
    wal_prefetch: { count: 4, max_concurrent_downloads: 4 },
  };
  writeFileSync(sidecarConfig, stringify(sidecarDocument), { mode: 0o600 });
  for (const path of [sidecar, client.cert, client.key, certificates.caCert]) await giveTo(path, options.runAs);
  openForWalking(join(directory, "tls"));
  return {
    directory,
    ports,
    certificates,
    serverConfig,
    sidecarConfig,
    adminSocket: join(server, "admin.sock"),
    sidecarSocket: join(sidecar, "sidecar.sock"),
    tier1Directories: Object.values(tier1),
    moved,
  };
}

/** OTEL_* of the caller reaches the processes; where it says nothing, metrics go to a Prometheus endpoint. */
export function telemetryEnvironment(env: Environment, service: string, port: number): Record<string, string> {
  const given = Object.entries(env).filter(
    (entry): entry is [string, string] => entry[0].startsWith("OTEL_") && entry[1] !== undefined && entry[1] !== "",
  );
  return {
    OTEL_METRICS_EXPORTER: "prometheus",
    OTEL_TRACES_EXPORTER: "none",
    ...Object.fromEntries(given),
    OTEL_SERVICE_NAME: service,
    OTEL_EXPORTER_PROMETHEUS_PORT: String(port),
  };
}
