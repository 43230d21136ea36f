// Verification: structure always, and the bytes of a share of the files. Tells damage from a repository that cannot be read.
import { type Outcome, ok } from "../../domain/outcome.ts";
import type { SnapshotInfo, VerifyOptions } from "../../domain/snapshots.ts";
import type { CommandResult } from "../process/run-command.ts";
import { failureOfCommand, infrastructureFailure, type Peer } from "./classify.ts";
import { parseVerifyProgress } from "./progress.ts";

/** Damage is listed up to this many lines; then it stops. */
const MAX_ERRORS = 20;
/** Ids on one command line. */
const BATCH = 200;

export type VerifyRun = (
  args: readonly string[],
  options: { signal?: AbortSignal; onLine: (stream: "stdout" | "stderr", line: string) => void },
) => Promise<CommandResult>;

/** `run` must use a connection without caches: a cached content hides the damage of the stored one. */
export async function verifySnapshots(
  run: VerifyRun,
  peer: Peer,
  snapshots: readonly SnapshotInfo[],
  options: VerifyOptions,
): Promise<Outcome<{ corrupt: string[] }>> {
  const corrupt: string[] = [];
  for (let at = 0; at < snapshots.length; at += BATCH) {
    const outcome = await verifyBatch(run, peer, snapshots.slice(at, at + BATCH), options);
    if (outcome.kind !== "ok") return outcome;
    corrupt.push(...outcome.value);
  }
  return ok({ corrupt });
}

async function verifyBatch(
  run: VerifyRun,
  peer: Peer,
  snapshots: readonly SnapshotInfo[],
  { percent, signal, onProgress }: VerifyOptions,
): Promise<Outcome<string[]>> {
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
  if (verdict !== undefined && verdict.errorCount > 0) {
    const failed = told.map((text) => infrastructureFailure(text, peer)).find((one) => one !== undefined);
    return failed ?? ok(told.length > 0 ? told : [`${verdict.errorCount} errors`]);
  }
  const gone = /found (\d+) of the (\d+) requested snapshot IDs/.exec(result.stderr);
  if (gone !== null) return ok([`only ${gone[1]} of ${gone[2]} snapshots are stored`]);
  // Without a verdict: a damaged index or manifest keeps the repository from being opened or walked at all.
  const failed = failureOfCommand(result, peer, "cannot verify");
  return failed.code === "KLIO-REPOSITORY" ? ok([failed.reason]) : failed;
}

function parseVerdict(stdout: string): { errorCount: number; errorStrings?: string[] } | undefined {
  const line = stdout.trim().split("\n").at(-1) ?? "";
  if (!line.startsWith("{")) return undefined;
  return JSON.parse(line) as { errorCount: number; errorStrings?: string[] };
}
