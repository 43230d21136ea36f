// The guard of a stream's replication slot, and what it tells to metrics and to `klio status`.
import type { Actor } from "xstate";
import { readSlot } from "../actors/postgres/read-slot.actor.ts";
import type { SourceConfig } from "../config/config.ts";
import { SlotForecast } from "../domain/slot-forecast.ts";
import { type SlotAmounts, type SlotLevel, slotGuard } from "../machines/slot-guard.machine.ts";
import type { MetricName } from "../telemetry/names.ts";
import type { Telemetry } from "../telemetry/telemetry.ts";

/** `level`: state of the slotGuard machine. Amounts are those of the last look that was answered. */
export type SlotStatus = SlotAmounts & { name: string; level: SlotLevel; isPresent: boolean; active: boolean };

export type SlotWatch = {
  readonly guard: Actor<typeof slotGuard>;
  status(): SlotStatus;
  /** Never resolves; rejects with the bug that ended the guard. */
  readonly failed: Promise<never>;
  stop(): void;
};

/**
 * A quarter of its room is more than a stream that follows ever needs, whatever the size of the cluster; of the last quarter a
 * burst may take the whole. Without a limit that is known, an amount must do. A forecast below half an hour is a danger.
 */
const LAG_PART = 0.25;
const NEAR_PART = 0.75;
const LAG_BYTES = 1 << 30;
const SOON_SECONDS = 30 * 60;
/** Long enough for a checkpoint's rhythm not to count, short enough to see a stream that stopped. */
const WINDOW_MS = 10 * 60_000;
const HORIZON_SECONDS = 7 * 86_400;
/** In looks: a single burst between two of them foretells nothing. */
const MIN_LOOKS = 6;

const amounts: readonly [MetricName, (slot: SlotStatus) => number | null][] = [
  ["klio.slot.retained_size", (slot) => slot.retainedBytes],
  ["klio.slot.safe_size", (slot) => slot.safeBytes],
  ["klio.slot.volume_free_size", (slot) => slot.freeBytes],
  ["klio.slot.time_to_full", (slot) => slot.secondsToFull],
];

/** Looks every `pollMs`, until stopped. */
export function watchSlot(options: {
  cluster: string;
  source: SourceConfig;
  primary: boolean;
  telemetry: Pick<Telemetry, "start" | "observe">;
  pollMs: number;
}): SlotWatch {
  const { cluster, source, primary, telemetry, pollMs } = options;
  const limits = { windowMs: WINDOW_MS, minSpanMs: MIN_LOOKS * pollMs, horizonSeconds: HORIZON_SECONDS };
  const forecast = new SlotForecast(limits);
  const actors = {
    readSlot: readSlot({ standardDsn: source.standardDsn, applicationName: "klio", primary, forecast }),
  };
  const guard: Actor<typeof slotGuard> = telemetry.start(slotGuard.provide({ actors }), {
    id: `slotGuard/${cluster}`,
    input: {
      cluster,
      slot: source.slot,
      pollMs,
      lagPart: LAG_PART,
      nearPart: NEAR_PART,
      lagBytes: LAG_BYTES,
      soonSeconds: SOON_SECONDS,
    },
  });
  const failed = Promise.withResolvers<never>();
  guard.subscribe({ error: failed.reject });
  const status = (): SlotStatus => {
    const { slot, level, isPresent, active, ...kept } = guard.getSnapshot().context;
    const { status: walStatus, retainedBytes, safeBytes, freeBytes, secondsToFull } = kept;
    return {
      name: slot,
      level,
      isPresent,
      active,
      status: walStatus,
      retainedBytes,
      safeBytes,
      freeBytes,
      secondsToFull,
    };
  };
  const forget = amounts.map(([metric, read]) =>
    telemetry.observe(metric, () => {
      const slot = status();
      const value = slot.isPresent ? read(slot) : null;
      return value === null ? [] : [{ value, labels: { cluster_name: cluster } }];
    }),
  );
  return {
    guard,
    status,
    failed: failed.promise,
    stop() {
      guard.send({ type: "shutdown.requested" });
      for (const observation of forget) observation();
    },
  };
}
