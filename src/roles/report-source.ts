// Tells the server now and then where the source's WAL ends, and finds out on the way whether it is still there: a connection
// that is gone without a word (a host that lost its power, a reset that node:http2 over TLS did not see because its write
// failed before its read) would else be believed in until a segment is not confirmed in time.
import type { WalClient } from "../actors/grpc/wal-client.ts";
import type { Log } from "../domain/log.ts";
import { type Failure, failure } from "../domain/outcome.ts";

type Server = Pick<WalClient, "reportSource" | "address">;

export type SourceReports = {
  /** Undefined: there is no stream, and nothing to tell. */
  server: () => Server | undefined;
  report: () => Parameters<WalClient["reportSource"]>[0];
  /** The server answered none of two reports in a row, and confirmed nothing meanwhile. */
  silent: (failure: Failure) => void;
  /** Time between two reports, and the limit for an answer. */
  everyMs: number;
  log: Log;
};

const MISSES = 2;

/** Returns what stops it. */
export function reportSource({ server, report, silent, everyMs, log }: SourceReports): () => void {
  let isAsking = false;
  let isStopped = false;
  /** Undefined: an older server, which knows no reports. */
  const askOnce = async (asked: Server): Promise<"answered" | "missed" | undefined> => {
    const [told, sinceMs] = [report(), performance.now()];
    const answer = await asked.reportSource(told, { timeoutMs: everyMs });
    if (answer.kind === "fatal") return undefined;
    if (answer.kind === "ok") return "answered";
    log.debug("stream.report", `the server does not know the end of WAL: ${answer.reason}`);
    const isLate = performance.now() - sinceMs >= 0.9 * everyMs;
    return isLate && report().flushedLsn === told.flushedLsn ? "missed" : "answered";
  };
  const tell = async () => {
    const asked = server();
    if (asked === undefined || isAsking) return;
    isAsking = true;
    for (let misses = 0; !isStopped && server() === asked; ) {
      const answer = await askOnce(asked);
      if (answer === undefined) clearInterval(timer);
      if (answer !== "missed") break;
      misses += 1;
      if (misses < MISSES || isStopped || server() !== asked) continue;
      silent(failure("KLIO-SERVER-DOWN", `${asked.address} does not answer any more`));
      break;
    }
    isAsking = false;
  };
  const timer = setInterval(() => void tell(), everyMs);
  return () => {
    isStopped = true;
    clearInterval(timer);
  };
}
