// Tier 2 of a server: its key, archive and base repository. Opened at start; when object storage is away it is tried again in the
// background, because WAL reception and local backups never wait for it (P4).
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { readPassPhrase } from "../actors/keys/read-pass-phrase.ts";
import { type ObjectStore, openObjectStore } from "../actors/s3/object-store.ts";
import { createTier2Key, verifyTier2Key } from "../actors/s3/tier2-key.ts";
import { openTier2WalReader, type Tier2Reader } from "../actors/s3/tier2-wal-reader.ts";
import {
  openSnapshotRepository,
  probeSnapshotRepository,
  type RepositoryOptions,
} from "../actors/snapshots/open-repository.ts";
import type { KopiaRepository } from "../actors/snapshots/repository.ts";
import type { S3Config, Tier2Config } from "../config/config.ts";
import type { Log } from "../domain/log.ts";
import { walRoot } from "../domain/object-key.ts";
import { unwrap } from "../domain/outcome.ts";
import { KlioError } from "../errors.ts";
import type { MasterKey } from "../wire/wal-file-header.ts";

export type Tier2 = { objects: ObjectStore; reader: Tier2Reader; masterKey: MasterKey; repository: KopiaRepository };

export type Tier2Options = {
  config: Tier2Config;
  kopia: string;
  /** A server without tier 1 only reads. */
  readOnly: boolean;
  environment: Readonly<Record<string, string>>;
  log: Log;
};

const baseStorage = (s3: S3Config) => ({
  kind: "s3" as const,
  bucket: s3.bucketName,
  region: s3.region,
  prefix: [s3.prefix, "base"].filter((part) => part !== "").join("/"),
  ...(s3.endpoint !== undefined && { endpoint: s3.endpoint }),
  ...(s3.accessKeyId !== undefined && { accessKeyId: s3.accessKeyId }),
  ...(s3.secretAccessKey !== undefined && { secretAccessKey: s3.secretAccessKey }),
  ...(s3.sessionToken !== undefined && { sessionToken: s3.sessionToken }),
  ...(s3.customCaBundleFile !== undefined && { customCaBundleFile: s3.customCaBundleFile }),
});

/**
 * One look at tier 2 before anything is made on either tier. Rejects with the code of what a person must mend: key file, key,
 * credentials, bucket. Object storage that does not answer is no reason.
 */
export async function checkTier2({ s3, ...keys }: Tier2Config): Promise<void> {
  const passPhrase = await readPassPhrase(keys);
  const objects = openObjectStore(s3);
  try {
    await verifyTier2Key({ objects, prefix: s3.prefix, passPhrase });
  } catch (error) {
    if (!(error instanceof KlioError) || error.kind !== "retryable") throw error;
  } finally {
    objects.close();
  }
}

/**
 * Verifies what exists, then creates what is missing; with a wrong key nothing is touched. Rejects with KLIO-S3-DOWN when
 * object storage does not answer, with another code when a person must act.
 */
export async function openTier2({ config, kopia, readOnly, environment, log }: Tier2Options): Promise<Tier2> {
  const passPhrase = await readPassPhrase(config);
  const { s3 } = config;
  const objects = openObjectStore(s3);
  try {
    const place = { objects, prefix: s3.prefix, passPhrase };
    const stateDirectory = join(config.cache, "state");
    await mkdir(stateDirectory, { recursive: true, mode: 0o700 });
    const repositoryOptions: RepositoryOptions = {
      tier: "tier2",
      kopia,
      storage: baseStorage(s3),
      passPhrase,
      cacheDirectory: join(config.cache, "kopia-cache"),
      stateDirectory,
      readOnly,
      environment,
      log,
    };
    const existing = await verifyTier2Key(place);
    const base = unwrap(await probeSnapshotRepository(repositoryOptions));
    await requireWhole({
      tier: "tier 2",
      place: `bucket ${s3.bucketName}, prefix "${s3.prefix}"`,
      hasKey: existing !== undefined,
      hasBase: base === "present",
      hasWal: async () => unwrap(await objects.folders(walRoot(s3.prefix))).length > 0,
      readOnly,
    });
    const masterKey = existing ?? (await createTier2Key(place));
    const repository = unwrap(await openSnapshotRepository(repositoryOptions, base));
    return { objects, reader: openTier2WalReader({ objects, prefix: s3.prefix, masterKey }), masterKey, repository };
  } catch (error) {
    objects.close();
    throw error;
  }
}

/**
 * One half of a tier without the other is no new tier: a volume is not mounted, or the wrong one is. The key of the WAL is
 * made first, so a key alone is a start that was cut short. Rejects with KLIO-REPOSITORY.
 */
export async function requireWhole(found: {
  tier: string;
  place: string;
  hasKey: boolean;
  hasBase: boolean;
  hasWal: () => Promise<boolean>;
  readOnly: boolean;
}): Promise<void> {
  const { tier, place, hasKey, hasBase, readOnly } = found;
  if (hasKey && hasBase) return;
  if (hasBase) throw new KlioError("KLIO-REPOSITORY", `${tier} has base backups but no WAL (${place})`);
  if (hasKey && (await found.hasWal()))
    throw new KlioError("KLIO-REPOSITORY", `${tier} has WAL but no base backups (${place})`);
  if (readOnly) throw new KlioError("KLIO-REPOSITORY", `${tier} is read-only and nothing is stored in ${place}`);
}
