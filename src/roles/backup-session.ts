// The IO of one base backup, behind its machine: what was opened, copied and stored so far.
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type BackupMode, enterBackupMode, type StoppedBackup } from "../actors/backup/backup-mode.ts";
import { checkDataDirectory } from "../actors/backup/data-directory.ts";
import { endWalOf } from "../domain/backup-label.ts";
import { type BackupMetadata, formatBackupMetadata } from "../domain/backup-metadata.ts";
import { failure, failureOf, type Outcome, ok } from "../domain/outcome.ts";
import type { RetentionRules } from "../domain/retention-policy.ts";
import { type SnapshotProgress, type SnapshotSource, TIER2_PIN } from "../domain/snapshots.ts";
import type { BackupRole, BackupVerification, MissingWal } from "../machines/base-backup-events.ts";
import { openTier, type TierAccess, type TierAccessOptions } from "./tier-access.ts";
import { readShare, verifyStored } from "./verify-stored.ts";

export type BackupSessionOptions = TierAccessOptions & {
  name: string;
  sendToTier2: boolean;
  onCopy: (progress: SnapshotProgress) => void;
};

/** A measure that is not taken is no harm. */
const REPORT_MS = 5_000;

const rulesText = (rules: RetentionRules): string => (Object.keys(rules).length === 0 ? "" : JSON.stringify(rules));

