// A server's way to tier 2 on real servers, for tests: store, queue and S3, with a base repository that has no backups
// unless the test gives it some.
import { randomBytes } from "node:crypto";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { createTier2Key } from "../../src/actors/s3/tier2-key.ts";
import { openTier2WalReader, type Tier2Reader } from "../../src/actors/s3/tier2-wal-reader.ts";
import { WalStore } from "../../src/actors/spool/wal-store.ts";
import { findTool } from "../../src/config/tools.ts";
import { type Outcome, ok } from "../../src/domain/outcome.ts";
import type { SnapshotInfo, SnapshotRepository, StoredBackup, TierName } from "../../src/domain/snapshots.ts";
import type { OffloadOptions, OffloadRole } from "../../src/roles/offload.ts";
import { startOffload } from "../../src/roles/offload.ts";
import type { Tier2Parts } from "../../src/roles/offload-parts.ts";
import { noTelemetry } from "../../src/telemetry/telemetry.ts";
import { masterKeyOf } from "../../src/wire/wal-file-header.ts";
import { type TestS3, testS3 } from "./s3.ts";
import { type TestLog, testLog } from "./test-log.ts";
import { walSegment } from "./wal-bytes.ts";

export const SEGMENT_BYTES = 1 << 20;
export const wal = (n: number, timeline = 1) =>
  `${String(timeline).padStart(8, "0")}00000000${n.toString(16).toUpperCase().padStart(8, "0")}`;

/** A repository over a list in memory. */
export class ListedRepository implements SnapshotRepository {
  readonly readOnly = false;
  readonly tier: TierName;
  stored: StoredBackup[] = [];
  strays: SnapshotInfo[] = [];
  corrupt: string[] = [];
  constructor(tier: TierName) {
    this.tier = tier;
  }
  async list() {
    return ok(this.stored.flatMap(({ snapshots }) => snapshots));
  }
  async backups(cluster?: string) {
    return ok(this.stored.filter(({ metadata }) => cluster === undefined || metadata.clusterName === cluster));
  }
  async orphans() {
    return ok(this.strays);
  }
  async verify(_snapshots: readonly SnapshotInfo[]) {
    return ok({ corrupt: this.corrupt });
  }
  async copyBackupTo(target: SnapshotRepository, backup: StoredBackup): Promise<Outcome<{ bytes: number }>> {
    const other = target as ListedRepository;
    const [own] = backup.snapshots;
    if (!other.stored.some(({ snapshots }) => snapshots[0]?.path === own?.path))
      other.stored.push({ ...backup, snapshots: backup.snapshots.map((one) => ({ ...one, pins: [] })) });
    return ok({ bytes: 1 });
  }
  async delete(snapshots: readonly SnapshotInfo[]): Promise<Outcome<void>> {
    const ids = new Set(snapshots.map(({ id }) => id));
    this.stored = this.stored.filter((backup) => !backup.snapshots.some(({ id }) => ids.has(id)));
    this.strays = this.strays.filter(({ id }) => !ids.has(id));
    return ok(undefined);
  }
  async unpin(snapshots: readonly SnapshotInfo[], pin: string): Promise<Outcome<void>> {
    const ids = new Set(snapshots.map(({ id }) => id));
    for (const backup of this.stored)
      for (const one of backup.snapshots) if (ids.has(one.id)) one.pins = one.pins.filter((each) => each !== pin);
    return ok(undefined);
  }
  async pin(snapshots: readonly SnapshotInfo[], pin: string): Promise<Outcome<void>> {
    const ids = new Set(snapshots.map(({ id }) => id));
    for (const backup of this.stored) for (const one of backup.snapshots) if (ids.has(one.id)) one.pins.push(pin);
    return ok(undefined);
  }
  async refreshServer(): Promise<Outcome<void>> {
    return ok(undefined);
  }
  async clusterAccess(user: string, cluster: string) {
    return ok({ user: `${user}@${cluster}`, password: "x", fingerprint: "x" });
  }
  async [Symbol.asyncDispose]() {
    this.stored = [];
  }
}

export type OffloadBench = AsyncDisposable & {
  directory: string;
  store: WalStore;
  s3: TestS3;
  reader: Tier2Reader;
  parts: Tier2Parts;
  tier1: ListedRepository;
  tier2: ListedRepository;
  log: TestLog;
  role(): OffloadRole;
  /** Starts the role (again). */
  start(changed?: Partial<OffloadOptions>): Promise<OffloadRole>;
  /** Writes a complete segment into tier 1; tells the role when `tell`. Returns the raw bytes. */
  segment(cluster: string, name: string, tell?: boolean): Promise<Buffer>;
  names2(cluster: string): Promise<string[]>;
};

export async function offloadBench(directory: string): Promise<OffloadBench> {
  const log = testLog();
  const walDirectory = join(directory, "wal");
  await mkdir(join(directory, "s3"), { recursive: true });
  const s3 = await testS3(join(directory, "s3"));
  const store = await WalStore.open({
    directory: walDirectory,
    masterKey: masterKeyOf(randomBytes(32)),
    log,
    report: () => undefined,
  });
  const masterKey = await createTier2Key({ objects: s3.objects, prefix: "p", passPhrase: "secret" });
  const reader = openTier2WalReader({ objects: s3.objects, prefix: "p", masterKey });
  const tier1 = new ListedRepository("tier1");
  const tier2 = new ListedRepository("tier2");
  const parts: Tier2Parts = { objects: s3.objects, reader, masterKey, repository: tier2 };
  const telemetry = noTelemetry();
  let role: OffloadRole | undefined;
  const bench: OffloadBench = {
    directory,
    store,
    s3,
    reader,
    parts,
    tier1,
    tier2,
    log,
    role: () => role!,
    async start(changed = {}) {
      role = await startOffload({
        store,
        walDirectory,
        repository: tier1,
        tier2: { prefix: "p", whenOpen: Promise.resolve(parts) },
        queue: {
          kind: "embedded",
          executable: findTool("nats-server", process.env),
          directory: join(directory, "queue"),
        },
        telemetry,
        log,
        signal: new AbortController().signal,
        ...changed,
      });
      return role;
    },
    async segment(cluster, name, tell = true) {
      const isPartial = name.endsWith(".partial");
      const stem = name.slice(0, 24);
      const raw = walSegment(stem, SEGMENT_BYTES);
      const writer = await store.openWriter({
        cluster,
        name: stem,
        segmentBytes: SEGMENT_BYTES,
        fromOffset: 0,
      });
      const bytes = isPartial ? raw.subarray(0, 200_000) : raw;
      writer.append(bytes, 0);
      await writer.durable();
      if (!isPartial) await writer.complete();
      await writer.close();
      if (tell) role?.onStored({ cluster, name, sendToTier2: true });
      return bytes;
    },
    names2: async (cluster) => (await reader.list(cluster)).map(({ name }) => name),
    async [Symbol.asyncDispose]() {
      await role?.stop();
      await store.close();
      await s3[Symbol.asyncDispose]();
    },
  };
  return bench;
}
