// Opens the base backups of one tier for a command: the WAL service of the same tier knows the client by its certificate and
// gives it the key.
import { tmpdir } from "node:os";
import type { WalClient } from "../actors/grpc/wal-client.ts";
import { openClusterSnapshots } from "../actors/snapshots/open-cluster-snapshots.ts";
import type { ClientConfig, Environment } from "../config/config.ts";
import { findTool } from "../config/tools.ts";
import type { Log } from "../domain/log.ts";
import { failure, type Outcome } from "../domain/outcome.ts";
import type { ClusterSnapshots, TierName } from "../domain/snapshots.ts";

export type TierSnapshotsOptions = { config: ClientConfig; env: Environment; log: Log; signal: AbortSignal };

/** Opens the snapshots of a tier; the caller disposes them. Throws KLIO-TOOL-MISSING at once. */
export function openTierSnapshots({ config, env, log, signal }: TierSnapshotsOptions) {
  const kopia = findTool("kopia", env);
  return async (tier: TierName, wal: Pick<WalClient, "openRepository">): Promise<Outcome<ClusterSnapshots>> => {
    const url = tier === "tier1" ? config.base?.url : config.base?.tier2Url;
    if (url === undefined) return failure("KLIO-TIER-MISSING", `no base repository of ${tier} is configured`);
    const access = await wal.openRepository({ signal });
    if (access.kind !== "ok") return access;
    const { user, password, fingerprint } = access.value;
    return openClusterSnapshots({
      tier,
      kopia,
      url,
      access: { user, password, fingerprint },
      temporaryDirectory: env.TMPDIR || tmpdir(),
      signal,
      log,
    });
  };
}
