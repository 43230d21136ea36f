// klio demo: the whole story on real servers on loopback.
import { type Command, InvalidArgumentError } from "commander";
import { runDemo } from "../roles/demo.ts";
import type { CliContext } from "./context.ts";

const VERSIONS = [15, 16, 17, 18] as const;

function parseVersion(text: string): (typeof VERSIONS)[number] {
  const found = VERSIONS.find((version) => String(version) === text);
  if (found === undefined) throw new InvalidArgumentError(`must be one of ${VERSIONS.join(", ")}.`);
  return found;
}

export function registerDemo(program: Command, context: CliContext): void {
  program
    .command("demo")
    .description(
      "stream, back up, lose the primary, recover from each tier and compare every row, on real servers on loopback",
    )
    .option("--once", "end after the table; exit status 0 only if every check held", false)
    .option("--json", "print the figures as one JSON document on stdout", false)
    .option("--pg-version <version>", "PostgreSQL 15, 16, 17 or 18", parseVersion, 17 as const)
    .option("--dir <dir>", "keep everything in this directory (default: a temporary one, removed at the end)")
    .action(async (options: { once: boolean; json: boolean; pgVersion: (typeof VERSIONS)[number]; dir?: string }) => {
      const status = await runDemo({
        once: options.once,
        json: options.json,
        version: options.pgVersion,
        ...(options.dir !== undefined && { directory: options.dir }),
        env: context.env,
        stdout: context.stdout,
        stderr: context.stderr,
        signal: context.signal,
      });
      context.exit(status);
    });
}
