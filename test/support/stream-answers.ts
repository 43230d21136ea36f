// What source, slot and server answer to walStream in its tests.
import { failure } from "../../src/domain/outcome.ts";
import type {
  RecordedGap,
  SlotPosition,
  SourceIdentity,
  StartPosition,
  WalStreamInput,
} from "../../src/machines/wal-stream-events.ts";

export const input: WalStreamInput = {
  cluster: "main",
  slot: "klio",
  sendToTier2: true,
  gapPolicy: "block",
  backoff: { firstMs: 100, factor: 2, limitMs: 400 },
  blockedRecheckMs: 30_000,
  drainLimitMs: 5_000,
  confirmLimitMs: 1_000,
};
export const identity: SourceIdentity = {
  systemId: "73",
  timeline: 1,
  flushLsn: "0/5000000",
  segmentBytes: 1 << 24,
  isStandby: false,
};
export const position: SlotPosition = { restartLsn: "0/4000000", created: false };
export const start: StartPosition = { timeline: 1, startLsn: "0/4000000", abandonedBytes: 0 };
export const recordedGap: RecordedGap = { walName: "000000010000000000000007", slotDropped: true };
export const down = failure("KLIO-SERVER-DOWN", "connection refused");
export const other = failure("KLIO-SYSTEM-ID", "another cluster");
export const segment = "000000010000000000000004";
export const shipment = `segmentShipment:${segment}`;
