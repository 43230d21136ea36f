// `klio restore` as people and scripts use it: what was asked for in words, what will be done, how far it is, what came out.
import { existsSync } from "node:fs";
import { homedir } from "node:os";
import { dirname, extname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { parseTablespaces } from "../actors/restore/destination.ts";
import { SPOOL_NAME } from "../actors/wal-fetch/spool.ts";
import type { ClientConfig, Environment } from "../config/config.ts";
import { shellWord } from "../domain/recovery-settings.ts";
import { parseTarget, targetText } from "../domain/recovery-target.ts";
import { KlioError } from "../errors.ts";
import { startTelemetry, unscraped } from "../telemetry/telemetry.ts";
import { commandLog } from "./command-log.ts";
import { openTierSnapshots } from "./open-snapshots.ts";
import { createProgress, megabytes } from "./progress-line.ts";
import { type RestorePlan, type RestoreResult, runRestore } from "./restore.ts";
import type { AskedTier } from "./wal-fetch.ts";

export type RestoreClusterOptions = {
  config: ClientConfig;
  /** Absolute path of the file that `config` was read from; undefined: the default one, or the environment alone. */
  configFile?: string;
  destination: string;
  backupId?: string;
  targetTime?: string;
  targetLsn?: string;
  targetTimeline?: number;
  tablespaces?: string;
  tier: AskedTier;
  configure: boolean;
  json: boolean;
  env: Environment;
  stdout: NodeJS.WritableStream;
  stderr: NodeJS.WritableStream & { isTTY?: boolean };
  logLevel: string;
  signal: AbortSignal;
};

/** Prints the plan and the progress on stderr, the result on stdout. Rejects like `runRestore`, and with KLIO-USAGE. */
export async function restoreCluster(options: RestoreClusterOptions): Promise<void> {
  const { stderr, stdout, json, config, signal } = options;
  const target = parseTarget({ time: options.targetTime, lsn: options.targetLsn });
  const tablespaces =
    options.tablespaces === undefined ? new Map<string, string>() : parseTablespaces(options.tablespaces);
  const log = commandLog(stderr, options.logLevel);
  const configFile = options.configure ? requireConfigFile(options) : undefined;
  const progress = createProgress(stderr);
  await using stack = new AsyncDisposableStack();
  const telemetry = await startTelemetry({ service: "klio-restore", env: unscraped(options.env), log });
  stack.defer(() => telemetry.shutdown());
  const result = await runRestore({
    config,
    destination: resolve(options.destination),
    ...(options.backupId !== undefined && { backupId: options.backupId }),
    target,
    ...(options.targetTimeline !== undefined && { targetTimeline: options.targetTimeline }),
    tablespaces,
    tier: options.tier,
    ...(configFile !== undefined && {
      restoreCommand: (tier: AskedTier) => restoreCommandOf(configFile, tier, config.walPrefetch.count > 0),
    }),
    openSnapshots: openTierSnapshots({ config, env: options.env, log, signal }),
    telemetry,
    log,
    signal,
    onPlan: (plan) => stderr.write(planText(plan)),
    onProgress: progress.show,
  });
  progress.end();
  stdout.write(json ? `${JSON.stringify(resultJson(result), null, 2)}\n` : resultText(result));
}

/** PostgreSQL runs get-wal later, without our environment: the configuration must be in a file. */
function requireConfigFile({ configFile, env }: RestoreClusterOptions): string {
  const file = configFile ?? join(env.HOME || homedir(), ".klio.yaml");
  if (existsSync(file)) return file;
  throw new KlioError("KLIO-USAGE", "--configure needs a configuration file, which restore_command can name", {
    hint: "write the configuration to a file and name it with --config",
  });
}

/**
 * The restore_command. A segment that was fetched ahead is moved into place by the shell alone, which costs less than a copy;
 * all else goes through get-wal. Working directory is the data directory.
 */
function restoreCommandOf(configFile: string, tier: AskedTier, prefetch: boolean): string {
  const own = fileURLToPath(import.meta.url);
  const main = join(dirname(own), "..", `main${extname(own)}`);
  const words = [process.execPath, main, "--config", configFile, "get-wal", "--tier", tier].map(shellWord).join(" ");
  const call = `${words} --partial --stop-on-error "%f" "%p"`;
  return prefetch ? `mv -f "pg_wal/${SPOOL_NAME}/%f" "%p" 2>/dev/null || ${call}` : call;
}

function planText(plan: RestorePlan): string {
  const lines = [
    `restoring backup ${plan.backup} (${megabytes(plan.bytes)}) from ${plan.tier} into ${plan.destination}`,
    ...Object.entries(plan.tablespaces).map(([name, path]) => `  tablespace ${name} into ${path}`),
    `  target: ${targetText(plan.target)}, on timeline ${plan.timeline}`,
    `  WAL: ${plan.firstWal} to ${plan.lastWal} on ${plan.walTiers.join(" and ")}, without a hole`,
  ];
  return `${lines.join("\n")}\n`;
}

function resultText({ backup, destination, files, bytes, seconds, restoreCommand }: RestoreResult): string {
  const next =
    restoreCommand === undefined
      ? "It holds no recovery settings: set restore_command (see 'klio get-wal --help'), the target and recovery.signal before starting PostgreSQL.\n"
      : "Start PostgreSQL on it: it fetches its WAL by itself, recovers to the target and then accepts writes.\n";
  return `restored ${backup} into ${destination}: ${files} files, ${megabytes(bytes)}, ${seconds.toFixed(1)} s\n${next}`;
}

function resultJson({ target, ...result }: RestoreResult) {
  return { ...result, target: { ...target, text: targetText(target) } };
}
