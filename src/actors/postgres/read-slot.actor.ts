// The replication slot: read over an ordinary session, made over the replication connection.
import { fromPromise } from "xstate";
import { failure, type Outcome, ok } from "../../domain/outcome.ts";
import { roomOf, type SlotForecast } from "../../domain/slot-forecast.ts";
import type { SlotLook } from "../../machines/slot-guard.machine.ts";
import type { SlotPosition } from "../../machines/wal-stream-events.ts";
import { quoteSlot } from "../../wire/pg-replication.ts";
import { askSource, type Row } from "./ask-source.ts";
import type { SourceHold } from "./hold-source.actor.ts";
import { freeWalVolumeBytes } from "./wal-volume.ts";

const LOOK = `
select slot_type, active, coalesce(wal_status, '') as status, coalesce(restart_lsn::text, '') as restart,
  safe_wal_size::text as safe,
  coalesce(pg_wal_lsn_diff(
    case when pg_is_in_recovery() then coalesce(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn())
    else pg_current_wal_lsn() end, restart_lsn), 0)::text as retained,
  (select system_identifier::text from pg_control_system()) as system_id,
  case when pg_has_role(current_user, 'pg_read_all_settings', 'usage') then current_setting('data_directory')
    else '' end as data_directory
from pg_replication_slots where slot_name = $1`;

type Source = { standardDsn: string; applicationName: string };

async function look(source: Source, slot: string, signal: AbortSignal): Promise<Outcome<Row | undefined>> {
  const { applicationName } = source;
  const rows = await askSource(source.standardDsn, LOOK, { values: [slot], signal, applicationName });
  return rows.kind === "ok" ? ok(rows.value[0]) : rows;
}

/**
 * One look at the slot. `primary`: a standby is waited for, not streamed from. `forecast` keeps what it needs of earlier
 * looks. Rejects for bugs only.
 */
export async function lookAtSlot(
  source: Source & { primary: boolean; forecast: SlotForecast },
  slot: string,
  signal: AbortSignal,
): Promise<Outcome<SlotLook>> {
  const { primary, forecast } = source;
  const row = await look(source, slot, signal);
  if (row.kind !== "ok") return row;
  if (row.value === undefined) {
    forecast.forget();
    return primary ? whyMissing(source, signal) : ok({ kind: "missing" });
  }
  const { active, status, safe, retained, data_directory: directory, system_id: systemId } = row.value;
  const retainedBytes = Math.max(0, Number(retained));
  const safeBytes = safe === null || safe === undefined ? null : Math.max(0, Number(safe));
  const freeBytes = await freeWalVolumeBytes(String(directory), String(systemId));
  const secondsToFull = forecast.after({ atMs: performance.now(), retainedBytes }, roomOf(safeBytes, freeBytes));
  return ok({
    kind: "present",
    active: active === true,
    status: String(status),
    retainedBytes,
    safeBytes,
    freeBytes,
    secondsToFull,
  });
}

/** Actor logic of slotGuard. */
export function readSlot(source: Parameters<typeof lookAtSlot>[0]) {
  return fromPromise<Outcome<SlotLook>, { slot: string }>(({ input, signal }) =>
    lookAtSlot(source, input.slot, signal),
  );
}

async function whyMissing({ standardDsn, applicationName }: Source, signal: AbortSignal): Promise<Outcome<SlotLook>> {
  const rows = await askSource(standardDsn, "select pg_is_in_recovery() as standby", { signal, applicationName });
  return rows.kind === "ok" ? ok({ kind: rows.value[0]?.standby === true ? "notDue" : "missing" }) : rows;
}

/** Actor logic of walStream: the slot's position; a missing slot is made, its WAL reserved at once. */
export function secureSlot(hold: SourceHold<{ close(): void }>) {
  return fromPromise<Outcome<SlotPosition>, { slot: string }>(async ({ input, signal }) => {
    const { slot } = input;
    const row = await look(hold.options, slot, signal);
    if (row.kind !== "ok") return row;
    if (row.value !== undefined) {
      if (row.value.slot_type !== "physical")
        return failure("KLIO-SOURCE-REFUSED", `the replication slot ${slot} is a ${String(row.value.slot_type)} one`);
      if (row.value.status === "lost")
        return failure("KLIO-SLOT-LOST", `PostgreSQL removed WAL that the replication slot ${slot} needed`);
      return ok({ restartLsn: String(row.value.restart), created: false });
    }
    const made = await hold.session.command(`CREATE_REPLICATION_SLOT ${quoteSlot(slot)} PHYSICAL RESERVE_WAL`);
    if (made.kind !== "ok") return made;
    // CREATE answers 0/0; what was reserved is known to the slot alone.
    const read = await hold.session.command(`READ_REPLICATION_SLOT ${quoteSlot(slot)}`);
    if (read.kind !== "ok") return read;
    return ok({ restartLsn: String(read.value[0]?.restart_lsn ?? ""), created: true });
  });
}
