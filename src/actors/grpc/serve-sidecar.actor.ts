// Control of a running sidecar over its local socket: run a backup, say how the stream is, end the stream.
import { create, type MessageInitShape } from "@bufbuild/protobuf";
import type { ServerInterceptor } from "@grpc/grpc-js";
import type { Log } from "../../domain/log.ts";
import { errorText, KlioError } from "../../errors.ts";
import * as pb from "../../proto/generated/klio/sidecar/v1/sidecar_pb.ts";
import { grpcDefinition } from "../../proto/grpc-service.ts";
import { logRefusal, serverStream, signalOf, unary } from "./handlers.ts";
import type { GrpcServer } from "./serve-grpc.ts";
import { serveLocal } from "./serve-local.ts";

export type BackupRequest = { name: string; sendToTier2: boolean; waitForWals: boolean };
/** `state` of the backup machine; `estimatedBytes` is 0 while unknown. */
export type BackupStep = { state: string; processedBytes: number; estimatedBytes: number };
type SidecarStatus = MessageInitShape<typeof pb.StatusResultSchema>;

export type SidecarHandlers = {
  status(): SidecarStatus;
  /** Ends the stream for as long as this process lives. */
  stopStream(): Promise<void>;
  /** The backup's metadata as JSON. Rejects with a KlioError; the signal aborts when the caller hangs up. */
  runBackup(request: BackupRequest, onStep: (step: BackupStep) => void, signal: AbortSignal): Promise<string>;
};

/** Steps from a callback as messages: the last one counts when the caller reads slowly. */
async function* runningBackup(
  handlers: SidecarHandlers,
  request: BackupRequest,
  signal: AbortSignal,
  log: Log,
): AsyncGenerator<pb.BackupProgress> {
  let step: BackupStep | undefined;
  let end: pb.BackupProgress | undefined;
  let wake: () => void = () => undefined;
  const told = (act: () => void) => {
    act();
    wake();
  };
  const run = handlers
    .runBackup(request, (next) => told(() => (step = next)), signal)
    .then((metadataJson) => create(pb.BackupProgressSchema, { state: "completed", metadataJson }))
    .catch((error: unknown) => {
      logRefusal(log, "RunBackup", error);
      const known = error instanceof KlioError ? error : new KlioError("KLIO-BUG", errorText(error));
      // A refusal is an answer of the call; what happens to a backup that began is told in its last message.
      if (known.code === "KLIO-BACKUP-RUNNING") throw known;
      return create(pb.BackupProgressSchema, {
        state: "failed",
        errorCode: known.code,
        errorMessage: known.message,
        exitStatus: known.exit,
      });
    });
  let refusal: unknown;
  const ended = run.then(
    (message) => told(() => (end = message)),
    (error: unknown) => told(() => (refusal = error)),
  );
  while (end === undefined && refusal === undefined) {
    if (step === undefined) {
      await new Promise<void>((resolve) => {
        wake = resolve;
        if (end !== undefined || refusal !== undefined) resolve();
      });
      continue;
    }
    const { state, processedBytes, estimatedBytes } = step;
    step = undefined;
    yield create(pb.BackupProgressSchema, {
      state,
      processedBytes: BigInt(Math.trunc(processedBytes)),
      estimatedBytes: BigInt(Math.trunc(estimatedBytes)),
    });
  }
  await ended;
  if (refusal !== undefined) throw refusal;
  if (end !== undefined) yield end;
}

/** Rejects with KLIO-PORT-BUSY or KLIO-CONFIG. The caller closes it. */
export function serveSidecar(options: {
  socketPath: string;
  handlers: SidecarHandlers;
  interceptors: ServerInterceptor[];
  log: Log;
}): Promise<GrpcServer> {
  const { handlers, log, ...rest } = options;
  const implementation = {
    RunBackup: serverStream<pb.RunBackupRequest, pb.BackupProgress>("RunBackup", log, (request, call) =>
      runningBackup(
        handlers,
        { name: request.backupName, sendToTier2: request.sendToTier2, waitForWals: request.waitForWals },
        signalOf(call),
        log,
      ),
    ),
    Status: unary<pb.StatusRequest, pb.StatusResult>("Status", log, async () => {
      return create(pb.StatusResultSchema, handlers.status());
    }),
    StopStream: unary<pb.StopStreamRequest, pb.StopStreamResult>("StopStream", log, async () => {
      await handlers.stopStream();
      return create(pb.StopStreamResultSchema);
    }),
  };
  return serveLocal({
    ...rest,
    log,
    services: [{ name: pb.Sidecar.typeName, definition: grpcDefinition(pb.Sidecar), implementation }],
  });
}
