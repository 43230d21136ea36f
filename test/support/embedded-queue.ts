// A real nats-server under the childProcess machine, for tests of the queue.
import { createActor, waitFor } from "xstate";
import { type EmbeddedQueue, embedQueue } from "../../src/actors/jetstream/nats-server.ts";
import { openQueue, type Queue } from "../../src/actors/jetstream/queue.ts";
import { runChild } from "../../src/actors/process/run-child.actor.ts";
import { findTool } from "../../src/config/tools.ts";
import type { Log } from "../../src/domain/log.ts";
import { childProcess } from "../../src/machines/child-process.machine.ts";

export type TestQueue = AsyncDisposable & {
  queue: Queue;
  embedded: EmbeddedQueue;
  pid(): number;
  /** Resolves when the server runs again after it was killed. */
  whenReady(): Promise<void>;
};

export async function startQueue(directory: string, log: Log): Promise<TestQueue> {
  const embedded = await embedQueue({
    executable: findTool("nats-server", process.env),
    directory,
    onLine: (line) => log.debug("nats", line),
  });
  const gone = Promise.withResolvers<void>();
  let isStopping = false;
  const logic = runChild(
    () => embedded.spec(),
    () => void (isStopping && gone.resolve()),
  );
  const actor = createActor(childProcess.provide({ actors: { runChild: logic } }), {
    id: "childProcess/nats-server",
    input: { name: "nats-server", firstMs: 50, limitMs: 1_000, stableMs: 30_000 },
  });
  actor.start();
  const whenReady = async () => {
    await waitFor(actor, (snapshot) => snapshot.matches({ running: "ready" }), { timeout: 20_000 });
  };
  await whenReady();
  const { url, user, password } = embedded;
  const queue = await openQueue({ url, user, password, namespace: "", replicas: 1 }, { log });
  return {
    queue,
    embedded,
    pid: () => actor.getSnapshot().context.pid,
    whenReady,
    async [Symbol.asyncDispose]() {
      await queue[Symbol.asyncDispose]();
      isStopping = true;
      actor.send({ type: "shutdown.requested" });
      await gone.promise;
    },
  };
}
