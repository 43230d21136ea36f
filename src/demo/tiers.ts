// What is stored where, asked through the server's admin commands and read from the disks.
import { existsSync, readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import type { ReconcileReport } from "../machines/reconciler.machine.ts";
import { klio } from "./klio-command.ts";
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

/** Is this backup on tier 2? */
export async function isRelayed(stage: Stage, backup: string, signal: AbortSignal): Promise<boolean> {
  const list = JSON.parse(await admin(stage, ["list-backups"], signal)) as Listed[];
  return list.some(({ name, annotations }) => name === backup && annotations?.["klio.io/tier2"] !== undefined);
}

/** Does tier 2 hold every WAL file of tier 1? The reconciler's comparison of the two listings. */
export async function isTier2Complete(stage: Stage, signal: AbortSignal): Promise<boolean> {
  const { error, clusters } = JSON.parse(await admin(stage, ["reconcile", "--json"], signal)) as ReconcileReport;
  const isEqual = (one: ReconcileReport["clusters"][number]) =>
    one.error === "" && one.missing === 0 && one.different.length === 0;
  return error === "" && clusters.length > 0 && clusters.every(isEqual);
}

function admin(stage: Stage, args: string[], signal: AbortSignal): Promise<string> {
  const { program, surroundings, serverEnv } = stage;
  return klio({
    program,
    args: ["admin", ...args, "--socket-path", surroundings.adminSocket],
    env: serverEnv,
    runAs: {},
    signal,
  });
}
