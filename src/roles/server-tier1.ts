// Tier 1 of a server: its key, WAL store and base repository on the local volume.
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { readPassPhrase } from "../actors/keys/read-pass-phrase.ts";
import { createRepositoryKey, verifyRepositoryKey } from "../actors/keys/repository-key.ts";
import {
  openSnapshotRepository,
  probeSnapshotRepository,
  type RepositoryOptions,
} from "../actors/snapshots/open-repository.ts";
import type { KopiaRepository } from "../actors/snapshots/repository.ts";
import { listClusters } from "../actors/spool/wal-directory.ts";
import { WalStore } from "../actors/spool/wal-store.ts";
import type { Tier1Config } from "../config/config.ts";
import type { Report } from "../domain/facts.ts";
import type { Log } from "../domain/log.ts";
import { unwrap } from "../domain/outcome.ts";
import { requireWhole } from "./server-tier2.ts";

/** `keyId`: of the master key; tells this tier 1 from every other, and nothing about the key. */
export type Tier1 = { store: WalStore; repository: KopiaRepository; keyId: string };

/**
 * Verifies what exists, then creates what is missing; with a wrong key, or half a tier, nothing is touched. Rejects with the
 * KLIO-… code of what is wrong. The caller closes store and repository.
 */
export async function openTier1(options: {
  config: Tier1Config;
  kopia: string;
  report: Report;
  log: Log;
}): Promise<Tier1> {
  const { config, kopia, report, log } = options;
  const passPhrase = await readPassPhrase(config);
  const { path: directory } = config.wal;
  const repositoryOptions: RepositoryOptions = {
    tier: "tier1",
    kopia,
    storage: { kind: "directory", path: config.base.repository },
    passPhrase,
    cacheDirectory: join(config.base.cache, "kopia-cache"),
    stateDirectory: join(config.base.cache, "state"),
    readOnly: false,
    log,
  };
  const existing = await verifyRepositoryKey(directory, passPhrase);
  const base = unwrap(await probeSnapshotRepository(repositoryOptions));
  await requireWhole({
    tier: "tier 1",
    place: `${directory} and ${config.base.repository}`,
    hasKey: existing !== undefined,
    hasBase: base === "present",
    hasWal: async () => (await listClusters(directory)).length > 0,
    readOnly: false,
  });
  await mkdir(directory, { recursive: true, mode: 0o750 });
  const masterKey = existing ?? (await createRepositoryKey(directory, passPhrase));
  const store = await WalStore.open({ directory, masterKey, log, report });
  try {
    return { store, repository: unwrap(await openSnapshotRepository(repositoryOptions, base)), keyId: masterKey.id };
  } catch (error) {
    await store.close();
    throw error;
  }
}
