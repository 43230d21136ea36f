import { existsSync, readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { openSnapshotRepository, probeSnapshotRepository } from "../../../src/actors/snapshots/open-repository.ts";
import { findTool } from "../../../src/config/tools.ts";
import { type LocalS3, startS3 } from "../../../src/demo/local-s3.ts";
import { unwrap } from "../../../src/domain/outcome.ts";
import { sampleMetadata, sampleTree, storeSample } from "../../support/sample-backup.ts";
import { repositoryOptions, startSnapshotServer } from "../../support/snapshot-server.ts";
import { temporaryDirectory } from "../../support/temporary-directory.ts";

const s3Server = (directory: string) =>
  startS3({ directory: join(directory, "s3"), bucket: "klio-test", executable: findTool("versitygw", process.env) });

const tier2 = (directory: string, s3: LocalS3, more: Record<string, string> = {}) =>
  repositoryOptions(join(directory, "tier2"), {
    tier: "tier2",
    passPhrase: "another one for tier 2",
    storage: {
      kind: "s3",
      bucket: s3.bucket,
      region: s3.region,
      endpoint: s3.endpoint,
      prefix: "klio/base",
      accessKeyId: s3.accessKeyId,
      secretAccessKey: s3.secretAccessKey,
      ...more,
    },
  });

test("KLIO-S3-BUCKET, KLIO-S3-CREDENTIALS, KLIO-S3-DOWN and KLIO-KEY-MISMATCH are told apart; nothing is made", async () => {
  await using dir = await temporaryDirectory();
  await using s3 = await s3Server(dir.path);
  const open = (more: Record<string, string>) => openSnapshotRepository(tier2(dir.path, s3, more));
  expect(await open({ bucket: "klio-other" })).toMatchObject({ kind: "fatal", code: "KLIO-S3-BUCKET" });
  expect(await open({ secretAccessKey: "wrong" })).toMatchObject({ kind: "fatal", code: "KLIO-S3-CREDENTIALS" });
  expect(await open({ accessKeyId: "NOBODY" })).toMatchObject({ kind: "fatal", code: "KLIO-S3-CREDENTIALS" });
  expect(await open({ endpoint: "http://127.0.0.1:1" })).toMatchObject({ kind: "retryable", code: "KLIO-S3-DOWN" });
  const options = tier2(dir.path, s3);
  expect(await openSnapshotRepository({ ...options, readOnly: true })).toMatchObject({ code: "KLIO-REPOSITORY" });
  expect(readdirSync(s3.bucketDirectory)).toEqual([]);
  expect(unwrap(await probeSnapshotRepository(options))).toBe("absent");
  await unwrap(await openSnapshotRepository(options))[Symbol.asyncDispose]();
  const wrong = await openSnapshotRepository({ ...options, passPhrase: "not this one" });
  expect(wrong).toMatchObject({ kind: "fatal", code: "KLIO-KEY-MISMATCH" });
  for (const name of readdirSync(options.stateDirectory, { recursive: true, encoding: "utf8" }))
    expect(readFileSync(join(options.stateDirectory, name), "utf8"), name).not.toContain(s3.secretAccessKey);
});

test("one backup is copied to tier 2, and restored from there after tier 1 is gone; its clients only read", async () => {
  await using dir = await temporaryDirectory();
  await using s3 = await s3Server(dir.path);
  await using first = await startSnapshotServer(join(dir.path, "tier1"));
  await using second = await startSnapshotServer(join(dir.path, "tier2"), {
    ...tier2(dir.path, s3),
    certificates: first.certificates,
  });
  await using alpha = await first.open("alpha");
  const data = sampleTree(dir.path);
  const kept = await storeSample(alpha, data, sampleMetadata("b1"), "klio.io/tier2");
  const other = await storeSample(alpha, data, sampleMetadata("b2"));
  for (let i = 0; i < 2; i++) {
    const { bytes } = unwrap(await first.repository.copyBackupTo(second.repository, kept));
    expect(bytes).toBe(kept.snapshots.reduce((sum, one) => sum + one.bytes, 0));
  }
  const [copied, ...more] = unwrap(await second.repository.backups());
  expect(more).toEqual([]);
  expect(copied?.metadata).toEqual(kept.metadata);
  const facts = (one: typeof kept) =>
    one.snapshots.map(({ path, bytes, startTimeMs }) => ({ path, bytes, startTimeMs }));
  expect(facts(copied!)).toEqual(facts(kept));
  expect(unwrap(await second.repository.verify(copied!.snapshots, { percent: 100 }))).toEqual({ corrupt: [] });
  expect(unwrap(await first.repository.backups()).map(({ metadata }) => metadata.name)).toEqual(["b1", "b2"]);
  expect(
    existsSync(join(dir.path, "tier1/state")) &&
      readdirSync(join(dir.path, "tier1/state")).filter((n) => n.startsWith("copy-")),
  ).toEqual([]);
  await first.stop();
  await using fromTier2 = await second.open("alpha");
  const to = join(dir.path, "restored");
  unwrap(await fromTier2.restore(copied!.snapshots[0]!, to));
  expect(readFileSync(join(to, "base/1/1000"))).toEqual(readFileSync(join(data, "base/1/1000")));
  expect((await fromTier2.create("b3", [{ content: "pgdata", path: data }])).kind).not.toBe("ok");
  expect(unwrap(await fromTier2.backups())).toHaveLength(1);
  expect(other.metadata.name).toBe("b2");
});

test("a read-only server of tier 2 lets its clients in and changes nothing", async () => {
  await using dir = await temporaryDirectory();
  await using s3 = await s3Server(dir.path);
  await using first = await startSnapshotServer(join(dir.path, "tier1"));
  await using alpha = await first.open("alpha");
  const kept = await storeSample(alpha, sampleTree(dir.path), sampleMetadata("b1"));
  {
    await using writable = unwrap(await openSnapshotRepository(tier2(dir.path, s3)));
    unwrap(await first.repository.copyBackupTo(writable, kept));
  }
  await using second = await startSnapshotServer(join(dir.path, "tier2"), {
    ...tier2(dir.path, s3),
    readOnly: true,
    certificates: first.certificates,
  });
  const stored = () =>
    readdirSync(s3.bucketDirectory, { recursive: true, encoding: "utf8" }).map((name) => {
      const { size, mtimeMs } = statSync(join(s3.bucketDirectory, name));
      return `${name} ${size} ${mtimeMs}`;
    });
  const before = stored();
  await using reader = await second.open("alpha");
  const [copied] = unwrap(await reader.backups());
  expect(copied?.metadata.name).toBe("b1");
  for (const snapshot of copied!.snapshots) unwrap(await reader.restore(snapshot, join(dir.path, "to", snapshot.id)));
  expect(unwrap(await reader.verify(copied!.snapshots, { percent: 100 }))).toEqual({ corrupt: [] });
  expect(await second.repository.delete(copied!.snapshots)).toMatchObject({ code: "KLIO-READ-ONLY" });
  expect(await first.repository.copyBackupTo(second.repository, kept)).toMatchObject({ code: "KLIO-READ-ONLY" });
  expect(unwrap(await reader.backups())).toHaveLength(1);
  unwrap(await second.repository.refreshServer());
  expect(stored()).toEqual(before);
});

test("KLIO-REPOSITORY-DOWN: a server whose storage is away is not waited for until it is back", async () => {
  await using dir = await temporaryDirectory();
  await using s3 = await s3Server(dir.path);
  await using server = await startSnapshotServer(join(dir.path, "tier2"), {
    ...tier2(dir.path, s3),
    refreshMs: 2_000,
  });
  unwrap(await server.repository.refreshServer());
  await s3.stop();
  expect(await server.repository.refreshServer()).toMatchObject({
    kind: "retryable",
    code: "KLIO-REPOSITORY-DOWN",
    reason: "the tier2 server did not read its repository anew within 2 s: is its storage away?",
  });
});
