import type { BackupTask, OffloadTask } from "../../src/domain/offload-task.ts";

/** The task of backup `b1` of cluster `a`, as it is delivered first. */
export const relayTask = (backup: BackupTask): OffloadTask => ({
  id: 1,
  cluster: "a",
  name: "b1",
  bytes: 0,
  deliveries: 1,
  traceparent: "",
  deadLetter: 0,
  spread: 0,
  backup,
});
