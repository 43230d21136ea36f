// The other end of the sidecar's control socket: asks for a backup and hears how it goes.
import { create } from "@bufbuild/protobuf";
import { ChannelCredentials, Client, Metadata } from "@grpc/grpc-js";
import { type ErrorCode, errorTable, KlioError } from "../../errors.ts";
import * as pb from "../../proto/generated/klio/sidecar/v1/sidecar_pb.ts";
import { codecOf } from "../../proto/grpc-service.ts";
import { callError } from "./classify.ts";
import type { BackupRequest, BackupStep } from "./serve-sidecar.actor.ts";

const isErrorCode = (code: string): code is ErrorCode => Object.hasOwn(errorTable, code);

/**
 * Runs a backup in the sidecar. Resolves with its metadata as JSON; rejects with the sidecar's KlioError, KLIO-SERVER-DOWN when
 * nobody answers, or KLIO-CANCELLED (the sidecar then cancels the backup).
 */
export async function requestBackup(
  socketPath: string,
  request: BackupRequest,
  { signal, onStep }: { signal: AbortSignal; onStep: (step: BackupStep) => void },
): Promise<string> {
  const client = new Client(`unix:${socketPath}`, ChannelCredentials.createInsecure());
  const { name, input, output } = pb.Sidecar.method.runBackup;
  const message = create(input, {
    backupName: request.name,
    sendToTier2: request.sendToTier2,
    waitForWals: request.waitForWals,
  });
  const path = `/${pb.Sidecar.typeName}/${name}`;
  const call = client.makeServerStreamRequest(
    path,
    codecOf(input).serialize,
    codecOf(output).deserialize,
    message,
    new Metadata(),
  );
  const cancel = () => call.cancel();
  if (signal.aborted) cancel();
  signal.addEventListener("abort", cancel, { once: true });
  try {
    for await (const progress of call as AsyncIterable<pb.BackupProgress>) {
      if (progress.errorCode !== "") throw failureIn(progress);
      if (progress.metadataJson !== "") return progress.metadataJson;
      const { state, processedBytes, estimatedBytes } = progress;
      onStep({ state, processedBytes: Number(processedBytes), estimatedBytes: Number(estimatedBytes) });
    }
    throw new KlioError("KLIO-SERVER-DOWN", `the sidecar on ${socketPath} went away during the backup`);
  } catch (error) {
    if (signal.aborted) throw new KlioError("KLIO-CANCELLED", "the backup was cancelled");
    if (error instanceof KlioError) throw error;
    const known = callError(error, `the sidecar on ${socketPath}`);
    if (known instanceof KlioError && known.code === "KLIO-SERVER-DOWN")
      throw new KlioError("KLIO-SERVER-DOWN", `no answer on ${socketPath}: ${known.message}`, {
        hint: "run this where the sidecar runs, as its user; --socket names its control socket",
      });
    throw known;
  } finally {
    signal.removeEventListener("abort", cancel);
    client.close();
  }
}

function failureIn({ errorCode, errorMessage }: pb.BackupProgress): KlioError {
  const code = isErrorCode(errorCode) ? errorCode : "KLIO-BACKUP-FAILED";
  return new KlioError(code, errorMessage, { hint: errorTable[code].cure });
}
