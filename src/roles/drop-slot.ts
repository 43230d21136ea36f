// `klio slot drop`: ends the protection of a source by command. PostgreSQL then keeps no more WAL for Klio.
import { stopSidecarStream } from "../actors/grpc/sidecar-client.ts";
import { dropSlot, findSlot } from "../actors/postgres/drop-slot.ts";
import type { ClientConfig } from "../config/config.ts";
import { unwrap } from "../domain/outcome.ts";
import { KlioError } from "../errors.ts";

export type DropSlotRequest = {
  config: ClientConfig;
  /** Without it nothing is dropped. */
  confirmed: boolean;
  /** Control socket of the sidecar that is told to end its stream first. */
  stopSidecar?: string;
  signal: AbortSignal;
};
/** `freed_bytes`: of WAL that PostgreSQL kept for the slot and may remove now. */
export type DropSlotReport = { slot: string; dropped: boolean; freed_bytes: number };

/** The walsender of a stream that has ended may need a moment to see it. */
const LET_GO_MS = 20_000;

/**
 * Safe to call again: a slot that is not there is no failure. Rejects with KLIO-USAGE when it was not confirmed, with
 * KLIO-SOURCE-DOWN while it is in use, KLIO-SERVER-DOWN when the sidecar does not answer.
 */
export async function runDropSlot(request: DropSlotRequest): Promise<DropSlotReport> {
  const { config, confirmed, stopSidecar, signal } = request;
  const { source } = config;
  if (source === undefined) throw new KlioError("KLIO-CONFIG", "the section source is missing");
  const { slot, standardDsn } = source;
  const found = unwrap(await findSlot(standardDsn, slot, signal));
  if (!confirmed) {
    const what =
      found === undefined
        ? `there is no replication slot ${slot}`
        : `PostgreSQL keeps ${found.retainedBytes} bytes of WAL for the replication slot ${slot}${found.active ? ", which is in use" : ""}`;
    throw new KlioError("KLIO-USAGE", `${what}; nothing was dropped`, {
      hint: "add --yes to drop it; WAL that the server lacks is then lost to every recovery",
    });
  }
  if (stopSidecar !== undefined) await stopSidecarStream(stopSidecar, signal);
  if (found === undefined) return { slot, dropped: false, freed_bytes: 0 };
  if (found.active && stopSidecar === undefined)
    throw new KlioError("KLIO-SOURCE-DOWN", `the replication slot ${slot} is in use; nothing was dropped`, {
      hint: "stop the sidecar (or send-wal) of this cluster first, or add --stop-sidecar",
    });
  const freed = unwrap(await dropSlot(standardDsn, slot, { waitMs: found.active ? LET_GO_MS : 0, signal }));
  return { slot, dropped: true, freed_bytes: freed };
}
