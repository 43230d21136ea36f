// Fetches the segments behind the current one into the spool, a bounded number at a time.
//   K1. At most `count` segments are wanted; they follow the current one on its timeline. Everything else is dropped: what
//       the position moved past, what another timeline left behind, and downloads of it are cut short.
//   K2. At most `maxConcurrent` downloads run. Nobody waits for a download that has not begun.
//   K3. A segment that could not be had is asked for again when the position moves, not before.
import { rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { nextSegment } from "../../domain/wal-segment.ts";
import type { DownloadOutcome } from "./download-wal.ts";
import { isSpooled, temporaryIn } from "./spool.ts";

export type PrefetcherOptions = {
  spool: string;
  count: number;
  maxConcurrent: number;
  /** Never rejects but with a bug. */
  download: (name: string, into: string, signal: AbortSignal) => Promise<DownloadOutcome>;
  /** A bug of a download: whoever owns the prefetcher ends with it. */
  onBug: (error: unknown) => void;
};

export interface Prefetcher extends AsyncDisposable {
  /** `name` was handed out: fetch what follows it. */
  moveTo(name: string, segmentBytes: number): void;
  /** Resolves when a running download of this segment has ended; at once when there is none. */
  settled(name: string): Promise<void>;
  /** Looks whether segments were taken by others, and moves on behind the last of them. True when some were. */
  noticeTaken(): Promise<boolean>;
  /** What is in the spool, as far as this prefetcher put it there. */
  ready(): string[];
}

type Entry =
  | { state: "waiting" | "ready" | "absent" }
  | { state: "loading"; abort: AbortController; done: Promise<void> };

export function createPrefetcher(options: PrefetcherOptions): Prefetcher {
  const { spool, count, maxConcurrent } = options;
  const entries = new Map<string, Entry>();
  const leaving = new Set<Promise<void>>();
  let segmentBytes = 0;
  let running = 0;
  let isClosed = false;

  const load = async (name: string, abort: AbortController): Promise<void> => {
    const into = temporaryIn(spool, name);
    const outcome = await options.download(name, into, abort.signal);
    if (outcome.kind !== "stored") {
      if (entries.get(name)?.state === "loading" && !abort.signal.aborted) entries.set(name, { state: "absent" });
      return;
    }
    // Dropped in the meantime: K1.
    if (abort.signal.aborted) return rm(into, { force: true });
    await rename(into, join(spool, name));
    if (abort.signal.aborted) return rm(join(spool, name), { force: true });
    entries.set(name, { state: "ready" });
  };

  const startWaiting = () => {
    for (const [name, entry] of entries) {
      if (isClosed || running >= maxConcurrent) return;
      if (entry.state !== "waiting") continue;
      const abort = new AbortController();
      running += 1;
      const done = load(name, abort)
        .catch((error: unknown) => options.onBug(error))
        .finally(() => {
          running -= 1;
          leaving.delete(done);
          startWaiting();
        });
      entries.set(name, { state: "loading", abort, done });
    }
  };

  const drop = (name: string, entry: Entry) => {
    entries.delete(name);
    if (entry.state === "loading") {
      entry.abort.abort();
      leaving.add(entry.done);
    } else if (entry.state === "ready") {
      const gone = rm(join(spool, name), { force: true }).finally(() => leaving.delete(gone));
      leaving.add(gone);
    }
  };

  const moveTo = (name: string, bytes: number) => {
    if (isClosed) return;
    segmentBytes = bytes;
    const wanted: string[] = [];
    for (let at = name; wanted.length < count; ) {
      at = nextSegment(at, bytes);
      wanted.push(at);
    }
    for (const [other, entry] of entries) if (!wanted.includes(other)) drop(other, entry);
    for (const one of wanted) {
      const state = entries.get(one)?.state;
      if (state === undefined || state === "absent") entries.set(one, { state: "waiting" });
    }
    startWaiting();
  };

  return {
    moveTo,
    async settled(name) {
      const entry = entries.get(name);
      if (entry?.state === "loading") await entry.done;
    },
    async noticeTaken() {
      let last: string | undefined;
      for (const name of [...entries.keys()].sort())
        if (entries.get(name)?.state === "ready" && !(await isSpooled(spool, name))) last = name;
      if (last !== undefined && entries.get(last)?.state === "ready") moveTo(last, segmentBytes);
      return last !== undefined;
    },
    ready: () => [...entries].filter(([, { state }]) => state === "ready").map(([name]) => name),
    async [Symbol.asyncDispose]() {
      isClosed = true;
      for (const [name, entry] of entries) drop(name, entry);
      await Promise.all(leaving);
    },
  };
}
