// klio slot: the replication slot of a source.
import type { Command } from "commander";
import { type DropSlotReport, runDropSlot } from "../roles/drop-slot.ts";
import type { CliContext } from "./context.ts";
import { defaultSidecarSocket, loadClientConfig } from "./load-config.ts";

type Options = { config?: string; yes: boolean; stopSidecar: boolean; socket: string; json: boolean };

export function registerSlot(program: Command, context: CliContext): void {
  const slot = program.command("slot").description("the replication slot that keeps WAL for the stream");
  slot
    .command("drop")
    .description(
      "end the protection of this PostgreSQL: drop the slot, so that no more WAL is kept for Klio. A stream that is started again makes the slot anew, with a gap if the server lacks WAL by then",
    )
    .option("--yes", "do it; without it only what would happen is told", false)
    .option("--stop-sidecar", "have the running sidecar end its WAL stream first, until it is started again", false)
    .option("--socket <path>", "control socket of the sidecar", defaultSidecarSocket(context))
    .option("--json", "print JSON: slot, dropped, freed_bytes", false)
    .action(async (_: unknown, command: Command) => {
      const { config, yes, stopSidecar, socket, json } = command.optsWithGlobals<Options>();
      const report = await runDropSlot({
        config: loadClientConfig(context, config, ["source"]),
        confirmed: yes,
        ...(stopSidecar && { stopSidecar: socket }),
        signal: context.signal,
      });
      context.stdout.write(json ? `${JSON.stringify(report)}\n` : dropText(report, stopSidecar));
    });
}

function dropText({ slot, dropped, freed_bytes }: DropSlotReport, isStopped: boolean): string {
  if (!dropped) return `There is no replication slot ${slot}\n`;
  const again = isStopped
    ? "The sidecar streams no more until it is started again.\n"
    : "A sidecar or send-wal that still runs makes it again.\n";
  return `The replication slot ${slot} is dropped: PostgreSQL may remove ${(freed_bytes / 1e6).toFixed(1)} MB of WAL\n${again}`;
}
