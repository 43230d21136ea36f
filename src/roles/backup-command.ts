// `klio backup run`: one base backup, in this process with telemetry around it, or by the sidecar behind a control socket.
import type { BackupRequest, BackupStep } from "../actors/grpc/serve-sidecar.actor.ts";
import { requestBackup } from "../actors/grpc/sidecar-client.ts";
import type { ClientConfig, Environment } from "../config/config.ts";
import { timeName } from "../domain/backup-name.ts";
import { startTelemetry, unscraped } from "../telemetry/telemetry.ts";
import { runBaseBackup } from "./backup.ts";
import { commandLog } from "./command-log.ts";

export type BackupCommand = {
  config: ClientConfig;
  env: Environment;
  stderr: NodeJS.WritableStream & { isTTY?: boolean };
  logLevel: string;
  signal: AbortSignal;
};

/** The name of a backup that was given none on the command line: the time, `YYYYMMDDhhmmss`. */
export const nameOfNow = () => timeName(Date.now());

/** Resolves with the metadata as JSON; rejects as `runBaseBackup` does. */
export async function runBackupCommand(
  command: BackupCommand,
  request: BackupRequest & { onProgress: (step: BackupStep) => void },
): Promise<string> {
  const { config, env, stderr, logLevel, signal } = command;
  const log = commandLog(stderr, logLevel);
  const telemetry = await startTelemetry({ service: "klio-plugin", env: unscraped(env), log });
  try {
    return (await runBaseBackup({ ...request, config, env, telemetry, log, signal })).metadataJson;
  } finally {
    await telemetry.shutdown();
  }
}

/** The same from the sidecar; rejects also with KLIO-SERVER-DOWN when none answers. */
export function askSidecar(
  socketPath: string,
  signal: AbortSignal,
  { onProgress, ...request }: BackupRequest & { onProgress: (step: BackupStep) => void },
): Promise<string> {
  return requestBackup(socketPath, request, { signal, onStep: onProgress });
}
