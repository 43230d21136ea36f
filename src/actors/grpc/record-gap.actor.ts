// Gives up WAL that PostgreSQL has no more: the server records the gap, so that no restore crosses it, and the stream goes on
// behind it.
import { fromPromise } from "xstate";
import { parseLsn } from "../../domain/lsn.ts";
import { failure, failureOf, type Outcome, ok } from "../../domain/outcome.ts";
import { segmentOnHistory } from "../../domain/timeline.ts";
import { segmentAt } from "../../domain/wal-segment.ts";
import type { RecordedGap, SourceIdentity } from "../../machines/wal-stream-events.ts";
import { quoteSlot } from "../../wire/pg-replication.ts";
import type { Row } from "../postgres/ask-source.ts";
import type { SourceHold } from "../postgres/hold-source.actor.ts";
import type { WalClient } from "./wal-client.ts";

type Hold = SourceHold<Pick<WalClient, "resetWalStream" | "close">>;
type Request = { slot: string } & Pick<SourceIdentity, "systemId" | "timeline" | "flushLsn" | "segmentBytes">;

const SLOT = `
select active, coalesce(wal_status, '') = 'lost' as is_lost, coalesce(restart_lsn::text, '') as restart
from pg_replication_slots where slot_name = $1`;

async function findSlot(hold: Hold, slot: string, signal: AbortSignal): Promise<Outcome<Row | undefined>> {
  const rows = await hold.ask(SLOT, [slot], signal);
  if (rows.kind !== "ok") return rows;
  const [found] = rows.value;
  return found?.active === true ? failure("KLIO-SOURCE-DOWN", `the replication slot ${slot} is in use`) : ok(found);
}

async function dropSlot(hold: Hold, slot: string): Promise<Outcome<unknown>> {
  return hold.session.command(`DROP_REPLICATION_SLOT ${quoteSlot(slot)}`);
}

async function recordUpTo(
  hold: Hold,
  walName: string,
  systemId: string,
  signal: AbortSignal,
): Promise<Outcome<string>> {
  const reset = await hold.server.resetWalStream({ systemId, currentWalName: walName }, { signal });
  return reset.kind === "ok" ? ok(reset.value.walName) : reset;
}

/**
 * Records a gap up to the segment that the source writes now, then drops the slot: what a person asks for. KLIO-SOURCE-DOWN
 * while the slot is in use: nothing is recorded then. Safe to call again after a failure in between. Rejects for bugs only.
 */
export async function recordWholeGap(
  hold: Hold,
  { slot, systemId, timeline, flushLsn, segmentBytes }: Request,
  signal: AbortSignal,
): Promise<Outcome<RecordedGap>> {
  const found = await findSlot(hold, slot, signal);
  if (found.kind !== "ok") return found;
  const recorded = await recordUpTo(hold, segmentAt(timeline, parseLsn(flushLsn), segmentBytes), systemId, signal);
  if (recorded.kind !== "ok") return recorded;
  const slotDropped = found.value !== undefined;
  const dropped = slotDropped ? await dropSlot(hold, slot) : ok(null);
  return dropped.kind === "ok" ? ok({ walName: recorded.value, slotDropped }) : dropped;
}

async function startOver(hold: Hold, slot: string): Promise<Outcome<RecordedGap>> {
  const dropped = await dropSlot(hold, slot);
  return dropped.kind === "ok" ? ok({ walName: "", slotDropped: true }) : dropped;
}

/**
 * Actor logic of walStream: no more is given up than is gone. A slot that is lost is dropped first, for the one that is made
 * in its place may keep all that the server lacks; then nothing is recorded. A slot that keeps WAL is where the gap ends; the
 * server refuses one that does not lie behind what is stored, and PostgreSQL has that WAL no more: such a slot is lost, too.
 */
export function recordGap(hold: Hold) {
  return fromPromise<Outcome<RecordedGap>, Request & SourceIdentity>(
    async ({ input: { slot, systemId, segmentBytes }, signal }) => {
      const found = await findSlot(hold, slot, signal);
      if (found.kind !== "ok") return found;
      const { is_lost: isLost = false, restart = "" } = found.value ?? {};
      if (isLost === true) return startOver(hold, slot);
      if (restart === "") return ok({ walName: "", slotDropped: false });
      try {
        const first = segmentOnHistory(hold.history, parseLsn(String(restart)), segmentBytes);
        const recorded = await recordUpTo(hold, first, systemId, signal);
        if (recorded.kind !== "ok" && recorded.code === "KLIO-USAGE") return startOver(hold, slot);
        return recorded.kind === "ok" ? ok({ walName: recorded.value, slotDropped: false }) : recorded;
      } catch (error) {
        return failureOf(error);
      }
    },
  );
}
