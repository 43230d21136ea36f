// Asks the server where it wants to go on, and makes a start of the answer.
import { fromPromise } from "xstate";
import type { Log } from "../../domain/log.ts";
import { formatLsn, type Lsn, parseLsn } from "../../domain/lsn.ts";
import { type Outcome, ok } from "../../domain/outcome.ts";
import { decideStart } from "../../domain/stream-start.ts";
import { segmentOnHistory, type TimelineHistory } from "../../domain/timeline.ts";
import type { Negotiation, StartPosition } from "../../machines/wal-stream-events.ts";
import type { WalClient } from "./wal-client.ts";

export type NegotiateOptions = {
  server: () => Pick<WalClient, "requestWalStart">;
  history: () => TimelineHistory;
  /** Where the WAL of a primary ends now. */
  sourceEnd: () => Promise<Outcome<Lsn>>;
  /** For the connection to the server. */
  connectLimitMs: number;
  log: Log;
};

/** Actor logic of walStream. A cluster that the server does not know begins where the slot begins. */
export function negotiateStart(options: NegotiateOptions) {
  return fromPromise<Outcome<StartPosition>, Negotiation>(async ({ input, signal }) => {
    const { systemId, segmentBytes, isStandby } = input;
    const history = options.history();
    const flushLsn = parseLsn(input.flushLsn);
    const from = input.restartLsn === "" ? flushLsn : parseLsn(input.restartLsn);
    const currentWalName = segmentOnHistory(history, from, segmentBytes);
    const answer = await options
      .server()
      .requestWalStart({ systemId, currentWalName }, { signal, connectMs: options.connectLimitMs });
    if (answer.kind !== "ok") return answer;
    const startAt = (end: Lsn) => decideStart({ ...answer.value, segmentBytes, history, flushLsn: end, isStandby });
    let start = startAt(flushLsn);
    if (start.kind === "fatal" && start.code === "KLIO-SERVER-AHEAD") {
      // Another sidecar may have brought what was written since the source was asked.
      const end = await options.sourceEnd();
      if (end.kind !== "ok") return end;
      start = startAt(end.value);
    }
    if (start.kind !== "ok") return start;
    const { timeline, startLsn, abandonedBytes } = start.value;
    options.log.debug("stream.negotiated", `the server goes on at ${answer.value.walName}`, {
      wal_name: answer.value.walName,
      resume_offset: answer.value.resumeOffset,
      slot_restart_lsn: input.restartLsn,
    });
    return ok({ timeline, startLsn: formatLsn(startLsn), abandonedBytes });
  });
}
