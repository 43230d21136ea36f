// `klio get-wal NAME FILE`: what a restore_command calls.
import { resolve } from "node:path";
import { type Command, InvalidArgumentError, Option } from "commander";
import { errorTable, exitStatus, KlioError } from "../errors.ts";
import { type GetWalOptions, getWal, stayBehind } from "../roles/get-wal.ts";
import type { CliContext } from "./context.ts";

type Options = {
  tier: "auto" | "tier1" | "tier2";
  partial: boolean;
  attempts: number;
  stopOnError: boolean;
  prefetcher?: number;
};

/** PostgreSQL takes a status above 125 for "stop the recovery", any other but 0 for "there is no such file". */
const STOP_STATUS = 255;

function count(text: string): number {
  const value = Number(text);
  if (!/^\d{1,10}$/.test(text) || value < 1) throw new InvalidArgumentError("not a number above 0");
  return value;
}

export function registerGetWal(program: Command, context: CliContext): void {
  program
    .command("get-wal")
    .description(
      "fetch a WAL file, as restore_command does. Exit status 0: done; 4: the file is stored nowhere; 1: anything else",
    )
    .argument("<name>", "name of the WAL file (%f)")
    .argument("<file>", "where to put it (%p): replaced when the whole file is there, untouched before")
    .addOption(
      new Option("--tier <tier>", "where to look; auto: tier 1, then tier 2 if tier2_recovery_enabled")
        .choices(["auto", "tier1", "tier2"])
        .default("auto"),
    )
    .option("--partial", "take an unfinished segment, padded with zeros, when the whole one is stored nowhere", false)
    .option("--attempts <n>", "how often to ask when a tier does not answer", count, 3)
    .option(
      "--stop-on-error",
      `exit with ${STOP_STATUS}, not 1, when a tier does not answer: PostgreSQL then stops its recovery, where it would end it early and lose what comes after`,
      false,
    )
    .addOption(new Option("--prefetcher <segmentBytes>").argParser(count).hideHelp())
    .addHelpText(
      "after",
      "\nWhen FILE lies in a pg_wal directory, a process stays behind that fetches wal_prefetch.count segments ahead into\n.klio-spool beside it, until nothing was asked for during a minute.",
    )
    .action(async (name: string, file: string, options: Options) => {
      const { config, logLevel } = program.opts<{ config?: string; logLevel: string }>();
      const role: GetWalOptions = {
        name,
        file,
        tier: options.tier,
        partial: options.partial,
        attempts: options.attempts,
        ...(config !== undefined && { configFile: resolve(config) }),
        loadConfig: async () => (await import("./load-config.ts")).loadClientConfig(context, config, ["wal"]),
        logLevel,
        stderr: context.stderr,
        env: context.env,
        signal: context.signal,
      };
      if (options.prefetcher !== undefined) return stayBehind(role, options.prefetcher);
      const status = await fetchFile(context, role, options.stopOnError ? STOP_STATUS : exitStatus.failed);
      if (status !== exitStatus.done) context.exit(status);
    });
}

/** The exit status. Callers of a restore_command know two failures only: missing, and all the rest. */
async function fetchFile(context: CliContext, options: GetWalOptions, failed: number): Promise<number> {
  try {
    const output = await getWal(options);
    if (output.kind === "fetched") return exitStatus.done;
    if (output.kind === "missing") {
      context.stderr.write(`${options.name} is not stored\n`);
      return exitStatus.walMissing;
    }
    context.stderr.write(
      `Error: cannot fetch ${options.name}: ${output.reason}\nHint: ${errorTable[output.code].cure}\n`,
    );
    return failed;
  } catch (error) {
    if (!(error instanceof KlioError) || error.kind === "bug") {
      if (failed === exitStatus.failed) throw error;
      context.stderr.write(`Error: ${String(error)}\n`);
      return failed;
    }
    context.stderr.write(`Error: ${error.message}\nHint: ${error.hint}\n`);
    return error.code === "KLIO-TIER-MISSING" && failed === exitStatus.failed ? exitStatus.walMissing : failed;
  }
}
