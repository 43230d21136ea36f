// What the sidecar's control socket does: one backup at a time, beside the stream.
import type { BackupRequest, BackupStep, SidecarHandlers } from "../actors/grpc/serve-sidecar.actor.ts";
import type { Log } from "../domain/log.ts";
import { KlioError } from "../errors.ts";
import type { SlotStatus } from "./slot-watch.ts";
import type { RunningStream } from "./wal-stream.ts";

/** Runs a base backup to its end; resolves with its metadata as JSON, rejects with a KlioError. */
export type BackupRunner = (
  request: BackupRequest,
  onStep: (step: BackupStep) => void,
  signal: AbortSignal,
) => Promise<string>;

export type SidecarControl = SidecarHandlers & {
  /** Cancels a running backup; resolves when it has ended. */
  stop(): Promise<void>;
};

export function sidecarControl(options: {
  cluster: string;
  stream: Pick<RunningStream, "status" | "stop">;
  runBackup: BackupRunner;
  log: Log;
}): SidecarControl {
  const stopping = new AbortController();
  let running: Promise<unknown> | undefined;
  let backupState = "idle";
  return {
    status() {
      const { state, slot, exposureSeconds, exposureBytes, ...stream } = options.stream.status();
      return {
        ...stream,
        clusterName: options.cluster,
        streamState: state,
        exposureSeconds,
        exposureSize: BigInt(exposureBytes),
        slot: slotMessage(slot),
        backupState,
      };
    },
    async stopStream() {
      options.log.warn(
        "sidecar.stream.stopped",
        "asked to end the WAL stream; it begins again when this is started anew",
      );
      await options.stream.stop();
    },
    async runBackup(request, onStep, signal) {
      if (stopping.signal.aborted) throw new KlioError("KLIO-CANCELLED", "the sidecar is stopping");
      if (running !== undefined)
        throw new KlioError("KLIO-BACKUP-RUNNING", `a backup of this cluster is running (${backupState})`);
      const told = (step: BackupStep) => {
        backupState = step.state;
        onStep(step);
      };
      backupState = "starting";
      const backup = options.runBackup(request, told, AbortSignal.any([signal, stopping.signal]));
      running = backup.then(
        () => undefined,
        () => undefined, // the caller gets the failure; here only the end matters
      );
      try {
        return await backup;
      } finally {
        running = undefined;
        backupState = "idle";
      }
    },
    async stop() {
      stopping.abort();
      await running;
    },
  };
}

function slotMessage({ name, level, isPresent, active, ...amounts }: SlotStatus) {
  const { status, retainedBytes, safeBytes, freeBytes, secondsToFull } = amounts;
  return {
    name,
    level,
    present: isPresent,
    active,
    walStatus: status,
    retainedSize: BigInt(Math.trunc(retainedBytes)),
    ...(safeBytes !== null && { safeSize: BigInt(Math.trunc(safeBytes)) }),
    ...(freeBytes !== null && { volumeFreeSize: BigInt(Math.trunc(freeBytes)) }),
    ...(secondsToFull !== null && { secondsToFull }),
  };
}
