// The base backup machine with IO that answers from a script.
import { fromPromise } from "xstate";
import { failure, type Outcome, ok } from "../../src/domain/outcome.ts";
import { baseBackup } from "../../src/machines/base-backup.machine.ts";
import type { BackupInput, BackupRole, BackupVerification, MissingWal } from "../../src/machines/base-backup-events.ts";

export const input: BackupInput = {
  name: "b1",
  waitForWals: true,
  maxLooks: 3,
  lookMs: 500,
  maxVerifications: 3,
  verifyWaitMs: 5_000,
};
export const done: Outcome<null> = ok(null);
export const primary = ok<{ role: BackupRole }>({ role: "primary" });
export const stored = ok<MissingWal>({ missing: 0, first: "" });
export const missing = ok<MissingWal>({ missing: 2, first: "000000010000000000000007" });
export const sound = ok<BackupVerification>({ corrupt: [], coverage: 1 });
export const corrupt = ok<BackupVerification>({ corrupt: ["base/1 is damaged"], coverage: 1 });
export const down = failure("KLIO-REPOSITORY-DOWN", "no answer");
export const lost = failure("KLIO-SOURCE-DOWN", "PostgreSQL is gone");

type Steps = "startBackup" | "copyTablespaces" | "copyData" | "copyControlFile" | "stopBackup" | "storeManifest";
export type BackupScript = Partial<Record<Steps | "maintainBackups" | "abandonBackup", Outcome<unknown> | "hangs">> & {
  closed?: Outcome<MissingWal>[];
  verified?: (Outcome<BackupVerification> | "hangs")[];
};

/** The machine with scripted IO; lists are answered in order, their last entry again and again. */
export function scripted(script: BackupScript) {
  const calls: string[] = [];
  const never = new Promise<never>(() => undefined);
  const answer = <T>(name: string, next: () => Outcome<T> | "hangs") =>
    fromPromise<Outcome<T>, null>(async () => {
      calls.push(name);
      const value = next();
      return value === "hangs" ? never : value;
    });
  const turns = <T>(list: T[]) => {
    let turn = 0;
    return () => list[Math.min(turn++, list.length - 1)] as T;
  };
  const step = (name: Steps | "maintainBackups" | "abandonBackup") =>
    answer<null>(name, () => (script[name] ?? done) as Outcome<null> | "hangs");
  const machine = baseBackup.provide({
    actors: {
      startBackup: answer("startBackup", () => (script.startBackup ?? primary) as typeof primary),
      copyTablespaces: step("copyTablespaces"),
      copyData: step("copyData"),
      copyControlFile: step("copyControlFile"),
      stopBackup: step("stopBackup"),
      storeManifest: step("storeManifest"),
      closeBackup: answer("closeBackup", turns(script.closed ?? [stored])),
      verifyBackup: answer("verifyBackup", turns(script.verified ?? [sound])),
      maintainBackups: step("maintainBackups"),
      abandonBackup: step("abandonBackup"),
    },
  });
  return { machine, calls };
}
