// What people read of a stream: one line per change of state, repeated failures with their count.
import type { Actor } from "xstate";
import type { Log } from "../domain/log.ts";
import { type ErrorCode, errorTable } from "../errors.ts";
import type { SlotLevel, slotGuard } from "../machines/slot-guard.machine.ts";
import type { walStream } from "../machines/wal-stream.machine.ts";

/** After this many equal failures in a row the next line follows. */
const REPEAT_EVERY = 20;

const slotTexts: Readonly<Record<SlotLevel, string>> = {
  watching: "the replication slot is well again",
  lagging: "PostgreSQL keeps much WAL for the replication slot",
  endangered: "the replication slot is missing, or is about to lose WAL or to fill its volume",
  lost: "PostgreSQL removed WAL that the replication slot needed",
};

export function logStream(options: { actor: Actor<typeof walStream>; guard: Actor<typeof slotGuard>; log: Log }): void {
  const { actor, guard, log } = options;
  let last = "";
  let repeats = 0;
  const isNews = (text: string) => {
    repeats = text === last ? repeats + 1 : 0;
    last = text;
    return repeats % REPEAT_EVERY === 0;
  };
  actor.on("stream.started", ({ timeline, startLsn, abandonedBytes }) => {
    const fields = { timeline, start_lsn: startLsn };
    log.info("stream.started", `streaming WAL of timeline ${timeline} from ${startLsn}`, fields);
    if (abandonedBytes > 0)
      log.warn(
        "stream.abandoned",
        `the server keeps ${abandonedBytes} bytes of WAL that this source left behind when it was promoted`,
        { ...fields, bytes: abandonedBytes },
      );
  });
  actor.on("stream.switched", ({ timeline, startLsn }) =>
    log.info("stream.switched", `the source went to timeline ${timeline}`, { timeline, start_lsn: startLsn }),
  );
  actor.on("stream.interrupted", ({ code, reason, attempt }) => {
    if (isNews(`interrupted ${code} ${reason}`))
      log.warn("stream.interrupted", `the stream is interrupted and tried again: ${reason}`, { code, attempt });
  });
  actor.on("stream.blocked", ({ code, reason, attempt }) => {
    if (!isNews(`blocked ${code} ${reason}`)) return;
    const row = Object.hasOwn(errorTable, code) ? errorTable[code as ErrorCode] : undefined;
    const fields = { code, condition: row?.reason ?? code, hint: row?.cure ?? "", attempt };
    log.error("stream.blocked", `the stream is blocked until a person helps: ${reason}`, fields);
  });
  actor.on("stream.gap", ({ code, reason, walName, slotDropped }) =>
    log.error(
      "stream.gap",
      `WAL is given up, as source.gap_policy says: the gap is recorded and the stream goes on at ${walName}; take a base backup now, none from before can reach beyond the gap (${reason})`,
      { code, wal_name: walName, slot_dropped: slotDropped },
    ),
  );
  actor.on("stream.degraded", () =>
    log.warn(
      "stream.degraded",
      "the server confirms whole files only: the flushed position moves once per segment; do not name klio in synchronous_standby_names",
    ),
  );
  actor.on("stream.stopped", () => log.info("stream.stopped", "the stream is stopped"));
  // A stream that confirms again makes the next failure news.
  actor.subscribe({
    next: ({ context }) => {
      if (context.attempt === 0 && context.code === "") last = "";
    },
    error: () => undefined, // the owner awaits the actor
  });
  guard.on("slot.changed", ({ slot, level, status, retainedBytes, safeBytes, freeBytes, secondsToFull }) => {
    const write = level === "watching" ? log.info : level === "lost" ? log.error : log.warn;
    write(`slot.${level}`, slotTexts[level], {
      slot,
      wal_status: status,
      retained_bytes: retainedBytes,
      ...(safeBytes !== null && { safe_bytes: safeBytes }),
      ...(freeBytes !== null && { volume_free_bytes: freeBytes }),
      ...(secondsToFull !== null && { seconds_to_full: Math.round(secondsToFull) }),
    });
  });
}
