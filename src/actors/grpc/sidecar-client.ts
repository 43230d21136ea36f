// The other end of the sidecar's control socket: asks for a backup and hears how it goes, asks how the stream is, ends it.
import { create, type DescMessage, type MessageShape } from "@bufbuild/protobuf";
import { ChannelCredentials, Client, Metadata } from "@grpc/grpc-js";
import { unwrap } from "../../domain/outcome.ts";
import { type ErrorCode, errorTable, KlioError } from "../../errors.ts";
import * as pb from "../../proto/generated/klio/sidecar/v1/sidecar_pb.ts";
import { codecOf } from "../../proto/grpc-service.ts";
import { callError } from "./classify.ts";
import type { BackupRequest, BackupStep } from "./serve-sidecar.actor.ts";
import { askOnce, type CallOptions } from "./wal-call.ts";

/** Above the drain limit of a stream. */
const STOP_MS = 30_000;

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
    if (known instanceof KlioError && known.code === "KLIO-SERVER-DOWN") throw nobodyOn(socketPath, known.message);
    throw known;
  } finally {
    signal.removeEventListener("abort", cancel);
    client.close();
  }
}

/** One question to the sidecar; rejects with its KlioError, or KLIO-SERVER-DOWN when nobody answers. */
async function ask<I extends DescMessage, O extends DescMessage>(
  socketPath: string,
  { name, input, output }: { name: string; input: I; output: O },
  options: CallOptions,
): Promise<MessageShape<O>> {
  const client = new Client(`unix:${socketPath}`, ChannelCredentials.createInsecure());
  const method = {
    path: `/${pb.Sidecar.typeName}/${name}`,
    serialize: codecOf(input).serialize,
    deserialize: codecOf(output).deserialize,
  };
  try {
    const answer = await askOnce(client, `the sidecar on ${socketPath}`, method, create(input), options);
    if (answer.kind !== "ok" && answer.code === "KLIO-SERVER-DOWN") throw nobodyOn(socketPath, answer.reason);
    return unwrap(answer);
  } finally {
    client.close();
  }
}

/** How the stream of a running sidecar is. */
export function sidecarStatus(socketPath: string, options: CallOptions): Promise<pb.StatusResult> {
  return ask(socketPath, pb.Sidecar.method.status, options);
}

/** Resolves when the stream has confirmed what it had received and is at its end. */
export async function stopSidecarStream(socketPath: string, signal: AbortSignal): Promise<void> {
  await ask(socketPath, pb.Sidecar.method.stopStream, { signal, timeoutMs: STOP_MS });
}

function nobodyOn(socketPath: string, reason: string): KlioError {
  return new KlioError("KLIO-SERVER-DOWN", `no answer on ${socketPath}: ${reason}`, {
    hint: "run this where the sidecar runs, as its user; --socket names its control socket",
  });
}

function failureIn({ errorCode, errorMessage }: pb.BackupProgress): KlioError {
  const code = isErrorCode(errorCode) ? errorCode : "KLIO-BACKUP-FAILED";
  return new KlioError(code, errorMessage, { hint: errorTable[code].cure });
}
