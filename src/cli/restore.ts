// klio restore DEST
import { resolve } from "node:path";
import { type Command, InvalidArgumentError, Option } from "commander";
import { restoreCluster } from "../roles/restore-cluster.ts";
import type { CliContext } from "./context.ts";
import { loadClientConfig } from "./load-config.ts";

type Options = {
  backupId?: string;
  targetTime?: string;
  targetLsn?: string;
  targetTimeline?: number;
  tablespaces?: string;
  tier: "auto" | "tier1" | "tier2";
  configure: boolean;
  json: boolean;
};

function timeline(text: string): number | undefined {
  if (text === "latest") return undefined;
  const value = /^(\d{1,10}|0x[0-9A-Fa-f]{1,8})$/.test(text) ? Number(text) : 0;
  if (value < 1 || value > 0xffff_ffff) throw new InvalidArgumentError("must be a timeline (1, 2, …) or latest.");
  return value;
}

export function registerRestore(program: Command, context: CliContext): void {
  program
    .command("restore")
    .description(
      "restore a cluster's data directory from a base backup; refuses before it starts when the target cannot be reached",
    )
    .argument("<dest>", "data directory to make: absent or empty")
    .option("--backup-id <name>", "start from this backup (default: the latest that suits the target)")
    .option(
      "--target-time <time>",
      "recover to this time: 2026-01-31T23:59:59Z, 2026-01-31 23:59:59.5+01:00, or seconds since 1970; a time without its zone is refused",
    )
    .option("--target-lsn <lsn>", "recover to this position, e.g. 16/B374D848 (default: the end of the stored WAL)")
    .option("--target-timeline <n>", "recover along this timeline (default: the latest that is stored)", timeline)
    .option("--tablespaces <name:path,…>", "restore these tablespaces to other directories, absent or empty")
    .addOption(
      new Option("--tier <tier>", "where from; auto: tier 1, then tier 2 if tier2_recovery_enabled")
        .choices(["auto", "tier1", "tier2"])
        .default("auto"),
    )
    .option(
      "--configure",
      "also write recovery.signal and recovery settings to postgresql.auto.conf: PostgreSQL then fetches WAL by itself, recovers to the target and accepts writes",
      false,
    )
    .option("--json", "print the result as one JSON document on stdout", false)
    .action(async (destination: string, options: Options) => {
      const { config, logLevel } = program.opts<{ config?: string; logLevel: string }>();
      await restoreCluster({
        ...options,
        destination,
        config: loadClientConfig(context, config, ["base", "wal"]),
        ...(config !== undefined && { configFile: resolve(config) }),
        env: context.env,
        stdout: context.stdout,
        stderr: context.stderr,
        logLevel,
        signal: context.signal,
      });
    });
}
