// The backup relay's IO: a backup's WAL awaited, its snapshots copied to tier 2 and read back there, its pin taken off.
import { fromPromise } from "xstate";
import { listNames } from "../actors/spool/wal-directory.ts";
import type { BackupTask } from "../domain/offload-task.ts";
import { type Failure, failure, type Outcome, ok } from "../domain/outcome.ts";
import { type StoredBackup, TIER2_PIN, type VerifyOptions } from "../domain/snapshots.ts";
import { segmentRange } from "../domain/wal-segment.ts";
import { backupRelay, type Choice, type Verification } from "../machines/backup-relay.machine.ts";
import { guarded, isFailure, type OffloadParts, openedTier2, waitingForTier2 } from "./offload-parts.ts";
import type { Maintain } from "./offload-retention.ts";

/** On tier 1 the sidecar has read everything after the backup; the structure is looked at again before it is copied. */
const SOURCE_PERCENT = 0;
const COPY_PERCENT = 100;

type BackupInput = { cluster: string; backup: string };
type TaskInput = BackupInput & { task: BackupTask };
type LookInput = TaskInput & { looks: number };
type MissingWal = { missing: number; first: string };

/** Names of the segments of a range that tier 1 has not complete. */
export async function missingWal(
  walDirectory: string,
  cluster: string,
  range: { startWal: string; endWal: string; segmentBytes: number },
): Promise<string[]> {
  const stored = new Set(await listNames(walDirectory, cluster));
  return segmentRange(range.startWal, range.endWal, range.segmentBytes).filter((name) => !stored.has(name));
}

