// Tasks that were given up: listed with their reason, sent again, or removed.
import type { StoredMsg } from "nats";
import { type Outcome, ok } from "../../domain/outcome.ts";
import {
  type BackupMessage,
  decodeAdvisory,
  decodeBackupMessage,
  decodeDeadLetter,
  decodeWalMessage,
  RETRY_HEADER,
  type WalMessage,
} from "../../wire/queue-message.ts";
import type { TaskKind } from "../../wire/subject.ts";
import { classifyQueue, isNotFound } from "./classify.ts";
import type { Queue } from "./queue.ts";

export type FailedTask = {
  kind: TaskKind;
  cluster: string;
  /** WAL or backup name. */
  name: string;
  /** Of the dead letter. */
  sequence: number;
  lastAttemptMs: number;
  code: string;
  error: string;
  attempts: number;
  message: WalMessage | BackupMessage;
};

const READ_LIMIT_MS = 2_000;
const READ_TRIES = 5;

type Entry = { sequence: number; timeMs: number; data: Uint8Array };

/** All dead letters of a kind, or a rejection: never a silently short list. */
async function readEntries(queue: Queue, kind: TaskKind): Promise<Entry[]> {
  for (let tries = 1; ; tries++) {
    const { expected, entries } = await readOnce(queue, kind);
    if (entries.length >= expected) return entries;
    // One may have been settled between counting and reading.
    if (tries === READ_TRIES) throw new Error(`only ${entries.length} of ${expected} dead letters could be read`);
  }
}

async function readOnce(queue: Queue, kind: TaskKind): Promise<{ expected: number; entries: Entry[] }> {
  const stream = queue.names.deadLetters[kind];
  const { state } = await queue.jsm.streams.info(stream);
  const expected = state.messages;
  const entries: Entry[] = [];
  if (expected === 0) return { expected, entries };
  const consumer = await queue.js.consumers.get(stream);
  const messages = await consumer.fetch({ max_messages: expected, expires: READ_LIMIT_MS });
  for await (const message of messages) {
    entries.push({
      sequence: message.seq,
      timeMs: Math.floor(message.info.timestampNanos / 1_000_000),
      data: message.data,
    });
    if (entries.length === expected) break;
  }
  await messages.close();
  await consumer.delete();
  return { expected, entries };
}

async function original(queue: Queue, kind: TaskKind, sequence: number): Promise<StoredMsg | undefined> {
  try {
    return await queue.jsm.streams.getMessage(queue.names.stream[kind], { seq: sequence });
  } catch (error) {
    if (isNotFound(error)) return undefined;
    throw error;
  }
}

async function failedOf(queue: Queue, kind: TaskKind, entry: Entry): Promise<FailedTask | undefined> {
  const { sequence, timeMs: lastAttemptMs } = entry;
  const letter = decodeDeadLetter(entry.data);
  if (letter !== undefined) {
    const { clusterName: cluster, name, code, error, attempts, message } = letter;
    return { kind, cluster, name, sequence, lastAttemptMs, code, error, attempts, message };
  }
  const { streamSequence, deliveries } = decodeAdvisory(entry.data);
  const stored = await original(queue, kind, streamSequence);
  if (stored === undefined) return undefined; // settled meanwhile
  const message = kind === "wal" ? decodeWalMessage(stored.data) : decodeBackupMessage(stored.data);
  const name = "walName" in message ? message.walName : (message.backupName ?? "");
  return {
    kind,
    cluster: message.clusterName,
    name,
    sequence,
    lastAttemptMs,
    code: "",
    error: "handed out too often without an answer",
    attempts: deliveries,
    message,
  };
}

/** Newest first; `cluster` undefined: of all clusters. */
export async function listDeadLetters(queue: Queue, kind: TaskKind, cluster?: string): Promise<Outcome<FailedTask[]>> {
  try {
    const entries = await readEntries(queue, kind);
    const failed: FailedTask[] = [];
    for (const entry of entries) {
      const task = await failedOf(queue, kind, entry);
      if (task !== undefined && (cluster === undefined || task.cluster === cluster)) failed.push(task);
    }
    return ok(failed.toSorted((a, b) => b.lastAttemptMs - a.lastAttemptMs || b.sequence - a.sequence));
  } catch (error) {
    return isNotFound(error) ? ok([]) : classifyQueue(error, "cannot list the failed tasks");
  }
}

/** Removes a dead letter and, behind an advisory, its message; what is gone already counts as removed. */
export async function dropDeadLetter(queue: Queue, kind: TaskKind, sequence: number): Promise<Outcome<void>> {
  const stream = queue.names.deadLetters[kind];
  try {
    const entry = await queue.jsm.streams.getMessage(stream, { seq: sequence });
    if (decodeDeadLetter(entry.data) === undefined)
      await remove(queue, queue.names.stream[kind], decodeAdvisory(entry.data).streamSequence);
    await remove(queue, stream, sequence);
    return ok(undefined);
  } catch (error) {
    return isNotFound(error) ? ok(undefined) : classifyQueue(error, `cannot remove dead letter ${sequence}`);
  }
}

/** Takes a message out of a queue's stream, for whoever found it there; what is gone already counts as removed. */
export async function removeMessage(queue: Queue, kind: TaskKind, sequence: number): Promise<Outcome<void>> {
  try {
    await remove(queue, queue.names.stream[kind], sequence);
    return ok(undefined);
  } catch (error) {
    return classifyQueue(error, `cannot remove message ${sequence}`);
  }
}

async function remove(queue: Queue, stream: string, sequence: number): Promise<void> {
  try {
    await queue.jsm.streams.deleteMessage(stream, sequence);
  } catch (error) {
    if (!isNotFound(error)) throw error;
  }
}

/** Sends a failed task again. Its dead letter stays until the task has succeeded, or is replaced when it fails again. */
export function retryDeadLetter(queue: Queue, task: FailedTask): Promise<Outcome<void>> {
  return queue.publish(task.kind, task.message, {
    id: `retry/${task.kind}/${task.sequence}`,
    headers: { [RETRY_HEADER]: String(task.sequence) },
  });
}
