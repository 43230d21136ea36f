// Drops the replication slot of a source over an ordinary session, so that PostgreSQL keeps no more WAL for us.
import { setTimeout as pause } from "node:timers/promises";
import { failure, type Outcome, ok } from "../../domain/outcome.ts";
import { askSource } from "./ask-source.ts";

export type SlotToDrop = { active: boolean; retainedBytes: number };

const LOOK = `
select slot_type, active, greatest(0, coalesce(pg_wal_lsn_diff(
  case when pg_is_in_recovery() then coalesce(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn())
  else pg_current_wal_lsn() end, restart_lsn), 0))::text as retained
from pg_replication_slots where slot_name = $1`;
const APPLICATION_NAME = "klio-slot";
const LOOK_EVERY_MS = 200;

/** Undefined when there is none. KLIO-SOURCE-REFUSED for a slot that is not physical. Rejects for bugs only. */
export async function findSlot(
  standardDsn: string,
  slot: string,
  signal: AbortSignal,
): Promise<Outcome<SlotToDrop | undefined>> {
  const rows = await askSource(standardDsn, LOOK, { values: [slot], signal, applicationName: APPLICATION_NAME });
  if (rows.kind !== "ok") return rows;
  const [row] = rows.value;
  if (row === undefined) return ok(undefined);
  if (row.slot_type !== "physical")
    return failure(
      "KLIO-SOURCE-REFUSED",
      `the replication slot ${slot} is a ${String(row.slot_type)} one, none of Klio's`,
    );
  return ok({ active: row.active === true, retainedBytes: Number(row.retained) });
}

/**
 * Drops it as soon as nobody uses it, at the latest after `waitMs`; one that is gone meanwhile counts as dropped. Answers what
 * PostgreSQL kept for it. KLIO-SOURCE-DOWN when it stays in use. Rejects for bugs only.
 */
export async function dropSlot(
  standardDsn: string,
  slot: string,
  { waitMs, signal }: { waitMs: number; signal: AbortSignal },
): Promise<Outcome<number>> {
  const deadline = performance.now() + waitMs;
  for (;;) {
    const found = await findSlot(standardDsn, slot, signal);
    if (found.kind !== "ok") return found;
    if (found.value === undefined) return ok(0);
    if (!found.value.active) {
      const options = { values: [slot], signal, applicationName: APPLICATION_NAME };
      const dropped = await askSource(standardDsn, "select pg_drop_replication_slot($1)", options);
      return dropped.kind === "ok" ? ok(found.value.retainedBytes) : dropped;
    }
    if (performance.now() >= deadline) return failure("KLIO-SOURCE-DOWN", `the replication slot ${slot} is in use`);
    await pause(LOOK_EVERY_MS);
  }
}
