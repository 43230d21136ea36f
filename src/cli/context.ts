// What every command gets from main.ts: the process's surroundings, so that commands never reach for `process`.
import type { Environment } from "../config/config.ts";

export type CliContext = {
  env: Environment;
  /** argv after the program's name. */
  argv: readonly string[];
  stdout: NodeJS.WritableStream & { isTTY?: boolean };
  stderr: NodeJS.WritableStream & { isTTY?: boolean };
  /** Aborted at SIGINT or SIGTERM. */
  signal: AbortSignal;
  /** Sets the exit status with which the process ends when nothing is left to do. */
  exit: (status: number) => void;
};
