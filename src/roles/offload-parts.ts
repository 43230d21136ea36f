// What the pieces of the offload role share.
import type { Queue } from "../actors/jetstream/queue.ts";
import type { ObjectStore } from "../actors/s3/object-store.ts";
import type { Tier2Reader } from "../actors/s3/tier2-wal-reader.ts";
import type { SettingsStore } from "../actors/spool/cluster-settings.ts";
import type { WalStore } from "../actors/spool/wal-store.ts";
import type { BackupMetadata } from "../domain/backup-metadata.ts";
import type { Frontier } from "../domain/frontier.ts";
import type { Log } from "../domain/log.ts";
import { type Failure, failure, failureOf, type Outcome, ok } from "../domain/outcome.ts";
import { type SnapshotRepository, type StoredBackup, TIER2_PIN } from "../domain/snapshots.ts";
import type { Telemetry } from "../telemetry/telemetry.ts";
import type { MasterKey } from "../wire/wal-file-header.ts";

/** Tier 2, open. */
export type Tier2Parts = {
  objects: ObjectStore;
  reader: Tier2Reader;
  masterKey: MasterKey;
  repository: SnapshotRepository;
};

/** `isWanted`: the server has a tier 2. `parts`: undefined while it could not be opened yet. */
type Tier2State = { isWanted: boolean; prefix: string; parts: Tier2Parts | undefined };

export type OffloadParts = {
  store: WalStore;
  walDirectory: string;
  repository: SnapshotRepository;
  tier2: Tier2State;
  settings: SettingsStore;
  queue: Queue;
  telemetry: Telemetry;
  log: Log;
  frontierOf: (cluster: string) => Frontier;
};

/** Tier 2, or why it cannot be used now. */
export function openedTier2({ tier2 }: OffloadParts): Tier2Parts | Failure {
  if (!tier2.isWanted) return failure("KLIO-TIER-MISSING", "this server has no tier 2");
  return tier2.parts ?? failure("KLIO-S3-DOWN", "tier 2 could not be opened yet");
}

/** Backups of tier 1 that are to reach tier 2 and have not: the pin says so, and is taken off when they have. */
export async function waitingForTier2({ repository }: OffloadParts, cluster: string): Promise<Outcome<StoredBackup[]>> {
  const stored = await repository.backups(cluster);
  if (stored.kind !== "ok") return stored;
  return ok(stored.value.filter(({ snapshots }) => snapshots.some(({ pins }) => pins.includes(TIER2_PIN))));
}

/** Whose WAL tier 2 must have: the backups that it holds, and those that are still to come. Without any of its own, none. */
export async function needsOfTier2(
  parts: OffloadParts,
  { repository }: Tier2Parts,
  cluster: string,
): Promise<Outcome<BackupMetadata[]>> {
  // Those first: one that arrives in between is in both lists, never in neither.
  const waiting = await waitingForTier2(parts, cluster);
  if (waiting.kind !== "ok") return waiting;
  const stored = await repository.backups(cluster);
  if (stored.kind !== "ok" || stored.value.length === 0) return stored.kind === "ok" ? ok([]) : stored;
  return ok([...stored.value, ...waiting.value].map(({ metadata }) => metadata));
}

export function isFailure(value: object): value is Failure {
  return "kind" in value && (value.kind === "retryable" || value.kind === "fatal");
}

/** A KlioError that the work rejects with, as its outcome. */
export async function guarded<T>(work: () => Promise<Outcome<T>>): Promise<Outcome<T>> {
  try {
    return await work();
  } catch (error) {
    return failureOf(error);
  }
}

/** Runs work of one key one after the other. */
export function keyedMutex(): <T>(key: string, work: () => Promise<T>) => Promise<T> {
  const last = new Map<string, Promise<unknown>>();
  return async (key, work) => {
    const before = last.get(key) ?? Promise.resolve();
    const run = before.then(work, work);
    last.set(key, run);
    try {
      return await run;
    } finally {
      if (last.get(key) === run) last.delete(key);
    }
  };
}
