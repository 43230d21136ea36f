// Payloads of the queue's messages (JSON, UTF-8). Keys of tasks are those of the published contract; `bytes`,
// `backupName` and the WAL range are additive and absent in messages of older peers.
import { requireClusterName } from "../domain/cluster-name.ts";
import type { BackupTask } from "../domain/offload-task.ts";
import { type RetentionRules, retentionRulesFrom } from "../domain/retention-policy.ts";
import { isSegmentSize, parseWalName } from "../domain/wal-segment.ts";
import { KlioError } from "../errors.ts";
import type { TaskKind } from "./subject.ts";

/** Header that carries the trace which stored the file. */
export const TRACEPARENT_HEADER = "traceparent";
/** Header of a repeated message: sequence of the dead letter it repeats. */
export const RETRY_HEADER = "Klio-Dlq-Advisory-Sequence";
/** Header: how often the task was put off because something it waits for was not there. */
export const DEFERRALS_HEADER = "Klio-Deferrals";

export type WalMessage = { clusterName: string; walName: string; bytes?: number };
export type BackupMessage = {
  clusterName: string;
  sendToTier2?: boolean;
  tier2RetentionPolicy?: RetentionRules;
  backupName?: string;
  startWal?: string;
  endWal?: string;
  segmentSize?: number;
};

/** A dead letter of our own making; the queue server's advisories have `stream_seq` and `deliveries` only. */
export type DeadLetter = {
  kind: TaskKind;
  clusterName: string;
  /** WAL or backup name. */
  name: string;
  code: string;
  error: string;
  attempts: number;
  /** The task's message, to be sent again as it was. */
  message: WalMessage | BackupMessage;
};

const encoder = new TextEncoder();
const decoder = new TextDecoder("utf-8", { fatal: true });

export function encodeMessage(message: WalMessage | BackupMessage | DeadLetter): Uint8Array {
  return encoder.encode(JSON.stringify(message));
}

function objectOf(bytes: Uint8Array): Record<string, unknown> {
  let value: unknown;
  try {
    value = JSON.parse(decoder.decode(bytes));
  } catch (cause) {
    throw new KlioError("KLIO-QUEUE-MESSAGE", "a queue message is not JSON", { cause });
  }
  if (typeof value !== "object" || value === null)
    throw new KlioError("KLIO-QUEUE-MESSAGE", "a queue message is no JSON object");
  return value as Record<string, unknown>;
}

function cluster(value: unknown): string {
  if (typeof value !== "string") throw new KlioError("KLIO-QUEUE-MESSAGE", "a queue message names no cluster");
  return requireClusterName(value);
}

const text = (value: unknown) => (typeof value === "string" && value !== "" ? value : undefined);

/** Throws KLIO-QUEUE-MESSAGE or KLIO-NAME-INVALID: such a message is of no use to anybody. */
export function decodeWalMessage(bytes: Uint8Array): WalMessage {
  const value = objectOf(bytes);
  const clusterName = cluster(value.clusterName);
  const walName = text(value.walName) ?? "";
  if (parseWalName(walName) === undefined)
    throw new KlioError("KLIO-QUEUE-MESSAGE", `not the name of a WAL file: ${JSON.stringify(walName)}`);
  const size = value.bytes;
  return { clusterName, walName, ...(typeof size === "number" && size >= 0 && { bytes: size }) };
}

/** Throws like `decodeWalMessage`. */
export function decodeBackupMessage(bytes: Uint8Array): BackupMessage {
  const value = objectOf(bytes);
  const message: BackupMessage = { clusterName: cluster(value.clusterName) };
  if (value.sendToTier2 === true) message.sendToTier2 = true;
  const policy = value.tier2RetentionPolicy;
  if (policy !== undefined && policy !== null && policy !== "")
    message.tier2RetentionPolicy = retentionRulesFrom(typeof policy === "string" ? JSON.parse(policy) : policy);
  for (const key of ["backupName", "startWal", "endWal"] as const) {
    const name = text(value[key]);
    if (name !== undefined) message[key] = name;
  }
  if (typeof value.segmentSize === "number" && isSegmentSize(value.segmentSize))
    message.segmentSize = value.segmentSize;
  return message;
}

export function backupTaskOf(message: BackupMessage): BackupTask {
  const { startWal, endWal, segmentSize } = message;
  return {
    sendToTier2: message.sendToTier2 ?? false,
    ...(message.tier2RetentionPolicy !== undefined && { tier2Retention: message.tier2RetentionPolicy }),
    ...(startWal !== undefined &&
      endWal !== undefined &&
      segmentSize !== undefined && { range: { startWal, endWal, segmentBytes: segmentSize } }),
  };
}

/** Undefined when the bytes are no dead letter of ours (an advisory of the queue server). */
export function decodeDeadLetter(bytes: Uint8Array): DeadLetter | undefined {
  const value = objectOf(bytes);
  if (value.kind !== "wal" && value.kind !== "backup") return undefined;
  const letter = value as unknown as DeadLetter;
  return typeof letter.name === "string" && typeof letter.message === "object" ? letter : undefined;
}

/** The queue server's advisory: which message of the task stream was handed out too often. */
export function decodeAdvisory(bytes: Uint8Array): { streamSequence: number; deliveries: number } {
  const value = objectOf(bytes);
  const sequence = value.stream_seq;
  if (typeof sequence !== "number")
    throw new KlioError("KLIO-QUEUE-MESSAGE", "an advisory of the queue server names no message");
  return { streamSequence: sequence, deliveries: typeof value.deliveries === "number" ? value.deliveries : 0 };
}

/**
 * Message id of a task, so that a repetition within the queue's short memory is dropped. A partial file changes under one
 * name: its length belongs to the id.
 */
export function messageId(kind: TaskKind, clusterName: string, name: string, bytes: number): string {
  if (kind === "backup") return `${clusterName}/backup/${name}`;
  return name.endsWith(".partial") ? `${clusterName}/${name}@${bytes}` : `${clusterName}/${name}`;
}
