// The flow of tasks from the queue to the offloadQueue machine, and its verdicts back. It owns the messages in hand: they
// get a heartbeat until they are settled; a stop gives back what is not.
import type { ConsumerMessages, JsMsg, MsgHdrs, StoredMsg } from "nats";
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
import { dropDeadLetter, removeMessage } from "./dead-letters.ts";
import { lookAhead } from "./look-ahead.ts";
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

/** How often it is looked whether others wait behind one cluster's backlog. */
const LOOK_MS = 1_000;

/** `message`: as handed out. Undefined while the task was only found in the stream, which then is where it is settled. */
type InHand = {
  message: JsMsg | undefined;
  sequence: number;
  headers: MsgHdrs | undefined;
  content: WalMessage | BackupMessage;
  task: OffloadTask;
};
type Given = { seq: number; subject: string; data: Uint8Array; headers: MsgHdrs | undefined };

export type TaskSourceOptions = {
  queue: Queue;
  kind: TaskKind;
  report: Report;
  log: Log;
  random: () => number;
  /** Tasks in hand from which on others may wait behind them. */
  crowd: number;
};

/** Actor logic for `offloadQueue.taskSource`. */
export function taskSource({ queue, kind, report, log, random, crowd }: TaskSourceOptions) {
  return fromCallback<QueueCommand, { queue: string }>(({ sendBack, receive }) => {
    const inHand = new Map<number, InHand>();
    /** Tasks that failed while they were only found: when, on a clock that nobody sets, they may be found again, and how often they were tried. */
    const putOff = new Map<number, { untilMs: number; tries: number }>();
    /** Taken out of the stream just now: the queue may have handed them out meanwhile. Those of the look before are kept, too. */
    let ended = new Set<number>();
    let endedBefore = new Set<number>();
    /** Ids of what was handed out before the queue's loss end here: it may still run when others have its sequences. */
    let idsBefore = 0;
    let lastId = 0;
    let room = 0;
    let hasStopped = false;
    let wake: () => void = () => undefined;
    let fetching: ConsumerMessages | undefined;

    const settled = (id: number) => {
      const held = inHand.get(id - idsBefore);
      inHand.delete(id - idsBefore);
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
      else if (command.type === "task.delayed") giveBack(held, command.delayMs);
      else if (command.type === "task.deferred") void defer(held, command.delayMs);
      else void bury(held, command.code, command.reason);
    });

    /** Out of the queue. */
    async function take({ message, sequence }: InHand): Promise<void> {
      putOff.delete(sequence);
      if (message !== undefined) {
        message.ack();
        return;
      }
      ended.add(sequence);
      const removed = await removeMessage(queue, kind, sequence);
      if (removed.kind !== "ok") log.debug("queue.pull.failed", removed.reason, { kind }); // it is handed out again
    }
    function giveBack({ message, sequence, task }: InHand, delayMs: number): void {
      if (message !== undefined) message.nak(delayMs);
      else putOff.set(sequence, { untilMs: performance.now() + delayMs, tries: task.deliveries });
    }
    async function acknowledge(held: InHand): Promise<void> {
      await take(held);
      if (held.task.deadLetter > 0) await forgetLetter(held.task.deadLetter);
    }
    async function forgetLetter(sequence: number): Promise<void> {
      const dropped = await dropDeadLetter(queue, kind, sequence);
      if (dropped.kind !== "ok") log.warn("queue.letter.kept", dropped.reason, { sequence });
    }
    /** Near its last delivery the message is replaced by a fresh copy: waiting is no failure and must not end it. */
    async function defer(held: InHand, delayMs: number): Promise<void> {
      const { sequence, headers, content, task } = held;
      if (held.message === undefined || task.deliveries < consumerPolicies[kind].maxDeliveries - 1)
        return giveBack({ ...held, task: { ...task, deliveries: task.deliveries - 1 } }, delayMs);
      const count = Number(headers?.get(DEFERRALS_HEADER) ?? 0) + 1;
      const sent = await queue.publish(kind, content, {
        id: `${sequence}/deferred/${count}`,
        headers: { ...keptOf(headers), [DEFERRALS_HEADER]: String(count) },
      });
      if (sent.kind === "ok") await take(held);
      else giveBack(held, delayMs);
    }
    async function bury(held: InHand, code: string, reason: string): Promise<void> {
      const { message, sequence, content, task } = held;
      const name = "walName" in content ? content.walName : (content.backupName ?? "");
      const sent = await queue.publishDeadLetter(
        {
          kind,
          clusterName: content.clusterName,
          name,
          code,
          error: reason,
          attempts: task.deliveries,
          message: content,
        },
        `${kind}/${sequence}/${sequence}`,
      );
      if (sent.kind !== "ok") {
        log.warn("queue.bury.failed", `${sent.reason}; the task stays in the queue`, { cluster: task.cluster, name });
        giveBack(held, RETRY_MS);
        return;
      }
      if (message === undefined) await take(held);
      else message.term(code);
      putOff.delete(sequence);
      if (task.deadLetter > 0) await forgetLetter(task.deadLetter); // replaced by the new one
    }

    function read({ seq, data, headers }: Given, message: JsMsg | undefined): InHand {
      const content = kind === "wal" ? decodeWalMessage(data) : decodeBackupMessage(data);
      const tries = putOff.get(seq)?.tries ?? 0;
      const task: OffloadTask = {
        id: idsBefore + seq,
        cluster: content.clusterName,
        name: "walName" in content ? content.walName : (content.backupName ?? ""),
        bytes: "walName" in content ? (content.bytes ?? UNKNOWN_BYTES) : 0,
        deliveries: (message?.info.deliveryCount ?? 1) + tries,
        traceparent: headers?.get(TRACEPARENT_HEADER) ?? "",
        deadLetter: Number(headers?.get(RETRY_HEADER) ?? 0) || 0,
        spread: random(),
        ...(kind === "backup" && { backup: backupTaskOf(content as BackupMessage) }),
      };
      return { message, sequence: seq, headers, content, task };
    }
    function receiveTask(given: Given, message: JsMsg | undefined): void {
      const known = inHand.get(given.seq);
      if (known !== undefined) {
        known.message = message ?? known.message; // found before, and now its turn has come
        return;
      }
      if (ended.has(given.seq) || endedBefore.has(given.seq)) {
        message?.ack();
        return;
      }
      const wait = Math.ceil((putOff.get(given.seq)?.untilMs ?? 0) - performance.now());
      if (wait > 0) {
        message?.nak(wait);
        return;
      }
      try {
        const held = read(given, message);
        if (held.task.deliveries > 1) report({ type: "task.redelivered", stream: queue.names.stream[kind] });
        inHand.set(held.sequence, held);
        lastId = Math.max(lastId, held.task.id);
        sendBack({ type: "task.received", task: held.task });
      } catch (error) {
        const { subject, seq: sequence } = given;
        log.warn("queue.message.invalid", `a message is dropped: ${errorText(error)}`, { subject, sequence });
        report({ type: "task.undecodable", stream: queue.names.stream[kind] });
        ended.add(sequence); // told once, also when it was found and handed out
        if (message === undefined) void removeMessage(queue, kind, sequence);
        else message.term("undecodable");
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
          for await (const message of fetching) receiveTask(message, message);
        } catch (error) {
          if (hasStopped) return;
          log.debug("queue.pull.failed", `cannot take tasks: ${errorText(error)}`, { kind });
          await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
          if (!hasStopped) await queue.ensure();
        }
      }
    }

    const view = {
      count: (cluster: string) => [...inHand.values()].filter(({ task }) => task.cluster === cluster).length,
      total: () => inHand.size,
      isKnown: (sequence: number) => inHand.has(sequence) || (putOff.get(sequence)?.untilMs ?? 0) > performance.now(),
    };
    let isLooking = false;
    async function look(): Promise<void> {
      [endedBefore, ended] = [ended, new Set()];
      if (isLooking || inHand.size < crowd || !queue.isUp()) return;
      isLooking = true;
      try {
        const found = await lookAhead(queue, kind, view);
        if (!hasStopped) for (const one of found) receiveTask({ ...fieldsOf(one), headers: one.header }, undefined);
      } catch (error) {
        log.debug("queue.pull.failed", `cannot look ahead: ${errorText(error)}`, { kind });
      } finally {
        isLooking = false;
      }
    }

    queue.onLost(() => {
      putOff.clear();
      for (const set of [ended, endedBefore]) set.clear();
      inHand.clear();
      idsBefore = lastId;
      if (!hasStopped) sendBack({ type: "tasks.forgotten" });
    });
    queue.onReconnected(() => void fetching?.close());
    const heartbeat = setInterval(() => {
      for (const { message } of inHand.values()) message?.working();
    }, HEARTBEAT_MS);
    const looking = setInterval(() => void look(), LOOK_MS);
    void pull();
    return () => {
      hasStopped = true;
      clearInterval(heartbeat);
      clearInterval(looking);
      wake();
      void fetching?.close();
      for (const { message } of inHand.values()) message?.nak();
      inHand.clear();
    };
  });
}

const fieldsOf = ({ seq, subject, data }: StoredMsg) => ({ seq, subject, data });

function keptOf(headers: MsgHdrs | undefined): Record<string, string> {
  const kept: Record<string, string> = {};
  for (const key of [TRACEPARENT_HEADER, RETRY_HEADER]) {
    const value = headers?.get(key);
    if (value !== undefined && value !== "") kept[key] = value;
  }
  return kept;
}
