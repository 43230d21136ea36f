// klio status: what would be lost now, and how far and how fast it could be recovered.
import { existsSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";
import type { Command } from "commander";
import type { ClientConfig } from "../config/config.ts";
import { exitStatus, KlioError } from "../errors.ts";
import { runStatus, type StatusRequest } from "../roles/status.ts";
import type { CliContext } from "./context.ts";
import { defaultAdminSocket, defaultSidecarSocket, loadClientConfig } from "./load-config.ts";
import { wholeNumber } from "./numbers.ts";
import { statusText } from "./status-text.ts";

type Options = {
  config?: string;
  logLevel: string;
  socketPath?: string;
  socket?: string;
  clusterName?: string;
  maxExposure?: number;
  maxTier2Exposure?: number;
  maxBackupAge?: number;
  json: boolean;
};

export function registerStatus(program: Command, context: CliContext): void {
  program
    .command("status")
    .description(
      "say what would be lost now (exposure), what can be recovered and how long it takes, and how slot, backups and queue are. Asks the server's admin socket and the sidecar's control socket where they are there, and with a client configuration the server over the network and PostgreSQL; a part that does not answer is named, the rest is told. Exit status 1 when a limit is exceeded or cannot be checked",
    )
    .option(
      "--socket-path <path>",
      `admin socket of the server (default: ${defaultAdminSocket(context)} if it is there)`,
    )
    .option(
      "--socket <path>",
      `control socket of the sidecar (default: ${defaultSidecarSocket(context)} if it is there)`,
    )
    .option("--cluster-name <cluster>", "only of this cluster")
    .option("--max-exposure <seconds>", "limit for commits that only the primary has", wholeNumber(0))
    .option("--max-tier2-exposure <seconds>", "limit for commits that tier 2 does not have", wholeNumber(0))
    .option("--max-backup-age <seconds>", "limit for the age of the latest backup on any tier", wholeNumber(0))
    .option("--json", "print JSON (keys: docs/operations.md)", false)
    .action(async (_: unknown, command: Command) => {
      const options = command.optsWithGlobals<Options>();
      const { stdout, stderr, signal } = context;
      const { json, clusterName, maxExposure, maxTier2Exposure, maxBackupAge, logLevel } = options;
      const report = await runStatus({
        ...partsOf(context, options),
        ...(clusterName !== undefined && { cluster: clusterName }),
        limits: {
          ...(maxExposure !== undefined && { exposure: maxExposure }),
          ...(maxTier2Exposure !== undefined && { tier2Exposure: maxTier2Exposure }),
          ...(maxBackupAge !== undefined && { backupAge: maxBackupAge }),
        },
        stderr,
        logLevel,
        signal,
      });
      stdout.write(json ? `${JSON.stringify(report)}\n` : statusText(report));
      for (const line of report.exceeded) stderr.write(`Exceeded: ${line}\n`);
      if (report.exceeded.length > 0) context.exit(exitStatus.failed);
    });
}

/** Whom to ask: what is named, else what is there. */
function partsOf(
  context: CliContext,
  { config, socketPath, socket }: Options,
): Pick<StatusRequest, "adminSocket" | "sidecarSocket" | "config" | "missed"> {
  const there = (path: string) => (existsSync(path) ? path : undefined);
  const adminSocket = socketPath ?? there(defaultAdminSocket(context));
  const sidecarSocket = socket ?? there(defaultSidecarSocket(context));
  const { client, missed } = clientOf(context, config);
  return {
    ...(adminSocket !== undefined && { adminSocket }),
    ...(sidecarSocket !== undefined && { sidecarSocket }),
    ...(client !== undefined && { config: client }),
    missed,
  };
}

/** A configuration that was named must be good; the default file may be a server's, or not be there. */
function clientOf(
  context: CliContext,
  path: string | undefined,
): { client?: ClientConfig; missed: StatusRequest["missed"] } {
  if (path !== undefined) return { client: loadClientConfig(context, path, []), missed: [] };
  const file = join(context.env.HOME || homedir(), ".klio.yaml");
  if (!existsSync(file) && !context.env.CLIENT_CLUSTER_NAME) return { missed: [] };
  try {
    return { client: loadClientConfig(context, undefined, []), missed: [] };
  } catch (error) {
    if (!(error instanceof KlioError)) throw error;
    return { missed: [{ part: `client configuration ${file}`, error: error.message }] };
  }
}
