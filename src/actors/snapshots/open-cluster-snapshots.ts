// Opens the repository of one tier over the network as one cluster's user.
import { mkdtemp, rm } from "node:fs/promises";
import { hostname } from "node:os";
import { join } from "node:path";
import type { Log } from "../../domain/log.ts";
import { failureOf, type Outcome, ok } from "../../domain/outcome.ts";
import type { ClusterAccess, ClusterSnapshots, TierName } from "../../domain/snapshots.ts";
import { failureOfCommand } from "./classify.ts";
import { KopiaClusterSnapshots } from "./cluster-snapshots.ts";
import { type Kopia, runKopia } from "./kopia.ts";

export type ClusterSnapshotsOptions = {
  tier: TierName;
  /** Absolute path of the snapshot program. */
  kopia: string;
  /** `https://host:port` of the repository server. */
  url: string;
  access: ClusterAccess;
  /** For connection file and links; must be writable, and readable by nobody else needs it. */
  temporaryDirectory: string;
  environment?: Readonly<Record<string, string>>;
  signal?: AbortSignal;
  log: Log;
};

/**
 * Failures: KLIO-REPOSITORY-DOWN, KLIO-REPOSITORY-REFUSED (password), KLIO-SERVER-REFUSED (not the pinned certificate).
 * The caller disposes what it gets.
 */
export async function openClusterSnapshots(options: ClusterSnapshotsOptions): Promise<Outcome<ClusterSnapshots>> {
  const { tier, url, access, log } = options;
  const [user = "", cluster = ""] = access.user.split("@");
  const directory = await mkdtemp(join(options.temporaryDirectory, "klio-repository-"));
  const kopia: Kopia = {
    executable: options.kopia,
    home: directory,
    environment: options.environment ?? {},
    log: log.with({ tier }),
  };
  const configFile = join(directory, "client.config");
  const remove = () => rm(directory, { recursive: true, force: true });
  try {
    const result = await runKopia(kopia, {
      args: [
        "repository",
        "connect",
        "server",
        `--url=${url}`,
        `--server-cert-fingerprint=${access.fingerprint}`,
        `--override-username=${user}`,
        `--override-hostname=${cluster}`,
        "--no-persist-credentials",
        "--metadata-cache-size-mb=0",
        "--content-cache-size-mb=0",
      ],
      configFile,
      password: access.password,
      ...(options.signal !== undefined && { signal: options.signal }),
    });
    if (result.code !== 0) {
      await remove();
      return failureOfCommand(result, "server", `cannot open the repository at ${url}`);
    }
    return ok(
      new KopiaClusterSnapshots({
        tier,
        user,
        cluster,
        kopia,
        configFile,
        password: access.password,
        host: hostname(),
        temporaryDirectory: options.temporaryDirectory,
        remove,
      }),
    );
  } catch (error) {
    await remove();
    return failureOf(error);
  }
}
