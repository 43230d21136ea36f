// Amounts: a table from the type of a fact to the instruments it moves.
import type { Fact } from "../domain/facts.ts";
import { parseWalName, segmentStart } from "../domain/wal-segment.ts";
import type { Instruments } from "./instruments.ts";

type Recorder<T extends Fact["type"]> = (
  instruments: Instruments,
  fact: Extract<Fact, { type: T }>,
  epochSeconds: number,
) => void;

/** Position and timeline that a complete segment brings a tier to; other WAL files say nothing about either. */
function recordPosition(
  instruments: Instruments,
  tier: "tier1" | "tier2",
  { cluster, name, segmentBytes }: { cluster: string; name: string; segmentBytes: number | undefined },
): void {
  const parsed = parseWalName(name);
  if (parsed?.kind !== "segment") return;
  const labels = { cluster_name: cluster, tier };
  instruments.set("klio.wal.latest_written_timeline", parsed.timeline, labels);
  if (segmentBytes === undefined) return;
  const end = segmentStart(name, segmentBytes) + BigInt(segmentBytes);
  instruments.set("klio.wal.latest_written_lsn", Number(end), labels);
}

/** When the round of each controller began, epoch seconds. */
const rounds = new WeakMap<Instruments, Map<string, number>>();

const recorders: { [T in Fact["type"]]: Recorder<T> } = {
  "wal.received": (to, { cluster, bytes }) => to.add("klio.wal.received_size", bytes, { cluster_name: cluster }),
  "wal.durable": (to, { cluster, bytes }) => to.add("klio.wal.written_size", bytes, { cluster_name: cluster }),
  "wal.stored": (to, { cluster, name, rawBytes }, now) => {
    to.add("klio.wal.written", 1, { cluster_name: cluster });
    to.set("klio.wal.latest_written_time", now, { cluster_name: cluster });
    recordPosition(to, "tier1", { cluster, name, segmentBytes: rawBytes });
  },
  "segment.offloaded": (to, { cluster, name, bytes, rawBytes }, now) => {
    to.add("klio.consumer.written_size", bytes, { cluster_name: cluster });
    to.add("klio.consumer.written", 1, { cluster_name: cluster });
    to.set("klio.consumer.latest_written_time", now, { cluster_name: cluster });
    recordPosition(to, "tier2", { cluster, name, segmentBytes: rawBytes === 0 ? undefined : rawBytes });
  },
  "segment.abandoned": (to, { cluster }) => to.add("klio.consumer.abandoned", 1, { cluster_name: cluster }),
  "relay.verified": (to, { cluster }) =>
    to.add("klio.consumer.backup_verification_success", 1, { cluster_name: cluster }),
  "relay.corrupt": (to, { cluster }) =>
    to.add("klio.consumer.backup_verification_failure", 1, { cluster_name: cluster }),
  "relay.finished": (to, { cluster }) => to.add("klio.consumer.relayed", 1, { cluster_name: cluster }),
  "task.redelivered": (to, { stream }) => to.add("klio.queue.redeliveries", 1, { stream }),
  "task.undecodable": (to, { stream }) => to.add("klio.queue.undecodable", 1, { stream }),
  "backup.verified": (to, { coverage }) => to.set("klio.backup.verification_coverage", coverage, {}),
  "backup.completed": (to, { unverified }) => to.set("klio.backup.unverified", unverified ? 1 : 0, {}),
  "reconcile.begun": (to, { controller, retried }, now) => {
    rounds.set(to, (rounds.get(to) ?? new Map<string, number>()).set(controller, now));
    for (const result of ["success", "error"]) to.add("controller_runtime_reconcile_total", 0, { controller, result });
    to.add("controller_runtime_reconcile_errors_total", 0, { controller });
    to.add("workqueue_adds_total", 1, { name: controller });
    to.add("workqueue_retries_total", retried ? 1 : 0, { name: controller });
    to.set("workqueue_depth", 0, { name: controller });
  },
  "reconcile.waiting": (to, { controller }) => to.set("workqueue_depth", 1, { name: controller }),
  "reconcile.ended": (to, { controller, failed }, now) => {
    to.add("controller_runtime_reconcile_total", 1, { controller, result: failed ? "error" : "success" });
    to.add("controller_runtime_reconcile_errors_total", failed ? 1 : 0, { controller });
    const begun = rounds.get(to)?.get(controller) ?? now;
    to.record("controller_runtime_reconcile_time_seconds", Math.max(0, now - begun), { controller });
  },
  "child.restarted": (to, { name }) => to.add("klio.child.restarts", 1, { child: name }),
};

/** Facts of machines that are no amounts have no row; their types are for whoever listens. */
export function isMeasured(fact: { type: string }): fact is Fact {
  return Object.hasOwn(recorders, fact.type);
}

export function recordFact<T extends Fact["type"]>(
  instruments: Instruments,
  fact: Extract<Fact, { type: T }>,
  epochSeconds: number,
): void {
  const record: Recorder<T> = recorders[fact.type as T];
  record(instruments, fact, epochSeconds);
}
