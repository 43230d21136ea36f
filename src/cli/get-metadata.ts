// klio get-metadata: what the server knows of the cluster.
import type { Command } from "commander";
import { readClusterMetadata } from "../roles/cluster-metadata.ts";
import type { CliContext } from "./context.ts";
import { loadClientConfig } from "./load-config.ts";

export function registerGetMetadata(program: Command, context: CliContext): void {
  program
    .command("get-metadata")
    .description("print what the server knows of this cluster: system identifier and recorded gaps, as JSON")
    .action(async (_: unknown, command: Command) => {
      const { config, logLevel } = command.optsWithGlobals<{ config?: string; logLevel: string }>();
      const { signal, stderr } = context;
      const text = await readClusterMetadata({
        config: loadClientConfig(context, config, ["wal"]),
        stderr,
        logLevel,
        signal,
      });
      context.stdout.write(`${text}\n`);
    });
}
