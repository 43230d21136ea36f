// Verification: structure always, and the bytes of a share of the files. Tells damage from a repository that cannot be read.
import { failure, type Outcome, ok } from "../../domain/outcome.ts";
import type { CatalogueEntry } from "../../domain/snapshot-catalogue.ts";
import type { SnapshotInfo, VerifyOptions } from "../../domain/snapshots.ts";
import type { CommandResult } from "../process/run-command.ts";
import { stillStored } from "./catalogue.ts";
import { failureOfCommand, infrastructureFailure, type Peer } from "./classify.ts";
import { parseVerifyProgress } from "./progress.ts";

/** Damage is listed up to this many lines; then it stops. */
const MAX_ERRORS = 20;
const GONE = /found \d+ of the \d+ requested snapshot IDs/;
/** Ids on one command line. */
const BATCH = 200;

export type VerifyRun = (
  args: readonly string[],
  options: { signal?: AbortSignal; onLine: (stream: "stdout" | "stderr", line: string) => void },
) => Promise<CommandResult>;

/**
 * `run` must use a connection without caches: a cached content hides the damage of the stored one. `list`: the catalogue as
 * it is now.
 */
export type Verifier = { run: VerifyRun; list: () => Promise<Outcome<CatalogueEntry[]>>; peer: Peer };

export async function verifySnapshots(
  verifier: Verifier,
  snapshots: readonly SnapshotInfo[],
  options: VerifyOptions,
): Promise<Outcome<{ corrupt: string[] }>> {
  const corrupt: string[] = [];
  for (let at = 0; at < snapshots.length; at += BATCH) {
    const outcome = await verifyBatch(verifier, snapshots.slice(at, at + BATCH), options);
    if (outcome.kind !== "ok") return outcome;
    corrupt.push(...outcome.value);
  }
  return ok({ corrupt });
}

/** An id that is not found may have been replaced since it was listed; the snapshot is damaged only if it is gone. */
async function verifyBatch(
  verifier: Verifier,
  snapshots: readonly SnapshotInfo[],
  options: VerifyOptions,
): Promise<Outcome<string[]>> {
  const answer = await verifyIds(verifier, snapshots, options);
  if (answer.kind !== "gone") return answer;
  const entries = await verifier.list();
  if (entries.kind !== "ok") return entries;
  const stored = stillStored(entries.value, snapshots);
  if (stored.length < snapshots.length)
    return ok([`only ${stored.length} of ${snapshots.length} snapshots are stored`]);
  const again = await verifyIds(verifier, stored, options);
  return again.kind === "gone"
    ? failure("KLIO-REPOSITORY-DOWN", "the ids of the snapshots change all the time")
    : again;
}

async function verifyIds(
  { run, peer }: Verifier,
  snapshots: readonly SnapshotInfo[],
  { percent, signal, onProgress }: VerifyOptions,
): Promise<Outcome<string[]> | { kind: "gone" }> {
  const result = await run(
    [
      "snapshot",
      "verify",
      "--json",
      `--verify-files-percent=${percent}`,
      `--max-errors=${MAX_ERRORS}`,
      ...snapshots.map(({ id }) => id),
    ],
    {
      ...(signal !== undefined && { signal }),
      onLine: (stream, line) => {
        const progress = stream === "stderr" ? parseVerifyProgress(line) : undefined;
        if (progress !== undefined) onProgress?.(progress);
      },
    },
  );
  if (result.aborted || result.signal !== undefined) return failureOfCommand(result, peer, "cannot verify");
  const verdict = parseVerdict(result.stdout);
  if (result.code === 0 && verdict?.errorCount === 0) return ok([]);
  const told = verdict?.errorStrings ?? [];
  if ([...told, result.stderr].some((text) => GONE.test(text))) return { kind: "gone" };
  if (verdict !== undefined && verdict.errorCount > 0) {
    const failed = told.map((text) => infrastructureFailure(text, peer)).find((one) => one !== undefined);
    return failed ?? ok(told.length > 0 ? told : [`${verdict.errorCount} errors`]);
  }
  // Without a verdict: a damaged index or manifest keeps the repository from being opened or walked at all.
  const failed = failureOfCommand(result, peer, "cannot verify");
  return failed.code === "KLIO-REPOSITORY" ? ok([failed.reason]) : failed;
}

function parseVerdict(stdout: string): { errorCount: number; errorStrings?: string[] } | undefined {
  const line = stdout.trim().split("\n").at(-1) ?? "";
  if (!line.startsWith("{")) return undefined;
  return JSON.parse(line) as { errorCount: number; errorStrings?: string[] };
}
