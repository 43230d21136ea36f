// What the pieces of the offload role share.
import type { Queue } from "../actors/jetstream/queue.ts";
import type { ObjectStore } from "../actors/s3/object-store.ts";
import type { Tier2Reader } from "../actors/s3/tier2-wal-reader.ts";
import type { SettingsStore } from "../actors/spool/cluster-settings.ts";
import type { WalStore } from "../actors/spool/wal-store.ts";
import type { Frontier } from "../domain/frontier.ts";
import type { Log } from "../domain/log.ts";
import { type Failure, failure, failureOf, type Outcome } from "../domain/outcome.ts";
import type { SnapshotRepository } from "../domain/snapshots.ts";
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
