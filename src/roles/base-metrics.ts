// klio.base.*: what is stored on each tier, listed at start, after each change by this server, and once a minute; ages grow at
// every look.
import { type BaseStatistics, baseStatistics } from "../domain/base-statistics.ts";
import type { Log } from "../domain/log.ts";
import type { SnapshotRepository } from "../domain/snapshots.ts";
import type { Reading } from "../telemetry/instruments.ts";
import type { MetricName } from "../telemetry/names.ts";
import type { Telemetry } from "../telemetry/telemetry.ts";

const LIST_MS = 60_000;

type Value = (statistics: BaseStatistics, nowMs: number) => number;
const values: readonly [MetricName, Value][] = [
  ["klio.base.snapshots", (s) => s.snapshots],
  ["klio.base.latest_snapshot_size", (s) => s.latestBytes],
  ["klio.base.latest_snapshot_files", (s) => s.latestFiles],
  ["klio.base.latest_snapshot_dirs", (s) => s.latestDirectories],
  ["klio.base.latest_snapshot_age", (s, now) => (now - s.latestEndMs) / 1000],
  ["klio.base.oldest_snapshot_age", (s, now) => (now - s.oldestEndMs) / 1000],
];

export type BaseWatch = AsyncDisposable & {
  /** Backups have changed past this server: lists them now. */
  refresh(): void;
};

export type WatchedRepository = Pick<SnapshotRepository, "tier" | "backups"> & {
  onChanged(watcher: () => void): () => void;
};

/** Watches one tier until disposed. A listing that fails leaves the last values. */
export function watchBaseBackups(
  repository: WatchedRepository,
  telemetry: Pick<Telemetry, "observe">,
  log: Log,
): BaseWatch {
  let known: BaseStatistics[] = [];
  let isWaiting = false;
  const { tier } = repository;
  const list = async () => {
    isWaiting = false; // a change from now on may be missed by this listing
    const listed = await repository.backups();
    if (listed.kind === "ok") known = baseStatistics(listed.value);
    else log.warn("base.list.failed", `cannot list the base backups of ${tier}: ${listed.reason}`, { tier });
  };
  const stops = values.map(([name, value]) =>
    telemetry.observe(name, function* (): Iterable<Reading> {
      for (const statistics of known)
        yield { value: value(statistics, Date.now()), labels: { snapshot_source: statistics.source, tier } };
    }),
  );
  let running: Promise<void> = list();
  const refresh = () => {
    if (isWaiting) return;
    isWaiting = true;
    running = running.then(list);
  };
  stops.push(repository.onChanged(refresh));
  const timer = setInterval(refresh, LIST_MS);
  return {
    refresh,
    async [Symbol.asyncDispose]() {
      clearInterval(timer);
      for (const stop of stops) stop();
      await running;
    },
  };
}
