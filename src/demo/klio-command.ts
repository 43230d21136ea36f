// Runs a `klio` command as a user would, and reads what it printed.
import { type CommandResult, runCommand } from "../actors/process/run-command.ts";
import { KlioError } from "../errors.ts";
import type { Program } from "./program.ts";
import type { RunAs } from "./run-as.ts";

export type KlioCommand = {
  program: Program;
  args: readonly string[];
  env: Readonly<Record<string, string>>;
  runAs: RunAs;
  signal?: AbortSignal;
  onLine?: (line: string) => void;
};

/** The result, whatever its exit status. */
export function tryKlio(command: KlioCommand): Promise<CommandResult> {
  const { program, args, env, runAs, signal, onLine } = command;
  return runCommand({
    command: program.node,
    args: [program.main, ...args],
    env,
    ...runAs,
    ...(signal !== undefined && { signal }),
    ...(onLine !== undefined && { onLine: (_, line) => onLine(line) }),
  });
}

/** Its stdout. Rejects with KLIO-CHILD-FAILED, which quotes the end of its stderr. */
export async function klio(command: KlioCommand): Promise<string> {
  return outputOf(command, await tryKlio(command));
}

/** The stdout of a command that ended well; throws as `klio` rejects. */
export function outputOf(command: Pick<KlioCommand, "args">, result: CommandResult): string {
  if (result.code === 0) return result.stdout;
  const how = result.code === undefined ? `was ended by ${result.signal}` : `ended with exit status ${result.code}`;
  const said = result.stderr.trim().split("\n").slice(-4).join("\n");
  throw new KlioError("KLIO-CHILD-FAILED", `'klio ${command.args.slice(0, 2).join(" ")}' ${how}: ${said}`);
}