/** The caller disposes it. No method rejects but with a bug. */
export function openBackupSession(options: BackupSessionOptions) {
  const { name, config, sendToTier2, onCopy, env } = options;
  const pin = sendToTier2 ? { pin: TIER2_PIN } : {};
  let tier1: TierAccess | undefined;
  let mode: BackupMode | undefined;
  let stopped: StoppedBackup | undefined;
  let metadata: BackupMetadata | undefined;
  /** A copy that was told to stop may still be running. */
  let copying: Promise<unknown> = Promise.resolve();

  const inHand = <T>(value: T | undefined): T => {
    if (value === undefined) throw new Error("a step of a backup came before the one it needs");
    return value;
  };

  async function start(signal: AbortSignal): Promise<Outcome<{ role: BackupRole }>> {
    const { source } = config;
    if (source === undefined) return failure("KLIO-CONFIG", "the section source is missing");
    const opened = await openTier("tier1", { ...options, signal });
    if (opened.kind !== "ok") return opened;
    tier1 = opened.value;
    const stored = await tier1.snapshots.backups();
    if (stored.kind !== "ok") return stored;
    if (stored.value.some((backup) => backup.metadata.name === name))
      return failure("KLIO-USAGE", `there is a backup ${name} already`);
    const entered = await enter(source.standardDsn, signal);
    if (entered.kind !== "ok") return entered;
    mode = entered.value;
    const { dataDirectory, systemId, role } = mode.source;
    const here = await checkDataDirectory(dataDirectory, systemId);
    return here.kind === "ok" ? ok({ role }) : here;
  }

  async function enter(dsn: string, signal: AbortSignal): Promise<Outcome<BackupMode>> {
    try {
      return await enterBackupMode(dsn, { name, signal });
    } catch (error) {
      return failureOf(error);
    }
  }

  /** Copies; fails as soon as PostgreSQL is gone, for then there is no backup mode any more. */
  async function copy(sources: readonly SnapshotSource[], signal: AbortSignal): Promise<Outcome<null>> {
    if (sources.length === 0) return ok(null);
    const { gone } = inHand(mode);
    const lost = new AbortController();
    let reason: Outcome<null> | undefined;
    void gone.then((error) => {
      reason = failureOf(error);
      lost.abort();
    });
    const running = inHand(tier1).snapshots.create(name, sources, {
      ...pin,
      signal: AbortSignal.any([signal, lost.signal]),
      onProgress: onCopy,
    });
    copying = running;
    const copied = await running;
    if (reason !== undefined && !signal.aborted) return reason;
    return copied.kind === "ok" ? ok(null) : copied;
  }

  function build({ label, labelText, tablespaceMap, endLsn, stoppedAt }: StoppedBackup): BackupMetadata {
    const { source } = inHand(mode);
    return {
      name,
      clusterName: config.clusterName,
      systemId: source.systemId,
      startLsn: label.startLsn.toString(),
      endLsn: endLsn.toString(),
      startWal: label.startWal,
      endWal: endWalOf(label.timeline, endLsn, source.segmentBytes),
      tli: label.timeline,
      segmentSize: source.segmentBytes,
      backupLabel: labelText,
      tablespaceMap,
      pgData: source.dataDirectory,
      pgVersion: source.pgVersion,
      tablespaces: source.tablespaces,
      annotations: {},
      startedAt: source.startedAt,
      stoppedAt,
    };
  }

  return {
    start,
    copyTablespaces: (signal: AbortSignal) =>
      copy(
        inHand(mode).source.tablespaces.map(({ oid, path }) => ({ content: "tablespace", tablespaceOid: oid, path })),
        signal,
      ),
    copyData: (signal: AbortSignal) => copy([{ content: "pgdata", path: inHand(mode).source.dataDirectory }], signal),
    copyControlFile: (signal: AbortSignal) =>
      copy([{ content: "controldata", path: join(inHand(mode).source.dataDirectory, "global", "pg_control") }], signal),

    async stop(): Promise<Outcome<null>> {
      const left = await inHand(mode).stop();
      if (left.kind !== "ok") return left;
      stopped = left.value;
      await inHand(mode).close();
      return ok(null);
    },

    async storeManifest(signal: AbortSignal): Promise<Outcome<null>> {
      const built = build(inHand(stopped));
      const directory = await mkdtemp(join(env.TMPDIR || tmpdir(), "klio-metadata-"));
      try {
        await writeFile(join(directory, "metadata.json"), formatBackupMetadata(built, 2), { mode: 0o600 });
        const stored = await inHand(tier1).snapshots.create(name, [{ content: "metadata", path: directory }], {
          ...pin,
          metadata: built,
          signal,
        });
        if (stored.kind !== "ok") return stored;
        metadata = built;
        return ok(null);
      } finally {
        await rm(directory, { recursive: true, force: true });
      }
    },

    async close(signal: AbortSignal): Promise<Outcome<MissingWal>> {
      const { tli, startWal, endWal, segmentSize } = inHand(metadata);
      const answer = await inHand(tier1).wal.closeBackup(
        {
          backupName: name,
          timeline: tli,
          startWal,
          endWal,
          segmentBytes: segmentSize,
          sendToTier2,
          tier2RetentionPolicy: rulesText(config.tier2Retention),
        },
        { signal },
      );
      if (answer.kind !== "ok") return answer;
      const [first = ""] = answer.value.missing;
      return ok({ missing: answer.value.missing.length, first });
    },

    async verify(signal: AbortSignal): Promise<Outcome<BackupVerification>> {
      const { snapshots, wal } = inHand(tier1);
      const listed = await snapshots.backups();
      if (listed.kind !== "ok") return listed;
      const stored = listed.value.find((one) => one.metadata.name === name);
      if (stored === undefined) return ok({ corrupt: [`backup ${name} is not listed as a whole one`], coverage: 0 });
      const percent = config.verifyPercent ?? readShare(stored);
      const verified = await verifyStored(snapshots, stored, { percent, signal });
      if (verified.kind === "ok" && verified.value.corrupt.length === 0) {
        const { bytes, seconds } = verified.value;
        const read = { tier: "tier1", purpose: "verification", backup: name, bytes, seconds } as const;
        const told = await wal.reportRead(read, { signal, timeoutMs: REPORT_MS });
        if (told.kind !== "ok")
          options.log.debug("backup.read", `the server does not keep the measure: ${told.reason}`);
      }
      return verified;
    },

    async maintain(signal: AbortSignal): Promise<Outcome<null>> {
      const done = await inHand(tier1).wal.maintainBackups(rulesText(config.tier1Retention), { signal });
      return done.kind === "ok" ? ok(null) : done;
    },

    /** Not bound to a signal: what a cancelled backup left must go, too. */
    async abandon(): Promise<Outcome<null>> {
      await mode?.close();
      await copying;
      if (tier1 === undefined || mode === undefined) return ok(null); // nothing was stored
      const abandoned = await tier1.snapshots.abandon(name);
      return abandoned.kind === "ok" ? ok(null) : abandoned;
    },

    metadata: () => inHand(metadata),

    async [Symbol.asyncDispose]() {
      await mode?.close();
      await tier1?.[Symbol.asyncDispose]();
    },
  };
}
