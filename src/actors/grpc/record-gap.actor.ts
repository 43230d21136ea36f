// Gives up WAL that PostgreSQL has no more: the server records the gap, so that no restore crosses it, and the stream goes on
// behind it.
import { fromPromise } from "xstate";
import { parseLsn } from "../../domain/lsn.ts";
import { failure, failureOf, type Outcome, ok } from "../../domain/outcome.ts";
import { segmentOnHistory } from "../../domain/timeline.ts";
import { segmentAt } from "../../domain/wal-segment.ts";
import type { RecordedGap, SourceIdentity } from "../../machines/wal-stream-events.ts";
import { quoteSlot } from "../../wire/pg-replication.ts";
import type { SourceHold } from "../postgres/hold-source.actor.ts";
import type { WalClient } from "./wal-client.ts";

type Hold = SourceHold<Pick<WalClient, "resetWalStream" | "close">>;
type Request = { slot: string } & Pick<SourceIdentity, "systemId" | "timeline" | "flushLsn" | "segmentBytes">;

const SLOT = `
select active, coalesce(wal_status, '') = 'lost' as is_lost, coalesce(restart_lsn::text, '') as restart
from pg_replication_slots where slot_name = $1`;

/**
 * Records the gap up to the segment that the source writes now, or with `fromSlot` up to the first one that the slot still
 * keeps, then drops the slot (`fromSlot`: only a lost one). KLIO-SOURCE-DOWN while the slot is in use: nothing is recorded
 * then. Safe to call again after a failure in between. Rejects for bugs only.
 */
export async function recordGapOf(
  hold: Hold,
  { slot, systemId, timeline, flushLsn, segmentBytes }: Request,
  options: { fromSlot: boolean; signal: AbortSignal },
): Promise<Outcome<RecordedGap>> {
  const { fromSlot, signal } = options;
  const rows = await hold.ask(SLOT, [slot], signal);
  if (rows.kind !== "ok") return rows;
  const [found] = rows.value;
  if (found?.active === true) return failure("KLIO-SOURCE-DOWN", `the replication slot ${slot} is in use`);
  const keeps = fromSlot && found !== undefined && found.is_lost !== true && found.restart !== "";
  try {
    const currentWalName = keeps
      ? segmentOnHistory(hold.history, parseLsn(String(found.restart)), segmentBytes)
      : segmentAt(timeline, parseLsn(flushLsn), segmentBytes);
    const reset = await hold.server.resetWalStream({ systemId, currentWalName }, { signal });
    if (reset.kind !== "ok") return reset;
    const slotDropped = found !== undefined && !keeps;
    if (slotDropped) {
      const dropped = await hold.session.command(`DROP_REPLICATION_SLOT ${quoteSlot(slot)}`);
      if (dropped.kind !== "ok") return dropped;
    }
    return ok({ walName: reset.value.walName, slotDropped });
  } catch (error) {
    return failureOf(error);
  }
}

/** Actor logic of walStream. */
export function recordGap(hold: Hold) {
  return fromPromise<Outcome<RecordedGap>, Request & SourceIdentity>(({ input, signal }) =>
    recordGapOf(hold, input, { fromSlot: true, signal }),
  );
}
