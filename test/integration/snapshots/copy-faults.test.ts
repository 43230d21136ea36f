import { join } from "node:path";
import { expect, test } from "vitest";
import { openSnapshotRepository } from "../../../src/actors/snapshots/open-repository.ts";
import { findTool } from "../../../src/config/tools.ts";
import { startS3 } from "../../../src/demo/local-s3.ts";
import { unwrap } from "../../../src/domain/outcome.ts";
import type { StoredBackup } from "../../../src/domain/snapshots.ts";
import { type Fault, faultyS3, firstTimes, isPut } from "../../support/faulty-s3.ts";
import { sampleMetadata, sampleTree, storeSample } from "../../support/sample-backup.ts";
import { repositoryOptions, startSnapshotServer } from "../../support/snapshot-server.ts";
import { temporaryDirectory } from "../../support/temporary-directory.ts";

const refused: Fault = { kind: "answer", status: 400, code: "InvalidRequest", message: "not now" };

const amounts = (backup: StoredBackup | undefined) =>
  backup?.snapshots.map(({ path, bytes, files, directories }) => ({ path, bytes, files, directories }));

test("P5: a store that is back before the copy ends leaves no copy that is said to be whole", async () => {
  await using dir = await temporaryDirectory();
  await using s3 = await startS3({
    directory: join(dir.path, "s3"),
    bucket: "klio-test",
    executable: findTool("versitygw", process.env),
  });
  await using proxy = await faultyS3(s3);
  await using tier1 = await startSnapshotServer(join(dir.path, "tier1"));
  const { bucket, region, accessKeyId, secretAccessKey } = s3;
  await using tier2 = unwrap(
    await openSnapshotRepository(
      repositoryOptions(join(dir.path, "tier2"), {
        tier: "tier2",
        storage: {
          kind: "s3",
          bucket,
          region,
          endpoint: proxy.endpoint,
          prefix: "klio/base",
          accessKeyId,
          secretAccessKey,
        },
      }),
    ),
  );
  await using alpha = await tier1.open("alpha");
  const stored = await storeSample(alpha, sampleTree(dir.path), sampleMetadata("b1"));

  // The program then asks whether the object is there, is told that it is not, and goes on without what it could not write.
  proxy.spoil(firstTimes(1, (asked) => isPut(asked) && /\/base\/s[0-9a-f]/.test(asked.path), refused));
  const copied = await tier1.repository.copyBackupTo(tier2, stored);
  expect(copied).toMatchObject({ kind: "retryable" });
  expect(copied.kind !== "ok" && copied.reason).toMatch(/^cannot copy backup b1: .*BLOB not found/);
  expect(unwrap(await tier2.backups())).toEqual([]);

  unwrap(await tier1.repository.copyBackupTo(tier2, stored));
  const [whole] = unwrap(await tier2.backups());
  expect(amounts(whole)).toEqual(amounts(stored));
  expect(unwrap(await tier2.verify(whole?.snapshots ?? [], { percent: 100 }))).toEqual({ corrupt: [] });
});
