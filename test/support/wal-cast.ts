// The least that a WAL path needs as processes: configuration of a server with tier 1 alone and of `klio send-wal`, and what
// starts both.
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { stringify } from "yaml";
import { findTool } from "../../src/config/tools.ts";
import { createKeyFiles } from "../../src/demo/age-keys.ts";
import { createCertificates } from "../../src/demo/certificates.ts";
import { freePort, type LocalPostgres } from "../../src/demo/local-postgres.ts";

const CLUSTER = "alpha";
const MAIN = join(import.meta.dirname, "../../src/main.ts");

export type WalCast = {
  walDirectory: string;
  env: Record<string, string>;
  /** Arguments of Node. */
  server: string[];
  sidecar: string[];
  /** True when the process answers that it is ready. */
  isReady(process: "server" | "sidecar"): Promise<boolean>;
};

export async function prepareCast(directory: string, postgres: LocalPostgres): Promise<WalCast> {
  const data = (name: string) => {
    const path = join(directory, name);
    mkdirSync(path, { recursive: true });
    return path;
  };
  const certificates = await createCertificates(join(directory, "tls"), { clusters: [CLUSTER] });
  const keys = await createKeyFiles(data("keys"), "tier1");
  const [base, wal, serverConsole, sidecarConsole] = [
    await freePort(),
    await freePort(),
    await freePort(),
    await freePort(),
  ];
  const on = (port: number) => `127.0.0.1:${port}`;
  const config = {
    tls: { cert: certificates.server.cert, key: certificates.server.key, client_ca_cert: certificates.caCert },
    tier1: {
      encryption_key_file: keys.encryptionKeyFile,
      identity_file: keys.identityFile,
      base: { cache: data("cache"), repository: data("base"), listen_address: on(base) },
      wal: { path: data("wal"), listen_address: on(wal) },
    },
    queue_directory: data("queue"),
    console_listen_address: on(serverConsole),
  };
  const client = certificates.client(CLUSTER);
  const sidecarConfig = {
    source: { dsn: postgres.replicationDsn, standard_dsn: postgres.dsn, slot: "klio" },
    client: {
      cluster_name: CLUSTER,
      wal: {
        address: on(wal),
        server_cert_path: certificates.caCert,
        client_cert_path: client.cert,
        client_key_path: client.key,
      },
    },
  };
  const [serverFile, sidecarFile] = [join(directory, "server.yaml"), join(directory, "sidecar.yaml")];
  writeFileSync(serverFile, stringify(config), { mode: 0o600 });
  writeFileSync(sidecarFile, stringify(sidecarConfig), { mode: 0o600 });
  const ports = { server: serverConsole, sidecar: sidecarConsole };
  return {
    walDirectory: join(directory, "wal"),
    env: {
      PATH: "/usr/local/bin:/usr/bin:/bin",
      HOME: directory,
      TMPDIR: directory,
      NODE_COMPILE_CACHE: process.env.NODE_COMPILE_CACHE ?? "",
      KLIO_KOPIA: findTool("kopia", process.env),
      KLIO_NATS_SERVER: findTool("nats-server", process.env),
    },
    server: [MAIN, "server", "start", "--config", serverFile, "--socket-path", join(directory, "admin.sock")],
    sidecar: [MAIN, "send-wal", "--config", sidecarFile, "--console-listen-address", on(sidecarConsole)],
    async isReady(process) {
      const response = await fetch(`http://${on(ports[process])}/readyz`).catch(() => undefined);
      await response?.body?.cancel();
      return response?.ok === true;
    },
  };
}
