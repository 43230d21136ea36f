// The embedded queue server and the connection to it, or the connection to an external one.
import { embedQueue } from "../actors/jetstream/nats-server.ts";
import { openQueue, type Queue, type QueueAddress } from "../actors/jetstream/queue.ts";
import type { Log } from "../domain/log.ts";
import type { KlioError } from "../errors.ts";
import type { Telemetry } from "../telemetry/telemetry.ts";
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
  close(): Promise<void>;
};

/** What nats-server says about itself goes to debug; it marks its levels. */
function logLine(log: Log, line: string): void {
  const [, level, message] = /^\[\d+\] \S+ \S+ \[(\w+)\] (.*)$/.exec(line) ?? [];
  if (level === "ERR" || level === "FTL") log.warn("queue.server", message ?? line);
  else log.debug("queue.server", message ?? line);
}

/** Rejects with KLIO-QUEUE-DOWN when the queue cannot be had. */
export async function runQueue(options: {
  source: QueueSource;
  telemetry: Telemetry;
  log: Log;
  signal: AbortSignal;
}): Promise<RunningQueue> {
  const { source, telemetry, log, signal } = options;
  if (source.kind === "external") {
    const queue = await openQueue(source.address, { log, signal });
    return {
      queue,
      failed: new Promise(() => undefined),
      pid: () => 0,
      close: async () => queue[Symbol.asyncDispose](),
    };
  }
  const { executable, directory } = source;
  const embedded = await embedQueue({ executable, directory, onLine: (line) => logLine(log, line) });
  const child = await superviseChild({
    name: "nats-server",
    spec: embedded.spec,
    refusalCode: "KLIO-QUEUE-DOWN",
    telemetry,
    log,
    signal,
  });
  try {
    const { url, user, password } = embedded;
    const queue = await openQueue({ url, user, password, namespace: "", replicas: 1 }, { log, signal });
    return {
      queue,
      failed: child.failed,
      pid: child.pid,
      async close() {
        await queue[Symbol.asyncDispose]();
        await child.stop();
      },
    };
  } catch (error) {
    await child.stop();
    throw error;
  }
}
