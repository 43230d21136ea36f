// The flow of tasks from the queue to the offloadQueue machine, and its verdicts back. It owns the messages in hand: they
// get a heartbeat until they are settled; a stop gives back what is not.
import type { ConsumerMessages, JsMsg } from "nats";
import { fromCallback } from "xstate";
import type { Report } from "../../domain/facts.ts";
import type { Log } from "../../domain/log.ts";
import type { OffloadTask } from "../../domain/offload-task.ts";
import type { QueueCommand } from "../../domain/task-scheduling.ts";
import { errorText } from "../../errors.ts";
import {
  type BackupMessage,
  backupTaskOf,
  DEFERRALS_HEADER,
  decodeBackupMessage,
  decodeWalMessage,
  RETRY_HEADER,
  TRACEPARENT_HEADER,
  type WalMessage,
} from "../../wire/queue-message.ts";
import type { TaskKind } from "../../wire/subject.ts";
import { dropDeadLetter } from "./dead-letters.ts";
import type { Queue } from "./queue.ts";
import { consumerPolicies } from "./streams.ts";

/** Well below the shortest wait for an acknowledgement. */
const HEARTBEAT_MS = 10_000;
const FETCH_MS = 5_000;
const FETCH_MAX = 256;
/** Between two tries when the queue does not answer. */
const RETRY_MS = 500;
/** Budgeted for a file whose sender did not tell its size: a whole segment of the usual size. */
const UNKNOWN_BYTES = 16 << 20;

type InHand = { message: JsMsg; content: WalMessage | BackupMessage; task: OffloadTask };

export type TaskSourceOptions = { queue: Queue; kind: TaskKind; report: Report; log: Log; random: () => number };

/** Actor logic for `offloadQueue.taskSource`. */
export function taskSource({ queue, kind, report, log, random }: TaskSourceOptions) {
  return fromCallback<QueueCommand, { queue: string }>(({ sendBack, receive }) => {
    const inHand = new Map<number, InHand>();
    let room = 0;
    let hasStopped = false;
    let wake: () => void = () => undefined;
    let fetching: ConsumerMessages | undefined;

    const settled = (id: number) => {
      const held = inHand.get(id);
      inHand.delete(id);
      return held;
    };
    receive((command) => {
      if (command.type === "room.changed") {
        room = command.room;
        wake();
        return;
      }
      const held = settled(command.id);
      if (held === undefined) return;
      if (command.type === "task.acked") void acknowledge(held);
      else if (command.type === "task.delayed") held.message.nak(command.delayMs);
      else if (command.type === "task.deferred") void defer(held, command.delayMs);
      else void bury(held, command.code, command.reason);
    });

    async function acknowledge({ message, task }: InHand): Promise<void> {
      message.ack();
      if (task.deadLetter > 0) await forgetLetter(task.deadLetter);
    }
    async function forgetLetter(sequence: number): Promise<void> {
      const dropped = await dropDeadLetter(queue, kind, sequence);
      if (dropped.kind !== "ok") log.warn("queue.letter.kept", dropped.reason, { sequence });
    }
    /** Near its last delivery the message is replaced by a fresh copy: waiting is no failure and must not end it. */
    async function defer({ message, content }: InHand, delayMs: number): Promise<void> {
      if (message.info.deliveryCount < consumerPolicies[kind].maxDeliveries - 1) {
        message.nak(delayMs);
        return;
      }
      const count = Number(message.headers?.get(DEFERRALS_HEADER) ?? 0) + 1;
      const sent = await queue.publish(kind, content, {
        id: `${message.seq}/deferred/${count}`,
        headers: { ...headersOf(message), [DEFERRALS_HEADER]: String(count) },
      });
      if (sent.kind === "ok") message.ack();
      else message.nak(delayMs);
    }
    async function bury({ message, content, task }: InHand, code: string, reason: string): Promise<void> {
      const name = "walName" in content ? content.walName : (content.backupName ?? "");
      const sent = await queue.publishDeadLetter(
        {
          kind,
          clusterName: content.clusterName,
          name,
          code,
          error: reason,
          attempts: message.info.deliveryCount,
          message: content,
        },
        `${kind}/${message.seq}/${message.info.streamSequence}`,
      );
      if (sent.kind !== "ok") {
        log.warn("queue.bury.failed", `${sent.reason}; the task stays in the queue`, { cluster: task.cluster, name });
        message.nak(RETRY_MS);
        return;
      }
      message.term(code);
      if (task.deadLetter > 0) await forgetLetter(task.deadLetter); // replaced by the new one
    }

    function take(message: JsMsg): void {
      try {
        const content = kind === "wal" ? decodeWalMessage(message.data) : decodeBackupMessage(message.data);
        const task: OffloadTask = {
          id: message.seq,
          cluster: content.clusterName,
          name: "walName" in content ? content.walName : (content.backupName ?? ""),
          bytes: "walName" in content ? (content.bytes ?? UNKNOWN_BYTES) : 0,
          deliveries: message.info.deliveryCount,
          traceparent: message.headers?.get(TRACEPARENT_HEADER) ?? "",
          deadLetter: Number(message.headers?.get(RETRY_HEADER) ?? 0) || 0,
          spread: random(),
          ...(kind === "backup" && { backup: backupTaskOf(content as BackupMessage) }),
        };
        if (task.deliveries > 1) report({ type: "task.redelivered", stream: queue.names.stream[kind] });
        inHand.set(task.id, { message, content, task });
        sendBack({ type: "task.received", task });
      } catch (error) {
        log.warn("queue.message.invalid", `a message is dropped: ${errorText(error)}`, {
          subject: message.subject,
          sequence: message.seq,
        });
        message.term("undecodable");
      }
    }

    async function pull(): Promise<void> {
      while (!hasStopped) {
        if (room === 0) {
          const woken = Promise.withResolvers<void>();
          wake = woken.resolve;
          await woken.promise;
          continue;
        }
        try {
          const consumer = await queue.js.consumers.get(queue.names.stream[kind], queue.names.consumer[kind]);
          if (hasStopped) return;
          fetching = await consumer.fetch({ max_messages: Math.min(room, FETCH_MAX), expires: FETCH_MS });
          for await (const message of fetching) take(message);
        } catch (error) {
          if (hasStopped) return;
          log.debug("queue.pull.failed", `cannot take tasks: ${errorText(error)}`, { kind });
          await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
          if (!hasStopped) await queue.ensure();
        }
      }
    }

    queue.onLost(() => {
      inHand.clear(); // the sequences of the new stream stand for other tasks
      if (!hasStopped) sendBack({ type: "tasks.forgotten" });
    });
    queue.onReconnected(() => void fetching?.close());
    const heartbeat = setInterval(() => {
      for (const { message } of inHand.values()) message.working();
    }, HEARTBEAT_MS);
    void pull();
    return () => {
      hasStopped = true;
      clearInterval(heartbeat);
      wake();
      void fetching?.close();
      for (const { message } of inHand.values()) message.nak();
      inHand.clear();
    };
  });
}

function headersOf(message: JsMsg): Record<string, string> {
  const kept: Record<string, string> = {};
  for (const key of [TRACEPARENT_HEADER, RETRY_HEADER]) {
    const value = message.headers?.get(key);
    if (value !== undefined && value !== "") kept[key] = value;
  }
  return kept;
}
