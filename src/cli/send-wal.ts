// klio send-wal: the WAL stream alone.
import type { Command } from "commander";
import { runSidecar } from "../roles/sidecar.ts";
import type { CliContext } from "./context.ts";
import { loadClientConfig } from "./load-config.ts";

type Options = { config?: string; logLevel: string; primary: string | boolean; consoleListenAddress?: string };

/** As libpq's neighbours write it: `--primary`, `--primary=false`, `--no-primary`. */
export function isPrimary(value: string | boolean): boolean {
  return value !== false && value !== "false" && value !== "0";
}

export function registerSendWal(program: Command, context: CliContext): void {
  program
    .command("send-wal")
    .description("stream WAL to the server as PostgreSQL writes it, until SIGTERM")
    .option("--primary [boolean]", "stream from a primary only, and wait until the source is one", true)
    .option("--no-primary", "stream from whatever the source is, a standby too")
    .option("--console-listen-address <host:port>", "serve console, /healthz and /readyz there (default: not served)")
    .action(async (_: unknown, command: Command) => {
      const { config, logLevel, primary, consoleListenAddress } = command.optsWithGlobals<Options>();
      context.exit(
        await runSidecar({
          config: loadClientConfig(context, config, ["source", "wal"]),
          primary: isPrimary(primary),
          ...(consoleListenAddress !== undefined && { consoleListenAddress }),
          env: context.env,
          stderr: context.stderr,
          logLevel,
          signal: context.signal,
        }),
      );
    });
}
