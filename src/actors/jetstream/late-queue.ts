// An external queue that was not there at the start: until it is, every call answers KLIO-QUEUE-DOWN, as during any later outage.
import { type Failure, failure } from "../../domain/outcome.ts";
import type { QueueNames } from "../../wire/subject.ts";
import type { Queue } from "./queue.ts";

/** `opening` resolves when the queue is there; a rejection leaves it away for good. Disposes what came of it. */
export function lateQueue(names: QueueNames, opening: Promise<Queue>): Queue {
  let opened: Queue | undefined;
  const lost: (() => void)[] = [];
  const reconnected: (() => void)[] = [];
  const arrived = opening.then(
    (queue) => {
      opened = queue;
      for (const listener of lost) queue.onLost(listener);
      for (const listener of reconnected) queue.onReconnected(listener);
    },
    () => undefined, // whoever opened it was told
  );
  const there = (): Queue => {
    if (opened === undefined) throw new Error("the queue was not reached yet");
    return opened;
  };
  const away = async (): Promise<Failure> => failure("KLIO-QUEUE-DOWN", "the queue was not reached yet");
  return {
    names,
    get connection() {
      return there().connection;
    },
    get js() {
      return there().js;
    },
    get jsm() {
      return there().jsm;
    },
    isUp: () => opened?.isUp() ?? false,
    ensure: () => opened?.ensure() ?? away(),
    onLost(listener) {
      lost.push(listener);
      opened?.onLost(listener);
    },
    renew: () => opened?.renew(),
    onReconnected(listener) {
      reconnected.push(listener);
      opened?.onReconnected(listener);
    },
    publish: (...args) => opened?.publish(...args) ?? away(),
    publishDeadLetter: (...args) => opened?.publishDeadLetter(...args) ?? away(),
    recordLatest: (...args) => opened?.recordLatest(...args) ?? away(),
    readLatest: () => opened?.readLatest() ?? away(),
    status: () => opened?.status() ?? away(),
    pendingOf: (...args) => opened?.pendingOf(...args) ?? away(),
    async [Symbol.asyncDispose]() {
      await arrived;
      await opened?.[Symbol.asyncDispose]();
    },
  };
}
