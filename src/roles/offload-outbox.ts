// Tasks on their way into the queue. Nobody waits for it: whoever stored a file goes on at once (P4), and what cannot be
// kept is found again by the reconciler (P5).
import { stat } from "node:fs/promises";
import type { Queue } from "../actors/jetstream/queue.ts";
import { walFile } from "../actors/spool/wal-directory.ts";
import type { Log } from "../domain/log.ts";
import { messageId, TRACEPARENT_HEADER } from "../wire/queue-message.ts";

type Item = { cluster: string; name: string; traceparent: string };

/** While the queue is away; a task is about 200 bytes here. */
const LIMIT = 20_000;
const RETRY_MS = 500;
/** The queue syncs its disk once for tasks that come together. */
const AT_ONCE = 16;

export type Outbox = {
  add(item: Item): void;
  /** Waiting items. */
  size(): number;
  stop(): void;
};

/** `onLost`: items were dropped; a listing must find them once the queue is back. */
export function startOutbox(options: { queue: Queue; walDirectory: string; log: Log; onLost: () => void }): Outbox {
  const { queue, walDirectory, log, onLost } = options;
  const waiting = new Map<string, Item>();
  let isRunning = false;
  let hasStopped = false;
  let dropped = 0;

  /** Stored bytes, for the budget of bytes in flight; 0 when the file is gone again. */
  const sizeOf = async ({ cluster, name }: Item) => {
    const found = await stat(walFile(walDirectory, cluster, name)).catch(() => undefined);
    return found?.size ?? 0;
  };
  const send = async (item: Item) => {
    const { cluster, name, traceparent } = item;
    const bytes = await sizeOf(item);
    return queue.publish(
      "wal",
      { clusterName: cluster, walName: name, ...(bytes > 0 && { bytes }) },
      {
        id: messageId("wal", cluster, name, bytes),
        ...(traceparent !== "" && { headers: { [TRACEPARENT_HEADER]: traceparent } }),
      },
    );
  };
  const run = async () => {
    isRunning = true;
    let isDown = false;
    while (!hasStopped) {
      const batch = firstOf(waiting, AT_ONCE);
      if (batch.length === 0) break;
      const answers = await Promise.all(
        batch.map(async ([key, item]) => {
          const sent = await send(item);
          if (sent.kind === "ok" && waiting.get(key) === item) waiting.delete(key);
          return sent;
        }),
      );
      const refused = answers.find((sent) => sent.kind !== "ok");
      if (refused === undefined) {
        if (isDown) log.info("queue.accepting", "the queue takes tasks again", { waiting: waiting.size });
        isDown = false;
        continue;
      }
      if (!isDown) log.warn("queue.refusing", `${refused.reason}; tasks wait in memory`, { waiting: waiting.size });
      isDown = true;
      await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
    }
    isRunning = false;
    if (dropped > 0 && !hasStopped) {
      log.warn("queue.tasks.dropped", `${dropped} tasks were not kept; a listing finds their files`, { dropped });
      dropped = 0;
      onLost();
    }
  };
  return {
    add(item) {
      const key = `${item.cluster}/${item.name}`;
      if (waiting.size >= LIMIT && !waiting.has(key)) dropped += 1;
      else waiting.set(key, item);
      if (!isRunning && !hasStopped) void run();
    },
    size: () => waiting.size,
    stop() {
      hasStopped = true;
    },
  };
}

function firstOf<K, V>(entries: ReadonlyMap<K, V>, count: number): [K, V][] {
  const first: [K, V][] = [];
  for (const entry of entries) {
    if (first.length === count) break;
    first.push(entry);
  }
  return first;
}
