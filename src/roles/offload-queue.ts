// The embedded queue server and the connection to it, or the connection to an external one.
import { setTimeout as wait } from "node:timers/promises";
import { lateQueue } from "../actors/jetstream/late-queue.ts";
import { embedQueue } from "../actors/jetstream/nats-server.ts";
import { openQueue, type Queue, type QueueAddress } from "../actors/jetstream/queue.ts";
import { backoffMs } from "../domain/backoff.ts";
import type { Log } from "../domain/log.ts";
import { KlioError } from "../errors.ts";
import type { Telemetry } from "../telemetry/telemetry.ts";
import { queueNames } from "../wire/subject.ts";
import { isVolumeFull, watchQueueVolume } from "./queue-volume.ts";
import { superviseChild } from "./supervise.ts";

export type QueueSource =
  /** `executable`: path of nats-server; `directory`: the queue volume. */
  { kind: "embedded"; executable: string; directory: string } | { kind: "external"; address: QueueAddress };

export type RunningQueue = {
  queue: Queue;
  /** Resolves when the embedded server is given up. */
  failed: Promise<KlioError>;
  /** Process id of the embedded server, 0 when it is down or elsewhere. */
  pid(): number;
  /** For people. */
  state(): string;
  close(): Promise<void>;
};

/** What nats-server says about itself goes to debug; it marks its levels. */
function logLine(log: Log, line: string): void {
  const [, level, message] = /^\[\d+\] \S+ \S+ \[(\w+)\] (.*)$/.exec(line) ?? [];
  if (level === "ERR" || level === "FTL") log.warn("queue.server", message ?? line);
  else log.debug("queue.server", message ?? line);
}

const AGAIN = { firstMs: 500, factor: 2, limitMs: 15_000 };

/** A queue that could not be opened now (`first` says why) is opened in the background: WAL reception does not depend on it. */
function openLater(address: QueueAddress, first: KlioError, options: { log: Log; signal: AbortSignal }): Queue {
  const { log, signal } = options;
  const again = async (): Promise<Queue> => {
    let told = first.message;
    log.warn("queue.away", `${told}; tasks wait in memory, and the reconciler finds what is lost`, {
      code: first.code,
    });
    for (let attempt = 1; ; attempt++) {
      await wait(backoffMs(AGAIN, attempt, Math.random()), undefined, { signal });
      try {
        const queue = await openQueue(address, { log, signal });
        log.info("queue.reached", `the queue is there after ${attempt} further attempts`, { attempts: attempt });
        return queue;
      } catch (error) {
        if (!(error instanceof KlioError) || error.kind === "bug") throw error;
        if (error.message !== told && !signal.aborted) log.warn("queue.away", error.message, { code: error.code });
        told = error.message;
      }
    }
  };
  return lateQueue(queueNames(address.namespace), again());
}

/** Rejects with KLIO-QUEUE-REFUSED. */
async function openExternal(address: QueueAddress, log: Log, signal: AbortSignal): Promise<RunningQueue> {
  const stop = new AbortController();
  const stopped = AbortSignal.any([signal, stop.signal]);
  const open = async (): Promise<Queue> => {
    try {
      return await openQueue(address, { log, signal });
    } catch (error) {
      if (!(error instanceof KlioError) || error.code !== "KLIO-QUEUE-DOWN") throw error;
      return openLater(address, error, { log, signal: stopped });
    }
  };
  const queue = await open();
  return {
    queue,
    failed: new Promise(() => undefined),
    pid: () => 0,
    state: () => (queue.isUp() ? `connected to ${address.url}` : `not connected to ${address.url}`),
    async close() {
      stop.abort();
      await queue[Symbol.asyncDispose]();
    },
  };
}

/**
 * Rejects with KLIO-QUEUE-DOWN when the embedded queue cannot be had, KLIO-QUEUE-REFUSED when an external one refuses us. A full
 * volume is awaited like an external queue that is away.
 */
export async function runQueue(options: {
  source: QueueSource;
  telemetry: Telemetry;
  log: Log;
  signal: AbortSignal;
}): Promise<RunningQueue> {
  const { source, telemetry, log, signal } = options;
  if (source.kind === "external") return openExternal(source.address, log, signal);
  const { executable, directory } = source;
  let opened: Queue | undefined;
  const volume = watchQueueVolume({
    directory,
    log,
    restart() {
      opened?.renew(); // a task may be settled and still be there, which nobody would hand out again
      const pid = child.pid();
      if (pid !== 0) process.kill(pid, "SIGTERM");
    },
  });
  const onLine = (line: string) => (volume.heard(line) ? log.debug("queue.server", line) : logLine(log, line));
  const embedded = await embedQueue({ executable, directory, onLine });
  const child = await superviseChild({
    name: "nats-server",
    spec: embedded.spec,
    refusalCode: "KLIO-QUEUE-DOWN",
    telemetry,
    log,
    signal,
  });
  const stop = new AbortController();
  const open = async (): Promise<Queue> => {
    const { url, user, password } = embedded;
    const address = { url, user, password, namespace: "", replicas: 1 };
    try {
      return await openQueue(address, { log, signal });
    } catch (error) {
      if (!(error instanceof KlioError) || !isVolumeFull(error.message)) throw error;
      return openLater(address, error, { log, signal: AbortSignal.any([signal, stop.signal]) });
    }
  };
  try {
    const queue = await open();
    opened = queue;
    return {
      queue,
      failed: child.failed,
      pid: child.pid,
      state: () => (child.pid() === 0 ? "restarting" : "running"),
      async close() {
        stop.abort();
        volume.stop();
        await queue[Symbol.asyncDispose]();
        await child.stop();
      },
    };
  } catch (error) {
    volume.stop();
    await child.stop();
    throw error;
  }
}
