// What is in the queue, as gauges. Metrics are read from memory, so the queue is asked on a timer.
import type { Queue, QueueStatus } from "../actors/jetstream/queue.ts";
import type { DivergenceReport } from "../domain/cluster-status.ts";
import type { Log } from "../domain/log.ts";
import type { Telemetry } from "../telemetry/telemetry.ts";
import type { TaskKind } from "../wire/subject.ts";

const EVERY_MS = 10_000;
const kinds: readonly TaskKind[] = ["wal", "backup"];

/** Returns what stops it. While the queue is away the last known values stay, but the ages grow on. */
export function watchQueue(options: { queue: Queue; telemetry: Telemetry; log: Log }): () => void {
  const { queue, telemetry, log } = options;
  let status: QueueStatus | undefined;
  const ask = async () => {
    const asked = await queue.status();
    if (asked.kind === "ok") status = asked.value;
    else log.debug("queue.unseen", asked.reason);
  };
  const value = (read: (known: QueueStatus) => number) => () => (status === undefined ? [] : [{ value: read(status) }]);
  const perStream = (read: (known: QueueStatus, kind: TaskKind) => number) => () => {
    const known = status;
    if (known === undefined) return [];
    return kinds.map((kind) => ({ value: read(known, kind), labels: { stream: queue.names.stream[kind] } }));
  };
  const undo = [
    telemetry.observe(
      "klio.queue.messages",
      value(({ messages }) => messages),
    ),
    telemetry.observe(
      "klio.queue.bytes",
      value(({ bytes }) => bytes),
    ),
    telemetry.observe(
      "klio.queue.dead_letters",
      perStream(({ dead }, kind) => dead[kind]),
    ),
    telemetry.observe(
      "klio.queue.oldest_age",
      perStream(({ oldestMs }, kind) => (oldestMs[kind] === 0 ? 0 : (Date.now() - oldestMs[kind]) / 1000)),
    ),
  ];
  const timer = setInterval(() => void ask(), EVERY_MS);
  void ask();
  return () => {
    clearInterval(timer);
    for (const stop of undo) stop();
  };
}

const divergences = ["missing", "stale", "different", "foreign"] as const;

/** What the latest comparison of each cluster found. Returns what stops it. */
export function watchDivergence(
  found: ReadonlyMap<string, DivergenceReport>,
  telemetry: Pick<Telemetry, "observe">,
): () => void {
  return telemetry.observe("klio.tiers.divergence", () =>
    [...found].flatMap(([cluster, report]) =>
      divergences.map((kind) => ({ value: report[kind], labels: { cluster_name: cluster, kind } })),
    ),
  );
}
