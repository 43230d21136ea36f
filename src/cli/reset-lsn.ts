// klio reset-lsn: accept that WAL is missing, and stream from the source's current position on.
import type { Command } from "commander";
import { resetStream } from "../roles/cluster-metadata.ts";
import type { CliContext } from "./context.ts";
import { loadClientConfig } from "./load-config.ts";

export function registerResetLsn(program: Command, context: CliContext): void {
  program
    .command("reset-lsn")
    .description(
      "record a gap: give up WAL that PostgreSQL no longer has and stream from its current position on. Needs a new base backup afterwards",
    )
    .option("--json", "print JSON", false)
    .action(async (_: unknown, command: Command) => {
      const { config, logLevel, json } = command.optsWithGlobals<{
        config?: string;
        logLevel: string;
        json: boolean;
      }>();
      const { signal, stderr } = context;
      const reset = await resetStream({
        config: loadClientConfig(context, config, ["source", "wal"]),
        stderr,
        logLevel,
        signal,
      });
      const document = { wal_name: reset.walName, slot: reset.slot, slot_dropped: reset.slotDropped };
      context.stdout.write(
        json
          ? `${JSON.stringify(document)}\n`
          : `The gap is recorded: the stream goes on at ${reset.walName}.${reset.slotDropped ? ` The slot ${reset.slot} was dropped; the stream makes it again.` : ""}\nTake a base backup now: none from before can reach beyond the gap.\n`,
      );
    });
}
