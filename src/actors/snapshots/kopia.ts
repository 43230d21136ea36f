// Runs one command of the snapshot program. Passwords and keys go in the environment, never in arguments.
import type { Log } from "../../domain/log.ts";
import { type CommandResult, runCommand } from "../process/run-command.ts";

export type Kopia = {
  /** Absolute path. */
  executable: string;
  /** Directory of ours that the program may take for its home; it writes nothing there. */
  home: string;
  /** Further variables of the child: proxies, credentials of the object store. */
  environment: Readonly<Record<string, string>>;
  log: Log;
};

export type KopiaCommand = {
  args: readonly string[];
  /** Connection file, absolute. */
  configFile: string;
  password: string;
  env?: Readonly<Record<string, string>>;
  signal?: AbortSignal;
  onLine?: (stream: "stdout" | "stderr", line: string) => void;
};

/** A cancelled upload saves a checkpoint before it ends; longer than this it may not take. */
const STOP_WITHIN_MS = 20_000;

export function kopiaEnvironment(kopia: Kopia, password: string): Record<string, string> {
  return {
    ...kopia.environment,
    HOME: kopia.home,
    KOPIA_PASSWORD: password,
    KOPIA_CHECK_FOR_UPDATES: "false",
  };
}

/** Resolves when the program has ended, whatever its exit status. Rejects with KLIO-TOOL-MISSING only. */
export async function runKopia(kopia: Kopia, command: KopiaCommand): Promise<CommandResult> {
  const begin = performance.now();
  const result = await runCommand({
    command: kopia.executable,
    args: [...command.args, `--config-file=${command.configFile}`, "--disable-file-logging"],
    env: { ...kopiaEnvironment(kopia, command.password), ...command.env },
    killAfterMs: STOP_WITHIN_MS,
    ...(command.signal !== undefined && { signal: command.signal }),
    ...(command.onLine !== undefined && { onLine: command.onLine }),
  });
  kopia.log.debug("repository.command", `${command.args.slice(0, 2).join(" ")} ended`, {
    code: result.code,
    signal: result.signal,
    durationMs: Math.round(performance.now() - begin),
  });
  return result;
}
