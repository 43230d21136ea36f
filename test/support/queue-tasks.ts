// Tasks of a queue, its limits, and what becomes of the tasks, as the tests of offloadQueue take them.
import type { OffloadTask, TaskVerdict } from "../../src/domain/offload-task.ts";
import type { QueueLimits } from "../../src/domain/task-scheduling.ts";

export const limits: QueueLimits = {
  maxConcurrent: 3,
  perCluster: 3,
  maxBytes: 100,
  window: 10,
  maxDeliveries: 3,
  delaysMs: [1_000, 5_000],
  deferMs: 60_000,
  probe: { firstMs: 1_000, limitMs: 8_000 },
};
export const wal = (n: number) => `0000000100000000${n.toString(16).toUpperCase().padStart(8, "0")}`;
export const task = (id: number, cluster = "a", changed: Partial<OffloadTask> = {}): OffloadTask => ({
  id,
  cluster,
  name: wal(id),
  bytes: 10,
  deliveries: 1,
  traceparent: "",
  deadLetter: 0,
  spread: 1,
  ...changed,
});
export const done = (id: number): TaskVerdict => ({ kind: "done", name: wal(id) });
export const failed = (scope: "task" | "tier", fatal = false, code = "KLIO-X"): TaskVerdict => ({
  kind: "failed",
  scope,
  fatal,
  code,
  reason: "why",
});
