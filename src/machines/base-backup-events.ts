// What goes into and comes out of the baseBackup machine: its input, what its IO answers, the facts it emits, its end; and what
// it keeps meanwhile.
import type { FactOf } from "../domain/facts.ts";
import type { ErrorCode } from "../errors.ts";

export type BackupRole = "primary" | "standby";
export type BackupInput = {
  name: string;
  /** The backup is complete only when its WAL is stored. */
  waitForWals: boolean;
  maxLooks: number;
  lookMs: number;
  maxVerifications: number;
  verifyWaitMs: number;
};
export type MissingWal = { missing: number; first: string };
/** `coverage`: share of the file contents that was read, 0 … 1. */
export type BackupVerification = { corrupt: string[]; coverage: number };
export type BackupFact =
  | FactOf<"backup.verified">
  | FactOf<"backup.completed">
  | { type: "wal.awaited"; missing: number; first: string }
  | { type: "verification.failed"; attempt: number; reason: string }
  | { type: "backup.unverified"; reason: string }
  | { type: "maintenance.failed"; reason: string }
  /** `reason`: why what was stored could not be given up; empty when it was. */
  | { type: "backup.abandoned"; reason: string };
type BackupEnd = "completed" | "failed" | "cancelled";
export type BackupOutput = { kind: BackupEnd; code: ErrorCode; reason: string };

export type BackupContext = BackupInput & {
  /** Empty until PostgreSQL was asked. */
  role: BackupRole | "";
  looks: number;
  verifications: number;
  /** Every attempt to verify it failed. */
  unverified: boolean;
  end: BackupEnd;
  code: ErrorCode;
  reason: string;
};
