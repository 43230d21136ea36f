// Facts: what happened, with amounts. Machines emit them, IO actors report them; telemetry/metrics.ts turns amounts into
// metrics. Times are not in a fact: whoever records it knows when.

export type Fact =
  /** Raw WAL bytes arrived at the server and passed the checks at the door. */
  | { type: "wal.received"; cluster: string; bytes: number }
  /** Stored bytes (after compression and encryption) became durable on tier 1. */
  | { type: "wal.durable"; cluster: string; bytes: number }
  /** A WAL file is complete on tier 1. */
  | { type: "wal.stored"; cluster: string; name: string; rawBytes: number; sendToTier2: boolean; traceparent?: string }
  /** A WAL file is confirmed on tier 2; `bytes` as stored there, `rawBytes` of WAL (0: it was there, and was not read). */
  | { type: "segment.offloaded"; cluster: string; name: string; bytes: number; rawBytes: number }
  | { type: "segment.abandoned"; cluster: string; name: string; reason: string }
  /** Verdicts of a backup's verification on tier 2. */
  | { type: "relay.verified"; cluster: string; backup: string }
  | { type: "relay.corrupt"; cluster: string; backup: string; reason: string }
  | { type: "relay.finished"; cluster: string; backup: string }
  /** The queue delivered a task once more. */
  | { type: "task.redelivered"; stream: string }
  /** A message of the queue was no task, and was dropped. */
  | { type: "task.undecodable"; stream: string }
  /** A fresh backup was read back; `coverage`: share of its file contents that was read, 0 … 1. */
  | { type: "backup.verified"; coverage: number }
  /** A backup is complete. `unverified`: no verification of it could be made. */
  | { type: "backup.completed"; unverified: boolean }
  /** A reconcile loop begins a round. `retried`: the one before it failed. */
  | { type: "reconcile.begun"; controller: string; retried: boolean }
  /** A round was asked for during another one, and waits. */
  | { type: "reconcile.waiting"; controller: string }
  | { type: "reconcile.ended"; controller: string; failed: boolean }
  /** A supervised child process ended unexpectedly and is started again. */
  | { type: "child.restarted"; name: string; reason: string };

export type FactOf<T extends Fact["type"]> = Extract<Fact, { type: T }>;
export type Report = (fact: Fact) => void;
