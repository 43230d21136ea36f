// The log of a command that runs and ends: on stderr, for people when that is a terminal.
import type { Log, LogLevel } from "../domain/log.ts";
import { KlioError } from "../errors.ts";
import { createLog } from "../telemetry/log.ts";

const LEVELS: readonly LogLevel[] = ["trace", "debug", "info", "warn", "error"];

/** Throws KLIO-USAGE for a level that is none. */
export function commandLog(stderr: NodeJS.WritableStream & { isTTY?: boolean }, logLevel: string): Log {
  const level = LEVELS.find((one) => one === logLevel);
  if (level === undefined)
    throw new KlioError("KLIO-USAGE", `not a log level: ${JSON.stringify(logLevel)}`, {
      hint: `write one of ${LEVELS.join(", ")}`,
    });
  return createLog({ level, destination: stderr, pretty: stderr.isTTY === true });
}
