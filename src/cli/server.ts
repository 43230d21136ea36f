// klio server start
import { join } from "node:path";
import type { Command } from "commander";
import { runServer } from "../roles/server.ts";
import type { CliContext } from "./context.ts";
import { defaultAdminSocket, loadServerConfig } from "./load-config.ts";

export function registerServer(program: Command, context: CliContext): void {
  const server = program.command("server").description("the backup server");
  server
    .command("start")
    .description("serve WAL and base backups of both tiers until SIGTERM")
    .option("--tier1", "serve tier 1 (the default)", true)
    .option("--no-tier1", "do not serve tier 1: only what tier 2 holds, read-only")
    .option("--tier2", "serve tier 2 (S3), and relay to it when tier 1 is served", false)
    .option("--socket-path <path>", "admin socket", defaultAdminSocket(context))
    .action(async (options: { tier1: boolean; tier2: boolean; socketPath: string }, command: Command) => {
      const { config, logLevel } = command.optsWithGlobals<{ config?: string; logLevel: string }>();
      const serverConfig = loadServerConfig(context, config, {
        tier1: options.tier1,
        tier2: options.tier2,
        adminSocketPath: join(options.socketPath),
      });
      context.exit(
        await runServer({
          config: serverConfig,
          env: context.env,
          stderr: context.stderr,
          logLevel,
          signal: context.signal,
        }),
      );
    });
}
