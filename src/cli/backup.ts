// klio backup: take base backups, and look after those that are stored.
import { type Command, InvalidArgumentError } from "commander";
import { type BackupMetadata, formatBackupMetadata } from "../domain/backup-metadata.ts";
import { KlioError } from "../errors.ts";
import { askSidecar, type BackupCommand, nameOfNow, runBackupCommand } from "../roles/backup-command.ts";
import { commandLog } from "../roles/command-log.ts";
import { createProgress } from "../roles/progress-line.ts";
import { deleteBackup, listBackups, readBackup, type VerifiedBackup, verifyBackups } from "../roles/stored-backups.ts";
import { noTelemetry } from "../telemetry/telemetry.ts";
import type { CliContext } from "./context.ts";
import { loadClientConfig } from "./load-config.ts";
import { table } from "./table.ts";

type Global = { config?: string; logLevel: string };
type RunFlags = Global & { name?: string; waitForWals: boolean; enableTier2Backup: boolean; socket?: string };
type VerifyFlags = Global & { all: boolean; tiers: ("tier1" | "tier2")[]; percent?: number; json: boolean };

function tierList(text: string): ("tier1" | "tier2")[] {
  return text.split(",").map((word) => {
    const tier = word.trim();
    if (tier !== "tier1" && tier !== "tier2") throw new InvalidArgumentError("write tier1, tier2 or tier1,tier2.");
    return tier;
  });
}

function percentage(text: string): number {
  if (!/^\d{1,3}$/.test(text) || Number(text) > 100) throw new InvalidArgumentError("write a number from 0 to 100.");
  return Number(text);
}

const timeText = (epochSeconds: number) => new Date(epochSeconds * 1000).toISOString().replace(".000", "");

function listText(backups: readonly BackupMetadata[]): string {
  const tiers = ({ annotations }: BackupMetadata) =>
    ["tier1", "tier2"].filter((tier) => annotations[`klio.io/${tier}`] !== undefined).join(", ");
  return table(
    ["NAME", "STARTED", "ENDED", "TIMELINE", "FIRST WAL", "LAST WAL", "TIERS"],
    backups.map((one) => [
      one.name,
      timeText(one.startedAt),
      timeText(one.stoppedAt),
      String(one.tli),
      one.startWal,
      one.endWal,
      tiers(one),
    ]),
  );
}

function verdictText({ backup, tier, coverage, damage }: VerifiedBackup): string {
  if (damage.length === 0)
    return `${backup} on ${tier}: sound, ${Math.round(coverage * 100)} % of its files were read\n`;
  return `${backup} on ${tier}: DAMAGED\n${damage.map((line) => `  ${line}\n`).join("")}`;
}

export function registerBackup(program: Command, context: CliContext): void {
  const { env, stdout, stderr, signal } = context;
  const backup = program.command("backup").description("base backups: take one, and look after those that are stored");
  const print = (text: string) => void stdout.write(text);
  const access = ({ config, logLevel }: Global) => ({
    config: loadClientConfig(context, config, ["base", "wal"]),
    env,
    telemetry: noTelemetry(),
    log: commandLog(stderr, logLevel),
    signal,
  });

  backup
    .command("run")
    .description("take a base backup of the running PostgreSQL and verify it; prints its metadata as JSON")
    .option("-n, --name <name>", "name of the backup (default: the time, YYYYMMDDhhmmss)")
    .option("--wait-for-wals", "complete only when the WAL of the backup is stored", true)
    .option("--no-wait-for-wals", "do not wait for it: on a standby, whose WAL its primary's sidecar streams")
    .option("--enable-tier2-backup", "send the backup on to tier 2", false)
    .option("--socket <path>", "let the sidecar behind this control socket take it")
    .action(async (_: unknown, command: Command) => {
      const { config: file, logLevel, socket, ...flags } = command.optsWithGlobals<RunFlags>();
      const name = flags.name ?? nameOfNow();
      const request = { name, sendToTier2: flags.enableTier2Backup, waitForWals: flags.waitForWals };
      const progress = createProgress(stderr);
      const onProgress = (step: { state: string; processedBytes: number; estimatedBytes: number }) =>
        progress.show({ phase: step.state, bytes: step.processedBytes, totalBytes: step.estimatedBytes });
      try {
        const own = (): BackupCommand => ({
          config: loadClientConfig(context, file, ["source", "base", "wal"]),
          env,
          stderr,
          logLevel,
          signal,
        });
        const metadata =
          socket === undefined
            ? await runBackupCommand(own(), { ...request, onProgress })
            : await askSidecar(socket, signal, { ...request, onProgress });
        print(`${metadata}\n`);
      } finally {
        progress.end();
      }
    });

  backup
    .command("list")
    .description(
      "backups of both tiers, oldest first: JSON, or a table on a terminal; fails after it when a tier does not answer",
    )
    .option("--json", "print JSON on a terminal, too", false)
    .action(async (_: unknown, command: Command) => {
      const { json, ...global } = command.optsWithGlobals<Global & { json: boolean }>();
      const { backups, silent } = await listBackups(access(global));
      const documents = backups.map((one) => formatBackupMetadata(one, 2));
      print(!json && stdout.isTTY === true ? listText(backups) : `[${documents.join(",\n")}]\n`);
      if (silent !== undefined) throw silent; // nobody must take it for all there is
    });

  backup
    .command("get-metadata")
    .description("print the metadata of a backup as JSON")
    .argument("<name>", "name of the backup")
    .action(async (name: string, _: unknown, command: Command) => {
      print(`${formatBackupMetadata(await readBackup(name, access(command.optsWithGlobals<Global>())), 2)}\n`);
    });

  backup
    .command("verify")
    .description("read stored backups back, and look for the WAL they need; exit status 65 when one is damaged")
    .argument("[names...]", "names of backups")
    .option("--all", "all backups", false)
    .option("--tiers <tiers>", "which tiers", tierList, ["tier1", "tier2"])
    .option("--percent <n>", "share of the files whose bytes are read (default: all up to 100 GiB)", percentage)
    .option("--json", "print one JSON document per backup", false)
    .action(async (names: string[], _: unknown, command: Command) => {
      const { all, tiers, percent, json, ...global } = command.optsWithGlobals<VerifyFlags>();
      if (all === names.length > 0)
        throw new KlioError("KLIO-USAGE", all ? "give names or --all, not both" : "no backup is named", {
          hint: "name the backups, or give --all",
        });
      await verifyBackups(
        {
          names,
          tiers,
          ...(percent !== undefined && { percent }),
          onVerified: (verdict) => print(json ? `${JSON.stringify(verdict)}\n` : verdictText(verdict)),
        },
        access(global),
      );
    });

  backup
    .command("delete")
    .description("take a backup off tier 1; the server removes it with its next maintenance")
    .argument("<name>", "name of the backup")
    .action(async (name: string, _: unknown, command: Command) => {
      await deleteBackup(name, access(command.optsWithGlobals<Global>()));
      print(`backup ${name} is deleted from tier 1\n`);
    });
}
