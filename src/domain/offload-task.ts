// A task of the queue, decoded. Tasks are hints: the listing of stored files is the truth.
import type { RetentionRules } from "./retention-policy.ts";

export type BackupTask = {
  sendToTier2: boolean;
  /** For when none is set: the policy that counts is kept when a backup is closed. */
  tier2Retention?: RetentionRules;
  /** WAL range the backup needs; absent in tasks of older peers. */
  range?: { startWal: string; endWal: string; segmentBytes: number };
};

export type OffloadTask = {
  /** Never that of another task of this process, also when the queue lost its streams and begins anew. */
  id: number;
  cluster: string;
  /** WAL file name, or backup name; an empty backup name stands for every backup of the cluster that waits. */
  name: string;
  /** Stored bytes as far as the sender knew them: what the budget of bytes in flight reckons with. */
  bytes: number;
  /** How often this message was handed out, this time included. */
  deliveries: number;
  /** W3C traceparent of the trace that stored the file, or empty. */
  traceparent: string;
  /** Sequence of the dead letter this task repeats, or 0. */
  deadLetter: number;
  /** 0 … 1, drawn when the task arrived: spreads its waits. */
  spread: number;
  backup?: BackupTask;
};

/** How a worker's run ended, for the queue to decide on. */
export type TaskVerdict =
  /** `name`: of the file that was relayed, when it is not the one the task names. */
  | { kind: "done"; name: string }
  /** `scope` tells whether this task failed or the whole tier is unreachable. */
  | { kind: "failed"; scope: "task" | "tier"; fatal: boolean; code: string; reason: string }
  /** Not yet possible for a reason that is nobody's fault: handed out again later, without counting. */
  | { kind: "deferred"; reason: string }
  /** Stopped before a verdict: the task is as it was. */
  | { kind: "interrupted" };

/** Codes that speak about tier 2 as a whole, so that trying other tasks is useless. */
const TIER_WIDE: ReadonlySet<string> = new Set([
  "KLIO-S3-DOWN",
  "KLIO-S3-FULL",
  "KLIO-S3-CREDENTIALS",
  "KLIO-S3-TLS",
  "KLIO-S3-BUCKET",
  "KLIO-REPOSITORY-DOWN",
]);

export function isTierWide(code: string): boolean {
  return TIER_WIDE.has(code);
}
