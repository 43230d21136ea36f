// klio sidecar: the WAL stream, and backups on request over the control socket.
import type { Command } from "commander";
import { runBaseBackup } from "../roles/backup.ts";
import { runSidecar } from "../roles/sidecar.ts";
import type { CliContext } from "./context.ts";
import { defaultSidecarSocket, loadClientConfig } from "./load-config.ts";
import { isPrimary } from "./send-wal.ts";

type Options = {
  config?: string;
  logLevel: string;
  primary: string | boolean;
  socketPath: string;
  consoleListenAddress: string;
};

export function registerSidecar(program: Command, context: CliContext): void {
  program
    .command("sidecar")
    .description("stream WAL to the server, and take base backups when asked over the control socket, until SIGTERM")
    .option("--primary [boolean]", "stream from a primary only, and wait until the source is one", true)
    .option("--no-primary", "stream from whatever the source is, a standby too")
    .option("--socket-path <path>", "control socket", defaultSidecarSocket(context))
    .option("--console-listen-address <host:port>", "address of console, /healthz and /readyz", "127.0.0.1:9475")
    .action(async (_: unknown, command: Command) => {
      const { config: file, logLevel, primary, socketPath, consoleListenAddress } = command.optsWithGlobals<Options>();
      const { env, stderr, signal } = context;
      const config = loadClientConfig(context, file, ["source", "base", "wal"]);
      context.exit(
        await runSidecar({
          config,
          primary: isPrimary(primary),
          control: {
            socketPath,
            backups:
              ({ telemetry, log }) =>
              (request, onProgress, backupSignal) =>
                runBaseBackup({ ...request, config, env, telemetry, log, onProgress, signal: backupSignal }),
          },
          consoleListenAddress,
          env,
          stderr,
          logLevel,
          signal,
        }),
      );
    });
}
