// What a sidecar knows of the backups before this process: its gauges tell it at once, and a backup that a crash interrupted
// counts as a failure now.
import { setTimeout as wait } from "node:timers/promises";
import { readBackupTimes, writeBackupTimes } from "../actors/backup/backup-times-file.ts";
import { backoffMs } from "../domain/backoff.ts";
import {
  afterRestart,
  type BackupEndKind,
  type BackupTimes,
  backupBegun,
  backupEnded,
  withStoredBackups,
} from "../domain/backup-times.ts";
import type { Log } from "../domain/log.ts";
import type { Outcome } from "../domain/outcome.ts";
import { KlioError } from "../errors.ts";
import type { Telemetry } from "../telemetry/telemetry.ts";
import { openTier, type TierAccessOptions } from "./tier-access.ts";

export type BackupHistory = {
  /** Runs a backup and remembers how it ended. */
  during<T extends { unverified: boolean }>(name: string, work: () => Promise<T>): Promise<T>;
  /** Asks tier 1 for what this memory lacks, until it answers or the signal comes. Never rejects but with a bug. */
  learn(signal: AbortSignal): Promise<void>;
};

const POLICY = { firstMs: 1_000, factor: 2, limitMs: 60_000 };
const nowSeconds = () => Date.now() / 1000;

function showTimes(telemetry: Pick<Telemetry, "hydrate">, times: BackupTimes): void {
  const { latestStart, latestCompletion, latestFailure, latestDuration } = times;
  if (latestStart !== undefined) telemetry.hydrate("klio.backup.latest_start_time", {}, latestStart);
  if (latestCompletion !== undefined) telemetry.hydrate("klio.backup.latest_completion_time", {}, latestCompletion);
  if (latestFailure !== undefined) telemetry.hydrate("klio.backup.latest_failure_time", {}, latestFailure);
  telemetry.hydrate("klio.backup.unverified", {}, times.unverified === true ? 1 : 0);
  if (latestDuration !== undefined) telemetry.hydrate("klio.backup.latest_duration_seconds", {}, latestDuration);
}

/** `path`: the file that remembers. One that cannot be read or written is told of, and is no reason to stop. */
export async function openBackupHistory(
  path: string,
  options: Omit<TierAccessOptions, "telemetry" | "signal"> & {
    telemetry: Pick<Telemetry, "hydrate" | "clientInterceptors">;
  },
): Promise<BackupHistory> {
  const { telemetry, log } = options;
  const found = afterRestart(await tolerate(log, () => readBackupTimes(path), {}), nowSeconds());
  let { times } = found;
  const { interrupted } = found;
  const keep = (next: BackupTimes) => {
    times = next;
    return tolerate(log, () => writeBackupTimes(path, next), undefined);
  };
  showTimes(telemetry, times);
  if (interrupted !== undefined) {
    telemetry.hydrate("klio.backup.failures", {}, 1);
    log.warn(
      "backup.interrupted",
      `backup ${interrupted} was interrupted by the end of the process; it counts as failed`,
      {
        backup: interrupted,
      },
    );
    await keep(times);
  }

  /** ok: nothing more to learn. */
  async function ask(signal: AbortSignal): Promise<Outcome<void>> {
    const opened = await openTier("tier1", { ...options, signal });
    if (opened.kind !== "ok") return opened;
    await using access = opened.value;
    const stored = await access.snapshots.backups();
    if (stored.kind !== "ok") return stored;
    // A backup of this process knows better.
    if (times.running === undefined) {
      await keep(
        withStoredBackups(
          times,
          stored.value.map(({ metadata }) => metadata),
        ),
      );
      showTimes(telemetry, times);
    }
    if (interrupted === undefined || stored.value.some(({ metadata }) => metadata.name === interrupted))
      return { kind: "ok", value: undefined };
    return access.snapshots.abandon(interrupted);
  }

  return {
    async during(name, work) {
      await keep(backupBegun(times, name, nowSeconds()));
      let end: BackupEndKind = "failed";
      let unverified = false;
      try {
        const result = await work();
        end = "completed";
        unverified = result.unverified;
        return result;
      } catch (error) {
        if (error instanceof KlioError && error.code === "KLIO-CANCELLED") end = "cancelled";
        throw error;
      } finally {
        await keep(backupEnded(times, end, nowSeconds(), unverified));
      }
    },
    async learn(signal) {
      for (let attempt = 1; !signal.aborted; attempt++) {
        const answer = await ask(signal);
        if (answer.kind === "ok" || signal.aborted) return;
        log.debug("backup.history", `the stored backups are not known yet: ${answer.reason}`, { code: answer.code });
        if (answer.kind === "fatal") return;
        await wait(backoffMs(POLICY, attempt, Math.random()), undefined, { signal }).catch(() => undefined); // stopped
      }
    },
  };
}

async function tolerate<T>(log: Log, work: () => Promise<T>, otherwise: T): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (!(error instanceof KlioError) || error.kind === "bug") throw error;
    log.warn("backup.history", `what is remembered of backups: ${error.message}`, { code: error.code });
    return otherwise;
  }
}
