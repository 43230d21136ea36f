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
  const isMissed = async (asked: Server): Promise<boolean> => {
    const [told, sinceMs] = [report(), performance.now()];
    const answer = await asked.reportSource(told, { timeoutMs: everyMs });
    if (answer.kind === "fatal") clearInterval(timer); // an older server
    if (answer.kind !== "ok") log.debug("stream.report", `the server does not know the end of WAL: ${answer.reason}`);
    const isLate = performance.now() - sinceMs >= 0.9 * everyMs;
    return answer.kind === "retryable" && isLate && report().flushedLsn === told.flushedLsn;
  };
  const tell = async () => {
    const asked = server();
    if (asked === undefined || isAsking) return;
    isAsking = true;
    for (let misses = 1; (await isMissed(asked)) && server() === asked; misses++)
      if (misses === MISSES) {
        silent(failure("KLIO-SERVER-DOWN", `${asked.address} does not answer any more`));
        break;
      }
    isAsking = false;
  };
  const timer = setInterval(() => void tell(), everyMs);
  return () => clearInterval(timer);
}
