// The WAL service and the base backups of one tier, opened together for a command.
import { connectWal, type WalClient } from "../actors/grpc/wal-client.ts";
import type { ClientConfig, Environment } from "../config/config.ts";
import type { Log } from "../domain/log.ts";
import { failure, failureOf, type Outcome, ok } from "../domain/outcome.ts";
import type { ClusterSnapshots, TierName } from "../domain/snapshots.ts";
import type { Telemetry } from "../telemetry/telemetry.ts";
import { openTierSnapshots } from "./open-snapshots.ts";

export type TierAccess = AsyncDisposable & { tier: TierName; wal: WalClient; snapshots: ClusterSnapshots };
export type TierAccessOptions = {
  config: ClientConfig;
  env: Environment;
  telemetry: Pick<Telemetry, "clientInterceptors">;
  log: Log;
  signal: AbortSignal;
};

/** The tiers whose WAL service and base repository are both configured, tier 1 first. */
export function configuredTiers({ wal, base }: ClientConfig): TierName[] {
  const tiers: TierName[] = [];
  if (wal?.address !== undefined && base?.url !== undefined) tiers.push("tier1");
  if (wal?.tier2Address !== undefined && base?.tier2Url !== undefined) tiers.push("tier2");
  return tiers;
}

/** ok: the caller disposes it. Rejects for bugs only. */
export async function openTier(tier: TierName, options: TierAccessOptions): Promise<Outcome<TierAccess>> {
  const { config, telemetry, log } = options;
  const address = tier === "tier1" ? config.wal?.address : config.wal?.tier2Address;
  if (config.wal === undefined || address === undefined || !configuredTiers(config).includes(tier))
    return failure("KLIO-TIER-MISSING", `no repository of ${tier} is configured`);
  let wal: WalClient | undefined;
  try {
    const open = openTierSnapshots(options);
    wal = await connectWal({ address, tls: config.wal, clusterName: config.clusterName, telemetry, log });
    const opened = await open(tier, wal);
    if (opened.kind === "ok") return ok(accessOf(tier, wal, opened.value));
    wal.close();
    return opened;
  } catch (error) {
    wal?.close();
    return failureOf(error);
  }
}

function accessOf(tier: TierName, wal: WalClient, snapshots: ClusterSnapshots): TierAccess {
  return {
    tier,
    wal,
    snapshots,
    async [Symbol.asyncDispose]() {
      await snapshots[Symbol.asyncDispose]();
      wal.close();
    },
  };
}
