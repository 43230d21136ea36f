// Takes a base backup: one baseBackup machine, with the IO of a session behind it.
import { fromPromise, toPromise } from "xstate";
import type { BackupStep } from "../actors/grpc/serve-sidecar.actor.ts";
import { type BackupMetadata, formatBackupMetadata } from "../domain/backup-metadata.ts";
import { defaultBackupName, requireBackupName } from "../domain/backup-name.ts";
import type { Log } from "../domain/log.ts";
import type { Outcome } from "../domain/outcome.ts";
import type { SnapshotProgress } from "../domain/snapshots.ts";
import { errorTable, KlioError } from "../errors.ts";
import { baseBackup } from "../machines/base-backup.machine.ts";
import type {
  BackupFact,
  BackupInput,
  BackupRole,
  BackupVerification,
  MissingWal,
} from "../machines/base-backup-events.ts";
import type { Telemetry } from "../telemetry/telemetry.ts";
import { openBackupSession } from "./backup-session.ts";
import type { TierAccessOptions } from "./tier-access.ts";

export type BaseBackupOptions = Omit<TierAccessOptions, "telemetry"> & {
  telemetry: Pick<Telemetry, "start" | "clientInterceptors">;
  /** Empty: `backup-YYYYMMDDhhmmss`. */
  name: string;
  sendToTier2: boolean;
  waitForWals: boolean;
  onProgress?: (step: BackupStep) => void;
  timing?: Partial<BackupTiming>;
};
type BackupTiming = Pick<BackupInput, "maxLooks" | "lookMs" | "maxVerifications" | "verifyWaitMs">;
export type BaseBackupResult = {
  metadata: BackupMetadata;
  metadataJson: string;
  /** No verification could be made, though nothing is known to be damaged. */
  unverified: boolean;
};

/** WAL is waited for ten minutes; the verification is tried as the telemetry contract says. */
const TIMING: BackupTiming = { maxLooks: 1_200, lookMs: 500, maxVerifications: 3, verifyWaitMs: 5_000 };

/** `{active: {running: "copyingData"}}` as "running.copyingData". */
function stepName(value: unknown): string {
  if (typeof value === "string") return value;
  return Object.entries(value as Record<string, unknown>)
    .map(([key, inner]) => (key === "active" ? stepName(inner) : `${key}.${stepName(inner)}`))
    .join(" ");
}

/**
 * Resolves when the backup is stored, verified and maintained. Rejects with a KlioError whose exit status tells what was to
 * blame (KLIO-SOURCE-…, KLIO-REPOSITORY-…, KLIO-BACKUP-CORRUPT), KLIO-BACKUP-RUNNING, or KLIO-CANCELLED; nothing of the backup
 * is listed then.
 */
export async function runBaseBackup(options: BaseBackupOptions): Promise<BaseBackupResult> {
  const { config, telemetry, log, signal, waitForWals, onProgress } = options;
  const name = requireBackupName(options.name === "" ? defaultBackupName(Date.now()) : options.name);
  let step: BackupStep = { state: "", processedBytes: 0, estimatedBytes: 0 };
  const tell = (next: Partial<BackupStep>) => {
    step = { ...step, ...next };
    onProgress?.(step);
  };
  const onCopy = ({ processedBytes, estimatedBytes }: SnapshotProgress) => tell({ processedBytes, estimatedBytes });
  await using session = openBackupSession({ ...options, name, onCopy });
  type Answers<T> = (stop: AbortSignal) => Promise<Outcome<T>>;
  const io = <T>(work: Answers<T>) => fromPromise<Outcome<T>, null>(({ signal: stop }) => work(stop));
  const machine = baseBackup.provide({
    actors: {
      startBackup: io<{ role: BackupRole }>(session.start),
      copyTablespaces: io<null>(session.copyTablespaces),
      copyData: io<null>(session.copyData),
      copyControlFile: io<null>(session.copyControlFile),
      stopBackup: io<null>(session.stop),
      storeManifest: io<null>(session.storeManifest),
      closeBackup: io<MissingWal>(session.close),
      verifyBackup: io<BackupVerification>(session.verify),
      maintainBackups: io<null>(session.maintain),
      abandonBackup: io<null>(session.abandon),
    },
  });
  log.info("backup.started", `backup ${name} begins`, { backup: name });
  const started = performance.now();
  const actor = telemetry.start(machine, {
    id: `baseBackup/${config.clusterName}`,
    input: { name, waitForWals, ...TIMING, ...options.timing },
  });
  actor.on("*", (fact) => logFact(log, name, fact));
  tell({ state: stepName(actor.getSnapshot().value) });
  const watching = actor.subscribe(({ value }) => tell({ state: stepName(value) }));
  const cancel = () => actor.send({ type: "shutdown.requested" });
  signal.addEventListener("abort", cancel, { once: true });
  if (signal.aborted) cancel();
  try {
    const { kind, code, reason } = await toPromise(actor);
    if (kind !== "completed") {
      log.error("backup.ended", `backup ${name} ${kind}: ${reason}`, { backup: name, code });
      throw new KlioError(code, kind === "cancelled" ? reason : `backup ${name} failed: ${reason}`, {
        hint: errorTable[code].cure,
      });
    }
    const metadata = session.metadata();
    const seconds = Math.round(performance.now() - started) / 1000;
    log.info("backup.completed", `backup ${name} is complete after ${seconds} s`, { backup: name, seconds });
    const { unverified } = actor.getSnapshot().context;
    return { metadata, metadataJson: formatBackupMetadata(metadata, 2), unverified };
  } finally {
    watching.unsubscribe();
    signal.removeEventListener("abort", cancel);
  }
}

type Line = [level: "debug" | "info" | "warn", event: string, text: string];

/** Undefined: whoever runs the backup tells it, with more than the fact knows. */
function lineOf(fact: BackupFact): Line | undefined {
  switch (fact.type) {
    case "backup.verified":
      return ["info", "backup.verified", `was read back (${Math.round(fact.coverage * 100)} %)`];
    case "backup.completed":
      return undefined;
    case "wal.awaited":
      return ["debug", "backup.wal.awaited", `waits for its WAL, first ${fact.first}`];
    case "verification.failed":
      return ["warn", "backup.verification.failed", `could not be verified (attempt ${fact.attempt}): ${fact.reason}`];
    case "backup.unverified":
      return ["warn", "backup.unverified", `stays unverified: ${fact.reason}`];
    case "maintenance.failed":
      return ["warn", "backup.maintenance.failed", `is complete, but the maintenance after it failed: ${fact.reason}`];
    case "backup.abandoned":
      return fact.reason === ""
        ? ["info", "backup.abandoned", "is abandoned: nothing of it is listed"]
        : ["warn", "backup.abandoned", `could not be abandoned, what it stored is swept later: ${fact.reason}`];
    default:
      return fact satisfies never;
  }
}

function logFact(log: Log, backup: string, fact: BackupFact): void {
  const line = lineOf(fact);
  if (line === undefined) return;
  const [level, event, text] = line;
  log[level](event, `backup ${backup} ${text}`, { backup });
}
