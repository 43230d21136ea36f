// A directory with the configuration of a server, `klio server start` on it as a process of its own, and how that ended.
import { existsSync, mkdirSync, readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { stringify } from "yaml";
import { type CommandResult, runCommand } from "../../src/actors/process/run-command.ts";
import type { S3Settings } from "../../src/actors/s3/s3-client.ts";
import { findTool } from "../../src/config/tools.ts";
import { createKeyFiles } from "../../src/demo/age-keys.ts";
import type { Certificates } from "../../src/demo/certificates.ts";
import { freePort } from "../../src/demo/local-postgres.ts";
import { startManaged } from "../../src/demo/managed-process.ts";

const main = fileURLToPath(new URL("../../src/main.ts", import.meta.url));

type Document = {
  tls: Record<string, string>;
  tier1: Record<string, unknown>;
  tier2: { s3: Record<string, unknown> } & Record<string, unknown>;
  queue_directory: string;
  console_listen_address: string;
};
export type ServerPlace = { directory: string; document: Document };

/** Each call makes a directory of its own with the configuration of a server that would start. */
export function serverPlaces(root: string, certificates: Certificates, settings: S3Settings) {
  let places = 0;
  return async (): Promise<ServerPlace> => {
    places += 1;
    const directory = join(root, `place-${places}`);
    mkdirSync(directory);
    const keys = (tier: string) => createKeyFiles(join(directory, "keys"), tier);
    const [keys1, keys2] = [await keys("tier1"), await keys("tier2")];
    const listen = async () => `127.0.0.1:${await freePort()}`;
    const { endpoint, region, accessKeyId, secretAccessKey, bucketName } = settings;
    const document: Document = {
      tls: {
        cert: certificates.server.cert,
        key: certificates.server.key,
        client_ca_cert: certificates.caCert,
      },
      tier1: {
        encryption_key_file: keys1.encryptionKeyFile,
        identity_file: keys1.identityFile,
        base: {
          cache: join(directory, "data/cache1"),
          repository: join(directory, "data/base"),
          listen_address: await listen(),
        },
        wal: { path: join(directory, "data/wal"), listen_address: await listen() },
      },
      tier2: {
        encryption_key_file: keys2.encryptionKeyFile,
        identity_file: keys2.identityFile,
        base_listen_address: await listen(),
        wal_listen_address: await listen(),
        cache: join(directory, "data/cache2"),
        s3: {
          enabled: true,
          bucket_name: bucketName,
          region,
          endpoint,
          prefix: `place-${places}`,
          access_key_id: accessKeyId,
          secret_access_key: secretAccessKey,
          ...(settings.customCaBundleFile !== undefined && { custom_ca_bundle_file: settings.customCaBundleFile }),
        },
      },
      queue_directory: join(directory, "data/queue"),
      console_listen_address: await listen(),
    };
    return { directory, document };
  };
}

function command({ directory, document }: ServerPlace, args: readonly string[]) {
  const file = join(directory, "klio.yaml");
  writeFileSync(file, stringify(document), { mode: 0o600 });
  return {
    command: process.execPath,
    args: [main, "--config", file, "server", "start", "--socket-path", join(directory, "admin.sock"), ...args],
    env: {
      PATH: process.env.PATH ?? "",
      HOME: directory,
      TMPDIR: directory,
      NODE_COMPILE_CACHE: process.env.NODE_COMPILE_CACHE ?? "",
      KLIO_KOPIA: findTool("kopia", process.env),
      KLIO_NATS_SERVER: findTool("nats-server", process.env),
    },
  };
}

export async function start(
  where: ServerPlace,
  args: readonly string[] = [],
): Promise<CommandResult & { error: string }> {
  const result = await runCommand({ ...command(where, args), signal: AbortSignal.timeout(90_000) });
  const lines = result.stderr.split("\n").filter((line) => /^(Error|Hint|Warning| {2})/.test(line));
  return { ...result, error: lines.join("\n") };
}

/** Nothing of tier 1 was made. */
export function isUntouched({ directory }: ServerPlace): boolean {
  const data = join(directory, "data");
  return !existsSync(data) || readdirSync(data).every((name) => /^cache/.test(name));
}

export const s3Of = ({ document }: ServerPlace) => document.tier2.s3;

/** The server, ready. */
export const serve = (where: ServerPlace, args: readonly string[]) =>
  startManaged({
    name: "server",
    ...command(where, args),
    runAs: {},
    cwd: where.directory,
    logFile: join(where.directory, "server.log"),
    isReady: async () => {
      try {
        const response = await fetch(`http://${where.document.console_listen_address}/readyz`);
        await response.body?.cancel();
        return response.ok;
      } catch {
        return false; // it does not listen yet
      }
    },
    readyWithinMs: 60_000,
    tell: () => undefined,
  });
