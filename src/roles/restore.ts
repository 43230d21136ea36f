// Restores a cluster's data directory from the tiers: one restore machine, with the IO of a session behind it.
import { fromPromise, toPromise } from "xstate";
import type { WalClient } from "../actors/grpc/wal-client.ts";
import type { ClientConfig } from "../config/config.ts";
import type { Log } from "../domain/log.ts";
import type { Outcome } from "../domain/outcome.ts";
import type { RecoveryTarget } from "../domain/recovery-target.ts";
import type { ClusterSnapshots, TierName } from "../domain/snapshots.ts";
import { KlioError } from "../errors.ts";
import {
  type ChooseAnswer,
  type FetchAnswer,
  type ReachAnswer,
  type RestoreOutput,
  restore,
  type TierAndBackup,
} from "../machines/restore.machine.ts";
import type { Telemetry } from "../telemetry/telemetry.ts";
import { openRestoreSession } from "./restore-session.ts";
import { type AskedTier, walTiers } from "./wal-fetch.ts";

export type RestorePhase = "tablespaces" | "data" | "controlFile";
type RestoreProgress = { phase: RestorePhase; bytes: number; totalBytes: number };
/** What will be done, told before the first write. */
export type RestorePlan = {
  backup: string;
  tier: TierName;
  destination: string;
  /** Paths by tablespace name. */
  tablespaces: Record<string, string>;
  bytes: number;
  timeline: number;
  target: RecoveryTarget;
  /** Tiers that a recovery reads WAL from, and the names of the first and the last file it will need or may read. */
  walTiers: TierName[];
  firstWal: string;
  lastWal: string;
};
export type RestoreResult = RestorePlan & { files: number; seconds: number; restoreCommand?: string };

export type RestoreOptions = {
  config: ClientConfig;
  destination: string;
  backupId?: string;
  target: RecoveryTarget;
  targetTimeline?: number;
  /** New paths by name; others come back where they were. */
  tablespaces: ReadonlyMap<string, string>;
  tier: AskedTier;
  /** Makes the restore_command; absent: no recovery settings are written. */
  restoreCommand?: (tier: AskedTier) => string;
  /** Opens the snapshots of one tier as this cluster; the role closes them. */
  openSnapshots: (tier: TierName, wal: WalClient) => Promise<Outcome<ClusterSnapshots>>;
  telemetry: Pick<Telemetry, "start" | "clientInterceptors">;
  log: Log;
  signal: AbortSignal;
  onPlan?: (plan: RestorePlan) => void;
  onProgress?: (progress: RestoreProgress) => void;
};

const ATTEMPTS = { maxAttempts: 3, firstMs: 2_000, limitMs: 15_000 };

/**
 * Restores, or leaves the destination as it was. Rejects with KLIO-RESTORE-REFUSED (nothing suits, or something is missing: the
 * message names it), KLIO-RESTORE-TARGET, KLIO-CANCELLED, KLIO-TIER-MISSING or what the last tier failed with.
 */
export async function runRestore(options: RestoreOptions): Promise<RestoreResult> {
  const started = performance.now();
  const tiers = restoreTiers(options.config, options.tier, options.log);
  await using session = openRestoreSession(options);
  const { log, telemetry, signal, config } = options;
  const machine = restore.provide({
    actors: {
      chooseBackup: fromPromise<ChooseAnswer, TierAndBackup>(({ input }) => session.choose(input)),
      checkReachable: fromPromise<ReachAnswer, TierAndBackup>(({ input }) => session.checkReachable(input)),
      fetchTablespaces: fromPromise<FetchAnswer, TierAndBackup>(({ input, signal: stop }) =>
        session.fetchTablespaces(input, stop),
      ),
      fetchData: fromPromise<FetchAnswer, TierAndBackup>(({ input, signal: stop }) => session.fetchData(input, stop)),
      fetchControlFile: fromPromise<FetchAnswer, TierAndBackup>(({ input, signal: stop }) =>
        session.fetchControlFile(input, stop),
      ),
      finishRestore: fromPromise<Outcome<null>, TierAndBackup>(() => session.finish()),
      clearDestination: fromPromise<Outcome<null>, null>(() => session.clear()),
    },
  });
  const actor = telemetry.start(machine, {
    id: `restore/${config.clusterName}`,
    input: { cluster: config.clusterName, tiers, ...ATTEMPTS },
  });
  actor.on("tier.left", ({ tier, reason }) =>
    log.warn("restore.tier.left", `the restore leaves ${tier}: ${reason}`, { tier }),
  );
  actor.on("fetch.interrupted", ({ tier, reason }) =>
    log.warn("restore.interrupted", `the restore from ${tier} was interrupted: ${reason}`, { tier }),
  );
  const cancel = () => actor.send({ type: "shutdown.requested" });
  signal.addEventListener("abort", cancel, { once: true });
  if (signal.aborted) cancel();
  try {
    const output = await toPromise(actor);
    if (output.kind !== "restored") throw endError(output);
    const result = session.result(output, (performance.now() - started) / 1000);
    await session.report(result);
    return result;
  } finally {
    signal.removeEventListener("abort", cancel);
  }
}

function endError({ kind, code, reasons }: RestoreOutput): KlioError {
  const verb = { refused: "cannot restore", failed: "the restore failed", cancelled: "the restore was cancelled" };
  const [only = "", ...more] = [...new Set(reasons)];
  const text = more.length === 0 ? only : `\n  ${[only, ...more].join("\n  ")}`;
  return new KlioError(code, kind === "restored" || kind === "cancelled" ? verb.cancelled : `${verb[kind]}: ${text}`);
}

/** Tiers with both a base repository and a WAL service that a recovery may use, tier 1 first. */
function restoreTiers(config: ClientConfig, asked: AskedTier, log: Log): [TierName, ...TierName[]] {
  if (asked === "auto" && config.base?.tier2Url !== undefined && !config.tier2RecoveryEnabled)
    log.info("restore.tier2.disabled", "tier 2 is not read: tier2_recovery_enabled is not set");
  const hasBase = { tier1: config.base?.url !== undefined, tier2: config.base?.tier2Url !== undefined };
  const [first, ...rest] = walTiers(config, asked)
    .map(({ tier }) => tier)
    .filter((tier) => hasBase[tier]);
  if (first === undefined) throw new KlioError("KLIO-TIER-MISSING", "no repository is configured for recovery");
  return [first, ...rest];
}
