// The process that get-wal leaves behind while a recovery runs: keeps its connections, fetches ahead, answers the next
// get-wal processes, and ends by itself when nobody asks any more. It is a convenience: without it each get-wal downloads its
// own file.
import { existsSync, watch } from "node:fs";
import { serveFetches, socketPath } from "../actors/wal-fetch/fetch-socket.ts";
import { removeSpool } from "../actors/wal-fetch/spool.ts";
import { openWalFetcher, type WalFetcherOptions } from "./wal-fetch.ts";

export type PrefetchDaemonOptions = WalFetcherOptions & {
  /** Also the working directory of this process, from which the path of the socket is short. */
  spool: string;
  /** What requests must name to be answered. */
  origin: string;
  /** Segment that was handed out last, and the size of segments. */
  after: string;
  segmentBytes: number;
  /** Ends when nothing was asked for or taken for so long. */
  idleMs: number;
  signal: AbortSignal;
};

/** How often it looks whether segments were taken by `mv`, where the file system does not tell. */
const LOOK_MS = 100;

/** Resolves when it has ended: idle, told to, the spool gone, or another one serving it. Rejects for bugs only. */
export async function runPrefetchDaemon(options: PrefetchDaemonOptions): Promise<void> {
  const { spool, signal, log } = options;
  const path = socketPath(spool, spool);
  // Who left us behind has made the spool; when it is gone the recovery is over, and nothing may bring it back.
  if (path === undefined || signal.aborted || !existsSync(spool)) return;
  let activeAt = performance.now();
  const ended = Promise.withResolvers<string>();
  await using stack = new AsyncDisposableStack();
  const starting = Promise.withResolvers<Awaited<ReturnType<typeof openWalFetcher>>>();
  const server = await serveFetches(path, async ({ origin, ...request }, gone) => {
    activeAt = performance.now();
    if (origin !== options.origin) return { kind: "other" };
    const reply = await (await starting.promise).fetch({ ...request, signal: AbortSignal.any([gone, signal]) });
    activeAt = performance.now();
    return reply;
  });
  if (server === undefined) return;
  stack.defer(() => (server.isReachable() ? removeSpool(spool) : undefined));
  stack.use(server);
  const fetcher = stack.use(await openWalFetcher(options));
  starting.resolve(fetcher);
  fetcher.moveTo(options.after, options.segmentBytes);

  let isLooking = false;
  const look = async () => {
    if (isLooking) return;
    isLooking = true;
    try {
      if (!server.isReachable()) return ended.resolve("the spool is gone");
      if (await fetcher.noticeTaken()) activeAt = performance.now();
      if (performance.now() - activeAt > options.idleMs) ended.resolve("idle");
    } finally {
      isLooking = false;
    }
  };
  const lookOrEnd = () => void look().catch(ended.reject);
  const timer = setInterval(lookOrEnd, LOOK_MS);
  stack.defer(() => clearInterval(timer));
  const watcher = watch(spool, lookOrEnd);
  watcher.on("error", lookOrEnd); // the directory went away: the next look finds out
  stack.defer(() => watcher.close());
  const stop = () => ended.resolve("told to end");
  signal.addEventListener("abort", stop, { once: true });
  stack.defer(() => signal.removeEventListener("abort", stop));
  log.debug("wal.prefetch.started", `fetching ahead of ${options.after}`);
  const why = await Promise.race([ended.promise, fetcher.failed]);
  log.debug("wal.prefetch.ended", `ended: ${why}`);
}
