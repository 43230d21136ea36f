// When the queue's volume is full, nats-server gives up writing to a stream until it is started anew, also when there is space
// again. It is ended then; its supervisor starts it. Meanwhile tasks wait in memory, and one line tells it.
import { rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { Log } from "../domain/log.ts";
import { errorText } from "../errors.ts";

const FULL = /no space left on device|disk quota exceeded|critical write error/i;
/** Whether nats-server, or the system, speaks of a full volume. */
export const isVolumeFull = (text: string) => FULL.test(text);

/** More than the queue writes before the next look. */
const PROBE_BYTES = 1 << 20;
const FIRST_LOOK_MS = 500;
const LOOK_LIMIT_MS = 15_000;

export type QueueVolume = {
  /** Looks at a line of nats-server; true when it is about the full volume, which was told. */
  heard(line: string): boolean;
  stop(): void;
};

/** `restart`: ends nats-server so that it is started anew. */
export function watchQueueVolume(options: { directory: string; restart: () => void; log: Log }): QueueVolume {
  const { directory, restart, log } = options;
  let timer: NodeJS.Timeout | undefined;
  let hasStopped = false;
  const look = async (waitMs: number): Promise<void> => {
    const probe = join(directory, "space.probe");
    let isFree = true;
    try {
      await writeFile(probe, Buffer.alloc(PROBE_BYTES), { flush: true });
    } catch (error) {
      isFree = false;
      log.debug("queue.full", `still no space: ${errorText(error)}`);
    }
    await rm(probe, { force: true });
    if (hasStopped) return;
    timer = undefined;
    if (!isFree) return lookIn(Math.min(waitMs * 2, LOOK_LIMIT_MS));
    log.info("queue.space", "the volume of the queue has space again; nats-server is started anew");
    restart();
  };
  const lookIn = (waitMs: number): void => {
    timer = setTimeout(() => void look(waitMs), waitMs);
  };
  return {
    heard(line) {
      if (!isVolumeFull(line)) return false;
      if (timer === undefined && !hasStopped) {
        log.warn("queue.full", `the volume of the queue is full (${directory}); tasks wait in memory: ${line.trim()}`, {
          code: "KLIO-DISK-FULL",
        });
        lookIn(FIRST_LOOK_MS);
      }
      return true;
    },
    stop() {
      hasStopped = true;
      clearTimeout(timer);
    },
  };
}
