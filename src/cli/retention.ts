// klio retention: how long backups are kept, per cluster and tier, on a running server.
import { type Command, InvalidArgumentError, Option } from "commander";
import { KlioError } from "../errors.ts";
import { type RetentionReport, type RetentionRules, type TierName, withAdmin } from "../roles/admin.ts";
import type { CliContext } from "./context.ts";
import { defaultAdminSocket } from "./load-config.ts";

type Options = RetentionRules & {
  socketPath: string;
  cluster: string;
  tier: TierName;
  json?: boolean;
  dryRun?: boolean;
};

const RULES = [
  ["keepLatest", "--keep-latest <n>", "the newest N backups (default 10)"],
  ["keepHourly", "--keep-hourly <n>", "the newest of each of the last N hours (default 48)"],
  ["keepDaily", "--keep-daily <n>", "the newest of each of the last N days (default 7)"],
  ["keepWeekly", "--keep-weekly <n>", "the newest of each of the last N weeks (default 4)"],
  ["keepMonthly", "--keep-monthly <n>", "the newest of each of the last N months (default 24)"],
  ["keepAnnual", "--keep-annual <n>", "the newest of each of the last N years (default 1)"],
  ["recoveryWindowDays", "--recovery-window-days <n>", "any point of the last N days stays recoverable (default off)"],
] as const;

function count(text: string): number {
  if (!/^\d{1,9}$/.test(text)) throw new InvalidArgumentError("not a whole number");
  return Number(text);
}

export function registerRetention(program: Command, context: CliContext): void {
  const retention = program.command("retention").description("how long backups are kept, on a running server");
  const print = (text: string) => void context.stdout.write(text);
  const under = (name: string, description: string) =>
    retention
      .command(name)
      .description(description)
      .option("--socket-path <path>", "admin socket of the server", defaultAdminSocket(context))
      .requiredOption("--cluster <cluster>", "name of the cluster");
  const tier = () => new Option("--tier <tier>", "which tier").choices(["tier1", "tier2"]).default("tier1");

  under("get", "print the policies that are set, as JSON").action(async (options: Options) => {
    const rules = await withAdmin(options.socketPath, (session) => session.getRetention(options.cluster));
    print(`${JSON.stringify(rules)}\n`);
  });

  const set = under("set", "replace the policy of a tier; rules that are not named take their defaults").addOption(
    tier(),
  );
  for (const [, flag, description] of RULES) set.option(flag, description, count);
  set.action(async (options: Options) => {
    const rules: RetentionRules = {};
    for (const [rule] of RULES) if (options[rule] !== undefined) rules[rule] = options[rule];
    if (Object.keys(rules).length === 0)
      throw new KlioError("KLIO-USAGE", "no rule is given", { hint: "name at least one, such as --keep-latest 10" });
    await withAdmin(options.socketPath, (session) => session.setRetention(options.cluster, options.tier, rules));
    print(`Retention of ${options.cluster} on ${options.tier} set\n`);
  });

  under("apply", "delete what the policy does not keep, and WAL that no backup needs")
    .addOption(tier())
    .option("--dry-run", "only say what would go")
    .option("--json", "print JSON")
    .action(async (options: Options) => {
      const report = await withAdmin(options.socketPath, (session) =>
        session.applyRetention(options.cluster, options.tier, options.dryRun === true),
      );
      print(options.json === true ? `${JSON.stringify(report)}\n` : summary(report, options.dryRun === true));
    });
}

function summary(report: RetentionReport, dryRun: boolean): string {
  const verb = dryRun ? "Would delete" : "Deleted";
  const { deletedBackups, deletedOrphans, deletedWalFiles, firstWal, heldBy } = report;
  const lines = [
    ...Object.entries(report.kept).map(([name, reasons]) => `Kept ${name} (${reasons.join(", ")})`),
    `${verb} ${deletedBackups.length} backups${deletedBackups.length === 0 ? "" : `: ${deletedBackups.join(", ")}`}`,
    `${verb} ${deletedOrphans} snapshots of no backup`,
    `${verb} ${deletedWalFiles} WAL files${firstWal === "" ? "" : ` before ${firstWal}`}${heldBy === "" ? "" : ` (all kept: ${heldBy})`}`,
  ];
  return `${lines.join("\n")}\n`;
}
