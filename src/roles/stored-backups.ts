// What is stored of a cluster's backups, as its own user sees it: list, one's metadata, verification, deletion.
import type { BackupMetadata } from "../domain/backup-metadata.ts";
import { failure, type Outcome, unwrap } from "../domain/outcome.ts";
import type { StoredBackup, TierName } from "../domain/snapshots.ts";
import { segmentRange } from "../domain/wal-segment.ts";
import { KlioError } from "../errors.ts";
import { configuredTiers, openTier, type TierAccess, type TierAccessOptions } from "./tier-access.ts";
import { readShare, verifyStored } from "./verify-stored.ts";

type TierOfBackup = { tier: TierName; stored: StoredBackup };

async function backupsOn(tier: TierName, options: TierAccessOptions): Promise<Outcome<StoredBackup[]>> {
  const opened = await openTier(tier, options);
  if (opened.kind !== "ok") return opened;
  await using access = opened.value;
  return await access.snapshots.backups();
}

/** Metadata as read: they say where the backup is stored. */
function annotated(metadata: BackupMetadata, tiers: readonly TierName[]): BackupMetadata {
  const where = Object.fromEntries(tiers.map((tier) => [`klio.io/${tier}`, "present"]));
  return { ...metadata, annotations: { ...metadata.annotations, ...where } };
}

/** `silent`: what kept a tier from being listed; only whole when undefined. */
export type BackupList = { backups: BackupMetadata[]; silent: KlioError | undefined };

/** All backups of both tiers, oldest first, merged by name. Rejects when no tier answers. */
export async function listBackups(options: TierAccessOptions): Promise<BackupList> {
  const tiers = configuredTiers(options.config);
  if (tiers.length === 0)
    throw new KlioError("KLIO-TIER-MISSING", "no base repository with its WAL service is configured");
  const found: TierOfBackup[] = [];
  const silent: KlioError[] = [];
  for (const tier of tiers) {
    const listed = await backupsOn(tier, options);
    if (listed.kind === "ok") found.push(...listed.value.map((stored) => ({ tier, stored })));
    else silent.push(new KlioError(listed.code, `backups of ${tier} are not listed: ${listed.reason}`));
  }
  const [only] = silent;
  if (only !== undefined && silent.length === tiers.length) throw only;
  const byName = Map.groupBy(found, ({ stored }) => stored.metadata.name);
  const backups = [...byName.values()]
    .flatMap((same) =>
      same[0] === undefined
        ? []
        : [
            annotated(
              same[0].stored.metadata,
              same.map(({ tier }) => tier),
            ),
          ],
    )
    .sort((a, b) => a.startedAt - b.startedAt);
  return { backups, silent: only };
}

/** Tier 1 first; tier 2 when tier 1 has none of this name. Rejects with KLIO-BACKUP-UNKNOWN, or what tier 1 failed with. */
export async function readBackup(name: string, options: TierAccessOptions): Promise<BackupMetadata> {
  for (const tier of configuredTiers(options.config)) {
    const stored = unwrap(await backupsOn(tier, options)).find(({ metadata }) => metadata.name === name);
    if (stored !== undefined) return annotated(stored.metadata, [tier]);
  }
  throw new KlioError("KLIO-BACKUP-UNKNOWN", `backup ${name} is not stored`, { hint: "see 'klio backup list'" });
}

export type VerifyRequest = {
  /** Empty: all. */
  names: readonly string[];
  tiers: readonly TierName[];
  /** Absent: by size. */
  percent?: number;
  onVerified: (verdict: VerifiedBackup) => void;
};
/** `damage`: one line each, empty when sound. */
export type VerifiedBackup = { backup: string; tier: TierName; coverage: number; damage: string[] };

/**
 * Reads backups back and looks for the WAL they need. Rejects with KLIO-BACKUP-CORRUPT after all were read when one is damaged,
 * with KLIO-BACKUP-UNKNOWN before the first when a name is not stored, or with what kept it from reading.
 */
export async function verifyBackups(request: VerifyRequest, options: TierAccessOptions): Promise<void> {
  const tiers = configuredTiers(options.config).filter((tier) => request.tiers.includes(tier));
  if (tiers.length === 0) throw new KlioError("KLIO-TIER-MISSING", `none of ${request.tiers.join(", ")} is configured`);
  const seen = new Set<string>();
  const damaged: string[] = [];
  for (const tier of tiers) {
    await using access = unwrap(await openTier(tier, options));
    const stored = unwrap(await access.snapshots.backups());
    const chosen = stored.filter(({ metadata }) => request.names.length === 0 || request.names.includes(metadata.name));
    for (const { metadata } of chosen) seen.add(metadata.name);
    for (const backup of chosen) {
      const verdict = await verifyOne(access, backup, request.percent, options.signal);
      if (verdict.damage.length > 0) damaged.push(`${verdict.backup} on ${tier}`);
      request.onVerified(verdict);
    }
  }
  const unknown = request.names.filter((name) => !seen.has(name));
  if (damaged.length > 0) throw new KlioError("KLIO-BACKUP-CORRUPT", `damaged: ${damaged.join(", ")}`);
  if (unknown.length > 0)
    throw new KlioError("KLIO-BACKUP-UNKNOWN", `not stored on ${tiers.join(" or ")}: ${unknown.join(", ")}`, {
      hint: "see 'klio backup list'",
    });
}

async function verifyOne(
  access: TierAccess,
  stored: StoredBackup,
  percent = readShare(stored),
  signal: AbortSignal,
): Promise<VerifiedBackup> {
  const { metadata } = stored;
  const read = unwrap(await verifyStored(access.snapshots, stored, { percent, signal }));
  const wal = new Set(
    unwrap(await access.wal.list({ signal })).flatMap(({ name, complete }) => (complete ? [name] : [])),
  );
  const missing = segmentRange(metadata.startWal, metadata.endWal, metadata.segmentSize).filter(
    (name) => !wal.has(name),
  );
  return {
    backup: metadata.name,
    tier: access.tier,
    coverage: read.coverage,
    damage: [...read.corrupt, ...missing.map((name) => `WAL file ${name} is missing`)],
  };
}

/** Takes a backup off tier 1: it is not listed any more, and the server removes it with its next maintenance. */
export async function deleteBackup(name: string, options: TierAccessOptions): Promise<void> {
  await using access = unwrap(await openTier("tier1", options));
  const stored = unwrap(await access.snapshots.backups());
  if (!stored.some(({ metadata }) => metadata.name === name))
    unwrap(failure("KLIO-BACKUP-UNKNOWN", `backup ${name} is not stored on tier 1`));
  unwrap(await access.snapshots.abandon(name));
}
