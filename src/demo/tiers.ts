// What is stored where, asked through the server's admin commands and read from the disks.
import { existsSync, readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { exitStatus } from "../errors.ts";
import type { ReconcileReport } from "../machines/reconciler.machine.ts";
import { outputOf, tryKlio } from "./klio-command.ts";
import type { Stage } from "./stage.ts";

/** Total size of the files below a directory; 0 when it is not there. */
export function bytesBelow(directory: string): number {
  if (!existsSync(directory)) return 0;
  return readdirSync(directory, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .reduce(
      (sum, entry) => sum + (statSync(join(entry.parentPath, entry.name), { throwIfNoEntry: false })?.size ?? 0),
      0,
    );
}

type Listed = { name: string; annotations?: Record<string, string> };

/** Is this backup on tier 2? False also while nobody can tell, because tier 2 does not answer. */
export async function isRelayed(stage: Stage, backup: string, signal: AbortSignal): Promise<boolean> {
  const text = await admin(stage, ["list-backups"], signal);
  const list = JSON.parse(text ?? "[]") as Listed[];
  return list.some(({ name, annotations }) => name === backup && annotations?.["klio.io/tier2"] !== undefined);
}

/** Does tier 2 hold every WAL file of tier 1? The reconciler's comparison of the two listings; false while it cannot be made. */
export async function isTier2Complete(stage: Stage, signal: AbortSignal): Promise<boolean> {
  const text = await admin(stage, ["reconcile", "--json"], signal);
  if (text === undefined) return false;
  const { error, clusters } = JSON.parse(text) as ReconcileReport;
  const isEqual = (one: ReconcileReport["clusters"][number]) =>
    one.error === "" && one.missing === 0 && one.different.length === 0;
  return error === "" && clusters.length > 0 && clusters.every(isEqual);
}

/** The output of an admin command; undefined when a peer of the server is not available. */
async function admin(stage: Stage, args: string[], signal: AbortSignal): Promise<string | undefined> {
  const { program, surroundings, serverEnv: env } = stage;
  const command = {
    program,
    args: ["admin", ...args, "--socket-path", surroundings.adminSocket],
    env,
    runAs: {},
    signal,
  };
  const result = await tryKlio(command);
  if (result.code === exitStatus.unavailable) return undefined;
  return outputOf(command, result);
}
