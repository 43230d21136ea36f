// Reads a stored backup back, as much of it as is worth the time.
import { type Outcome, ok } from "../domain/outcome.ts";
import type { ClusterSnapshots, StoredBackup } from "../domain/snapshots.ts";
import type { BackupVerification } from "../machines/base-backup-events.ts";

/** Up to here every byte of a fresh backup is read back; of a larger one, as much as this. */
const FULL_READ_BYTES = 100 * 2 ** 30;

function bytesOf({ snapshots }: StoredBackup): number {
  return snapshots.reduce((sum, { bytes }) => sum + bytes, 0);
}

/** Percent of the files to read, 1 … 100. */
export function readShare(stored: StoredBackup): number {
  const bytes = bytesOf(stored);
  return bytes <= FULL_READ_BYTES ? 100 : Math.max(1, Math.floor((100 * FULL_READ_BYTES) / bytes));
}

/** `bytes`: that were read, in how many `seconds`. Never rejects but with a bug. */
export async function verifyStored(
  snapshots: ClusterSnapshots,
  stored: StoredBackup,
  { percent, signal }: { percent: number; signal: AbortSignal },
): Promise<Outcome<BackupVerification & { bytes: number; seconds: number }>> {
  const started = performance.now();
  const read = await snapshots.verify(stored.snapshots, { percent, signal });
  if (read.kind !== "ok") return read;
  const coverage = percent / 100;
  const seconds = (performance.now() - started) / 1000;
  return ok({ corrupt: read.value.corrupt, coverage, bytes: bytesOf(stored) * coverage, seconds });
}
