// The facts of queue and reconciler as log lines: one per change, never one per retry.
import type { Log } from "../domain/log.ts";
import type { QueueFact } from "../domain/task-scheduling.ts";
import type { ReconcileReport } from "../machines/reconciler.machine.ts";

export function logQueueFact(
  log: Log,
  fact: Exclude<QueueFact, { type: "frontier.advanced" | "horizon.reached" }>,
): void {
  switch (fact.type) {
    case "queue.paused":
      log.warn("offload.paused", `tier 2 does not take ${fact.queue} tasks: ${fact.reason}`, { code: fact.code });
      return;
    case "queue.resumed":
      log.info("offload.resumed", `tier 2 takes ${fact.queue} tasks again`, { queue: fact.queue });
      return;
    case "task.failed":
    case "task.buried": {
      const { cluster, name, deliveries } = fact.task;
      const fields = { queue: fact.queue, cluster, name, code: fact.code, attempts: deliveries };
      if (fact.type === "task.failed")
        log.warn("queue.failed", `${name} of ${cluster} failed and is tried again: ${fact.reason}`, fields);
      else log.error("queue.buried", `${name} of ${cluster} is given up: ${fact.reason}`, fields);
    }
  }
}

/** Tells a failure of the reconciler when it begins or becomes another one, not in each round of an outage. */
export function reportLog(log: Log): (report: ReconcileReport) => void {
  const told = new Map<string, string>();
  const isNew = (about: string, error: string) => {
    const before = told.get(about) ?? "";
    told.set(about, error);
    return error !== "" && error !== before;
  };
  return (report) => {
    if (isNew("", report.error)) log.warn("reconciler.failed", `the tiers could not be compared: ${report.error}`);
    for (const one of report.clusters) logCluster(log, one, isNew(one.cluster, one.error));
  };
}

function logCluster(log: Log, report: ReconcileReport["clusters"][number], isNewError: boolean): void {
  const { cluster, error, missing, enqueued, enqueuedBackups, removed, different, foreign } = report;
  const fields = { cluster, missing, enqueued, enqueuedBackups, removed };
  if (isNewError) log.warn("reconciler.failed", `${cluster} could not be compared: ${error}`, { cluster });
  else if (error === "" && missing + enqueuedBackups + removed > 0)
    log.info("reconciler.repaired", `${cluster}: ${missing} files were missing on tier 2`, fields);
  if (different.length > 0)
    log.error(
      "reconciler.different",
      `${cluster}: ${different.length} files differ between the tiers; none was touched`,
      {
        cluster,
        first: different[0],
      },
    );
  if (foreign.length > 0)
    log.warn("reconciler.foreign", `${cluster}: ${foreign.length} objects on tier 2 are no WAL files`, {
      cluster,
      first: foreign[0],
    });
}
