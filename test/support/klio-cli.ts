// Runs `klio …` as a user would, in this process.
import { writeFileSync } from "node:fs";
import { Writable } from "node:stream";
import { stringify } from "yaml";
import { runProgram } from "../../src/cli/program.ts";
import type { ClientConfig, Environment } from "../../src/config/config.ts";

function sink() {
  let text = "";
  const stream = new Writable({
    write(chunk, _, done) {
      text += chunk;
      done();
    },
  });
  return { stream, text: () => text };
}

export type KlioRun = { out: string; err: string; status: number };

export async function klioWith(
  options: { signal?: AbortSignal; env?: Environment },
  ...argv: string[]
): Promise<KlioRun> {
  const [out, err] = [sink(), sink()];
  let status = 0;
  await runProgram({
    argv,
    env: options.env ?? {},
    stdout: out.stream,
    stderr: err.stream,
    signal: options.signal ?? new AbortController().signal,
    exit: (code) => {
      status = code;
    },
  });
  return { out: out.text(), err: err.text(), status };
}

export const klio = (...argv: string[]) => klioWith({}, ...argv);

/** Writes a client's configuration as its YAML file; returns the path. */
export function configFile(path: string, config: ClientConfig): string {
  const { source, wal, base } = config;
  writeFileSync(
    path,
    stringify({
      ...(source !== undefined && {
        source: { dsn: source.dsn, standard_dsn: source.standardDsn, slot: source.slot, gap_policy: source.gapPolicy },
      }),
      client: {
        cluster_name: config.clusterName,
        ...(wal !== undefined && {
          wal: {
            ...(wal.address !== undefined && { address: wal.address }),
            ...(wal.tier2Address !== undefined && { tier2_address: wal.tier2Address }),
            server_cert_path: wal.serverCertPath,
            client_cert_path: wal.clientCertPath,
            client_key_path: wal.clientKeyPath,
          },
        }),
        ...(base !== undefined && {
          base: {
            ...(base.url !== undefined && { url: base.url }),
            ...(base.tier2Url !== undefined && { tier2_url: base.tier2Url }),
            server_cert_path: base.serverCertPath,
            client_cert_path: base.clientCertPath,
            client_key_path: base.clientKeyPath,
          },
        }),
      },
    }),
  );
  return path;
}
