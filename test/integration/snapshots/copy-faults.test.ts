import { randomBytes } from "node:crypto";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { openSnapshotRepository } from "../../../src/actors/snapshots/open-repository.ts";
import { findTool } from "../../../src/config/tools.ts";
import { startS3 } from "../../../src/demo/local-s3.ts";
import { unwrap } from "../../../src/domain/outcome.ts";
import type { StoredBackup } from "../../../src/domain/snapshots.ts";
import { type Asked, type Fault, faultyS3, firstTimes, isList, isPut, slowDown } from "../../support/faulty-s3.ts";
import { sampleMetadata, sampleTree, storeSample } from "../../support/sample-backup.ts";
import { repositoryOptions, startSnapshotServer } from "../../support/snapshot-server.ts";
import { temporaryDirectory } from "../../support/temporary-directory.ts";

const refused: Fault = { kind: "answer", status: 400, code: "InvalidRequest", message: "InternalError" };
const putOf = (kind: string) => (asked: Asked) => isPut(asked) && new RegExp(`/base/${kind}[0-9a-f]`).test(asked.path);
const isRead = ({ method, path, query }: Asked) => method === "GET" && /\/base\/./.test(path) && query.size === 0;

/** What the store does, and whether the copy must be tried again for it; undefined: either will do. */
const faults: [string, () => (asked: Asked) => Fault | undefined, "retryable" | undefined][] = [
  // The program asks whether the object is there, is told that it is not, and goes on without what it could not write.
  ["refuses a session marker and is well again", () => firstTimes(1, putOf("s"), refused), "retryable"],
  ["refuses packs as long as the program tries", () => firstTimes(12, putOf("p"), refused), undefined],
  ["refuses an index as long as the program tries", () => firstTimes(12, putOf("xn0_"), refused), "retryable"],
  ["is slow down", () => firstTimes(3, isPut, slowDown), undefined],
  ["stores and does not answer", () => firstTimes(3, isPut, { kind: "loseAnswer" }), undefined],
  ["resets in mid body", () => firstTimes(3, putOf("p"), { kind: "resetInBody", afterBytes: 100_000 }), undefined],
  ["cuts what is read", () => firstTimes(3, isRead, { kind: "cutAnswer", afterBytes: 100 }), undefined],
  ["cuts a listing", () => firstTimes(3, isList, { kind: "cutAnswer", afterBytes: 60 }), undefined],
  ["trickles", () => firstTimes(3, isRead, { kind: "trickle", pieces: 20, pauseMs: 10 }), undefined],
];

const amounts = (backup: StoredBackup | undefined) =>
  backup?.snapshots.map(({ path, bytes, files, directories }) => ({ path, bytes, files, directories }));

test("P5: whatever the object store does during a copy, none is said to be whole that is not, and the next try makes it so", async () => {
  await using dir = await temporaryDirectory();
  await using s3 = await startS3({
    directory: join(dir.path, "s3"),
    bucket: "klio-test",
    executable: findTool("versitygw", process.env),
  });
  await using proxy = await faultyS3(s3);
  await using tier1 = await startSnapshotServer(join(dir.path, "tier1"));
  const { bucket, region, accessKeyId, secretAccessKey } = s3;
  const storage = { kind: "s3", bucket, region, endpoint: proxy.endpoint, accessKeyId, secretAccessKey } as const;
  const options = repositoryOptions(join(dir.path, "tier2"), {
    tier: "tier2",
    storage: { ...storage, prefix: "base" },
  });
  await using tier2 = unwrap(await openSnapshotRepository(options));
  await using alpha = await tier1.open("alpha");
  const data = sampleTree(dir.path);
  for (const [n, [what, rule, wanted]] of faults.entries()) {
    writeFileSync(join(data, "base/1/4711"), randomBytes(1 << 20)); // nothing of it is there yet
    const stored = await storeSample(alpha, data, sampleMetadata(`b${n}`));
    const copyIn = async () => unwrap(await tier2.backups()).find(({ metadata }) => metadata.name === `b${n}`);
    proxy.spoil(rule());
    const copied = await tier1.repository.copyBackupTo(tier2, stored);
    expect(proxy.counts().spoiled, what).toBeGreaterThan(0);
    proxy.spoil(undefined);
    if (wanted !== undefined || copied.kind !== "ok") {
      expect(copied, what).toMatchObject({ kind: "retryable" });
      expect(await copyIn(), what).toBeUndefined();
      unwrap(await tier1.repository.copyBackupTo(tier2, stored));
    }
    const copy = await copyIn();
    expect(amounts(copy), what).toEqual(amounts(stored));
    expect(unwrap(await tier2.verify(copy?.snapshots ?? [], { percent: 100 })), what).toEqual({ corrupt: [] });
  }
});