/** The backupRelay machine with its IO. `enqueueBackup`: a task of its own for one backup. */
export function relayOf(
  parts: OffloadParts,
  maintain: Maintain,
  enqueueBackup: (cluster: string, backup: string) => Promise<Outcome<void>>,
) {
  const { settings, log } = parts;

  async function onTier1({ cluster, backup }: BackupInput): Promise<StoredBackup | undefined | Failure> {
    const stored = await parts.repository.backups(cluster);
    return stored.kind === "ok" ? stored.value.find(({ metadata }) => metadata.name === backup) : stored;
  }

  async function choose({ cluster, backup, task }: TaskInput): Promise<Outcome<Choice>> {
    const opened = openedTier2(parts);
    if (isFailure(opened)) return opened;
    // What was set since the task was written counts for more.
    if (task.tier2Retention !== undefined && (await settings.read(cluster)).tier2Retention === undefined)
      await settings.write(cluster, { tier2Retention: task.tier2Retention });
    if (backup === "") return expand(cluster);
    const stored = await onTier1({ cluster, backup });
    if (stored === undefined) {
      for (const known of [sound, soundCopies]) known.delete(`${cluster}/${backup}`);
      log.info("relay.gone", `backup ${backup} is no longer on tier 1`, { cluster, backup });
      return ok({ kind: "none" });
    }
    if (isFailure(stored)) return stored;
    return ok({ kind: "one", backup });
  }

  /** A task of an older peer names no backup: each one that waits gets a task of its own. */
  async function expand(cluster: string): Promise<Outcome<Choice>> {
    const waiting = await waitingForTier2(parts, cluster);
    if (waiting.kind !== "ok") return waiting;
    for (const { metadata } of waiting.value) {
      const sent = await enqueueBackup(cluster, metadata.name);
      if (sent.kind !== "ok") return sent;
    }
    return ok({ kind: "none" });
  }

  /** Deleted while it was relayed, which is nobody's failure: the task comes once more, finds it gone, and ends. */
  const goneMeanwhile = ({ backup }: BackupInput): Failure => ({
    kind: "retryable",
    code: "KLIO-BACKUP-UNKNOWN",
    reason: `backup ${backup} is gone from tier 1`,
  });

  async function verifySource(input: BackupInput, signal: AbortSignal): Promise<Outcome<Verification>> {
    const stored = await onTier1(input);
    if (stored === undefined) return goneMeanwhile(input);
    if (isFailure(stored)) return stored;
    return read(input, stored, { percent: SOURCE_PERCENT, signal });
  }

  /** Reads tier 1's. */
  async function read(input: BackupInput, { snapshots }: StoredBackup, options: VerifyOptions) {
    const verified = await parts.repository.verify(snapshots, options);
    if (verified.kind !== "ok" || verified.value.corrupt.length === 0) return verified;
    // What was deleted since it was listed is told as damage, too.
    return (await onTier1(input)) === undefined ? goneMeanwhile(input) : verified;
  }

  /** Backups that a failed copy had read on tier 1 and found sound; through an outage one copy after the other fails. */
  const sound = new Set<string>();
  /** Of a failed copy it is not known which tier failed it: damage on tier 1 would be tried for ever as an outage of tier 2. */
  async function damageOf(input: BackupInput, stored: StoredBackup, signal: AbortSignal): Promise<Failure | undefined> {
    const key = `${input.cluster}/${input.backup}`;
    if (sound.has(key)) return undefined;
    const verified = await read(input, stored, { percent: 100, signal });
    if (verified.kind !== "ok") return undefined;
    if (verified.value.corrupt.length > 0)
      return failure("KLIO-BACKUP-CORRUPT", `tier 1: ${verified.value.corrupt.slice(0, 3).join("; ")}`);
    sound.add(key);
    return undefined;
  }

  async function copy(input: BackupInput, signal: AbortSignal): Promise<Outcome<{ bytes: number }>> {
    const opened = openedTier2(parts);
    if (isFailure(opened)) return opened;
    const stored = await onTier1(input);
    if (stored === undefined) return goneMeanwhile(input);
    if (isFailure(stored)) return stored;
    const copied = await parts.repository.copyBackupTo(opened.repository, stored, { signal });
    if (copied.kind !== "ok")
      return copied.code === "KLIO-REPOSITORY-DOWN" ? ((await damageOf(input, stored, signal)) ?? copied) : copied;
    sound.delete(`${input.cluster}/${input.backup}`);
    log.info("relay.copied", `backup ${input.backup} is on tier 2`, { ...input, bytes: copied.value.bytes });
    return copied;
  }

  /** Ids of the snapshots of copies that were read and found sound: whatever fails behind it is tried again without that. */
  const soundCopies = new Map<string, string>();

  async function verifyCopy({ cluster, backup }: BackupInput, signal: AbortSignal): Promise<Outcome<Verification>> {
    const opened = openedTier2(parts);
    if (isFailure(opened)) return opened;
    const stored = await opened.repository.backups(cluster);
    if (stored.kind !== "ok") return stored;
    const source = await onTier1({ cluster, backup });
    if (source === undefined) return goneMeanwhile({ cluster, backup });
    if (isFailure(source)) return source;
    // A name may have been used before, and an older backup of it still lie on tier 2; a path is that of one backup alone.
    const paths = new Set(source.snapshots.map(({ path }) => path));
    const copied = stored.value.find(({ snapshots }) => snapshots.some(({ path }) => paths.has(path)));
    if (copied === undefined) {
      // What an earlier copy had left may have been swept while this one passed over it: the next try makes it whole.
      const reason = `backup ${backup} is not whole on tier 2 after its copy`;
      return { kind: "retryable", code: "KLIO-BACKUP-FAILED", reason };
    }
    const ids = copied.snapshots
      .map(({ id }) => id)
      .toSorted()
      .join();
    if (soundCopies.get(`${cluster}/${backup}`) === ids) return ok({ corrupt: [] });
    const started = performance.now();
    const verified = await opened.repository.verify(copied.snapshots, { percent: COPY_PERCENT, signal });
    if (verified.kind === "ok" && verified.value.corrupt.length === 0) {
      const bytes = (copied.snapshots.reduce((sum, one) => sum + one.bytes, 0) * COPY_PERCENT) / 100;
      const measure = {
        backup,
        bytes,
        seconds: (performance.now() - started) / 1000,
        at: Math.floor(Date.now() / 1000),
      };
      soundCopies.set(`${cluster}/${backup}`, ids);
      await parts.settings.writeRead(cluster, "tier2", "verification", measure);
    } else if (verified.kind === "ok") {
      // Tier 1 has the backup and keeps it: what cannot be restored is not left to be taken for a copy of it.
      const removed = await opened.repository.delete(copied.snapshots);
      const what = `the copy of backup ${backup} on tier 2 is damaged`;
      if (removed.kind === "ok") log.warn("relay.corrupt", `${what} and was removed`, { cluster, backup });
      else log.warn("relay.corrupt", `${what} and cannot be removed: ${removed.reason}`, { cluster, backup });
    }
    return verified;
  }

  async function applyRetention(cluster: string): Promise<Outcome<void>> {
    const done = await maintain(cluster, "tier2", false);
    return done.kind === "ok" ? ok(undefined) : done;
  }

  async function unpin(input: BackupInput): Promise<Outcome<void>> {
    const stored = await onTier1(input);
    if (stored !== undefined && isFailure(stored)) return stored;
    const pinned = stored?.snapshots.filter(({ pins }) => pins.includes(TIER2_PIN)) ?? [];
    const unpinned = pinned.length === 0 ? ok(undefined) : await parts.repository.unpin(pinned, TIER2_PIN);
    if (unpinned.kind === "ok") soundCopies.delete(`${input.cluster}/${input.backup}`);
    return unpinned;
  }

  async function maintainTier1(cluster: string): Promise<Outcome<void>> {
    const done = await maintain(cluster, "tier1", false);
    if (done.kind !== "ok") log.warn("retention.failed", `tier 1 was not tidied: ${done.reason}`, { cluster });
    return ok(undefined);
  }

  async function findMissing({ cluster, backup, task, looks }: LookInput): Promise<Outcome<MissingWal>> {
    const missing = task.range === undefined ? [] : await missingWal(parts.walDirectory, cluster, task.range);
    // The WAL of a backup that was deleted or abandoned may never come. A listing costs more than a look for files.
    const isGone =
      missing.length > 0 && looks === 1 && backup !== "" && (await onTier1({ cluster, backup })) === undefined;
    return ok(isGone ? { missing: 0, first: "" } : { missing: missing.length, first: missing[0] ?? "" });
  }

  return backupRelay.provide({
    actors: {
      findMissingWal: fromPromise<Outcome<MissingWal>, LookInput>(({ input }) => guarded(() => findMissing(input))),
      chooseBackup: fromPromise<Outcome<Choice>, TaskInput>(({ input }) => guarded(() => choose(input))),
      verifySource: fromPromise<Outcome<Verification>, BackupInput>(({ input, signal }) =>
        guarded(() => verifySource(input, signal)),
      ),
      copyBackup: fromPromise<Outcome<{ bytes: number }>, BackupInput>(({ input, signal }) =>
        guarded(() => copy(input, signal)),
      ),
      verifyCopy: fromPromise<Outcome<Verification>, BackupInput>(({ input, signal }) =>
        guarded(() => verifyCopy(input, signal)),
      ),
      applyRetention: fromPromise<Outcome<void>, TaskInput>(({ input }) =>
        guarded(() => applyRetention(input.cluster)),
      ),
      unpinBackup: fromPromise<Outcome<void>, BackupInput>(({ input }) => guarded(() => unpin(input))),
      maintainTier1: fromPromise<Outcome<void>, BackupInput>(({ input }) =>
        guarded(() => maintainTier1(input.cluster)),
      ),
    },
  });
}
