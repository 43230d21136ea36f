// A timeline history file from the source to the server, unless the server has it.
import { text } from "node:stream/consumers";
import { fromPromise } from "xstate";
import type { Log } from "../../domain/log.ts";
import { failure, failureOf, type Outcome, ok } from "../../domain/outcome.ts";
import { parseTimelineHistory } from "../../domain/timeline.ts";
import { historyName } from "../../domain/wal-segment.ts";
import type { WalClient } from "./wal-client.ts";

export type FetchHistoryOptions = {
  server: () => Pick<WalClient, "get" | "upload">;
  /** From the source; KLIO-WAL-GAP when it has none any more. */
  read: (timeline: number) => Promise<Outcome<string>>;
  sendToTier2: boolean;
  traceparent: () => string | undefined;
  log: Log;
};

/**
 * Actor logic of walStream. Safe to run again. KLIO-TIMELINE when the server holds another history of this timeline: WAL of
 * two lines would then have the same names.
 */
export function fetchHistory(options: FetchHistoryOptions) {
  return fromPromise<Outcome<null>, { timeline: number }>(async ({ input: { timeline }, signal }) => {
    const name = historyName(timeline);
    const traceparent = options.traceparent();
    const source = await options.read(timeline);
    if (source.kind !== "ok") {
      if (source.code !== "KLIO-WAL-GAP") return source;
      options.log.info("stream.history.absent", `the source has no ${name} any more; it is left out`, {
        wal_name: name,
      });
      return ok(null);
    }
    const stored = await readStored(options.server(), name, signal);
    if (stored.kind !== "ok") return stored;
    if (stored.value !== undefined) {
      if (isSame(timeline, stored.value, source.value)) return ok(null);
      return failure("KLIO-TIMELINE", `the server holds another ${name} than this source`);
    }
    const content = Buffer.from(source.value, "utf8");
    const upload = options.server().upload({
      walName: name,
      segmentBytes: content.length,
      sendToTier2: options.sendToTier2,
      method: "put",
      fromOffset: 0,
      ...(traceparent !== undefined && { traceparent }),
      onAck: () => undefined,
    });
    signal.addEventListener("abort", () => upload.cancel(), { once: true });
    upload.sendCopy(content);
    upload.finish();
    const end = await upload.ended;
    if (end.kind === "unimplemented") return failure("KLIO-SERVER-REFUSED", "the server does not take WAL");
    if (end.kind !== "ok") return end;
    if (!end.value.complete) return failure("KLIO-SERVER-DOWN", `the server did not complete ${name}`);
    options.log.info("stream.history.stored", `${name} is stored`, { wal_name: name });
    return ok(null);
  });
}

async function readStored(
  server: Pick<WalClient, "get">,
  name: string,
  signal: AbortSignal,
): Promise<Outcome<string | undefined>> {
  const file = await server.get(name, { signal });
  if (file.kind !== "ok") return file;
  if (file.value === undefined) return ok(undefined);
  try {
    return ok(await text(file.value.blocks));
  } catch (error) {
    return failureOf(error);
  }
}

/** Two histories are the same when they name the same switches; comments and reasons do not count. */
function isSame(timeline: number, one: string, other: string): boolean {
  const switches = (text: string) =>
    parseTimelineHistory(timeline, text).ancestors.map(({ timeline: from, endLsn }) => `${from} ${endLsn}`);
  return switches(one).join() === switches(other).join();
}
