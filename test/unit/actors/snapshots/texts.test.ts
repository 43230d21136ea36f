import fc from "fast-check";
import { expect, test } from "vitest";
import type { CommandResult } from "../../../../src/actors/process/run-command.ts";
import { failureOfCommand, infrastructureFailure, type Peer } from "../../../../src/actors/snapshots/classify.ts";
import {
  DESCRIPTION_LIMIT,
  formatDescription,
  parseDescription,
} from "../../../../src/actors/snapshots/description.ts";
import { serverUrls } from "../../../../src/actors/snapshots/kopia-server.ts";
import {
  catalogueEntry,
  type Manifest,
  manifestFault,
  parseManifests,
} from "../../../../src/actors/snapshots/manifest.ts";
import { parseProgress, parseVerifyProgress } from "../../../../src/actors/snapshots/progress.ts";
import {
  accessDifference,
  accessRules,
  ignoreRules,
  policyIsRight,
} from "../../../../src/actors/snapshots/repository-rules.ts";
import { storageArgs, storageEnvironment } from "../../../../src/actors/snapshots/storage.ts";
import { sampleMetadata } from "../../../support/sample-backup.ts";

const ended = (stderr: string, more: Partial<CommandResult> = {}): CommandResult => ({
  code: 1,
  signal: undefined,
  stdout: "",
  stderr,
  aborted: false,
  ...more,
});

test.each<[string, Peer, string, string]>([
  ["error writing pack: No space left on device.", "s3", "KLIO-S3-FULL", "retryable"],
  ["unable to write cache: no space left on device", "s3", "KLIO-DISK-FULL", "retryable"],
  ["unable to write: /data/base/p12: no space left on device", "directory", "KLIO-DISK-FULL", "retryable"],
  ["failed to open repository: invalid repository password", "directory", "KLIO-KEY-MISMATCH", "fatal"],
  ["error listing blobs: The specified bucket does not exist.", "s3", "KLIO-S3-BUCKET", "fatal"],
  ["The request signature we calculated does not match the signature", "s3", "KLIO-S3-CREDENTIALS", "fatal"],
  ["No user exists with the provided access key ID.", "s3", "KLIO-S3-CREDENTIALS", "fatal"],
  ["The provided token has expired.", "s3", "KLIO-S3-CREDENTIALS", "fatal"],
  ["error listing blobs: Access Denied", "s3", "KLIO-S3-CREDENTIALS", "fatal"],
  ["dial tcp 127.0.0.1:1: connect: connection refused", "s3", "KLIO-S3-DOWN", "retryable"],
  ["dial tcp 127.0.0.1:1: connect: connection refused", "server", "KLIO-REPOSITORY-DOWN", "retryable"],
  ["PermissionDenied desc = access denied for klio@b: EOF", "server", "KLIO-REPOSITORY-REFUSED", "fatal"],
  ["can't find certificate matching SHA256 fingerprint", "server", "KLIO-SERVER-REFUSED", "fatal"],
  ["unable to write session marker: storage is read-only", "server", "KLIO-READ-ONLY", "fatal"],
  ["read /data/base/p12: input/output error", "directory", "KLIO-STORE-IO", "retryable"],
  ["something nobody has seen", "directory", "KLIO-REPOSITORY", "fatal"],
])("stderr %j of a %s is %s", (stderr, peer, code, kind) => {
  const failed = failureOfCommand(ended(stderr), peer, "cannot list");
  expect(failed).toMatchObject({ code, kind });
  expect(failed.reason).toContain("cannot list: ");
});

test("KLIO-CHILD-FAILED and KLIO-CANCELLED: a killed program, and one that was told to stop, whatever its status", () => {
  expect(failureOfCommand(ended("", { code: undefined, signal: "SIGKILL" }), "server", "x").code).toBe(
    "KLIO-CHILD-FAILED",
  );
  expect(failureOfCommand(ended("", { code: 0, aborted: true }), "server", "x").code).toBe("KLIO-CANCELLED");
});

test("damage is no infrastructure failure", () => {
  expect(infrastructureFailure("BLOB not found", "directory")).toBeUndefined();
  expect(infrastructureFailure("invalid checksum at p1/2", "server")).toBeUndefined();
  expect(infrastructureFailure("rpc error: code = Unavailable desc = EOF", "server")?.kind).toBe("retryable");
});

test("progress lines give bytes; others give nothing", () => {
  expect(
    parseProgress(
      " / 2 hashing, 881 hashed (113.3 MB), 7 cached (1 KB), uploaded 104.4 MB, estimated 580.1 MB (19.5%) 3s left",
    ),
  ).toEqual({ processedBytes: 113_301_000, uploadedBytes: 104_400_000, estimatedBytes: 580_100_000 });
  expect(parseProgress(" * 0 hashing, 1 hashed (6 B), 0 cached (0 B), uploaded 671 B, estimating...")).toEqual({
    processedBytes: 6,
    uploadedBytes: 671,
    estimatedBytes: 0,
  });
  expect(parseProgress("Processed 12 (1.2 GB) of 20 (3.4 GB) 12.3 MB/s (34.5%) remaining 10s.")).toEqual({
    processedBytes: 1_200_000_000,
    uploadedBytes: 0,
    estimatedBytes: 3_400_000_000,
  });
  expect(parseProgress("Snapshotting klio@alpha:/x ...")).toBeUndefined();
  expect(
    parseVerifyProgress(
      '{"processedObjectCount":3,"processedBytes":6,"readFileCount":1,"readBytes":6,"expectedTotalObjectCount":3,"expectedTotalFileCount":1,"expectedTotalBytes":9}',
    ),
  ).toEqual({ processedBytes: 6, uploadedBytes: 0, estimatedBytes: 9 });
  fc.assert(fc.property(fc.string(), (line) => parseProgress(line) === undefined || line.includes("(")));
});

test("a description comes back as it was, metadata included when they fit", () => {
  const metadata = sampleMetadata("b1");
  const text = formatDescription({ backup: "b1", content: "metadata", host: "h", metadata });
  expect(text.length).toBeLessThanOrEqual(DESCRIPTION_LIMIT);
  expect(parseDescription(text)).toEqual({ backup: "b1", content: "metadata", host: "h", metadata });
  const bulky = Array.from({ length: 4000 }, (_, i) => ((i * 7919) % 65_521).toString(36)).join("");
  const long = formatDescription({
    backup: "b1",
    content: "metadata",
    host: "h",
    metadata: sampleMetadata("b1", "alpha", { annotations: { bulky } }),
  });
  expect(long.length).toBeLessThanOrEqual(DESCRIPTION_LIMIT);
  expect(parseDescription(long)?.metadata).toBeUndefined();
  expect(parseDescription(formatDescription({ backup: "b", content: "tombstone", host: "", of: "/a" }))).toEqual({
    backup: "b",
    content: "tombstone",
    host: "",
    of: "/a",
  });
});

test("descriptions of somebody else are not ours, whatever they hold", () => {
  for (const text of [
    "",
    "nightly",
    "{",
    "{}",
    '{"klio":2,"backup":"b","content":"pgdata"}',
    '{"klio":1,"backup":"b","content":"x"}',
  ])
    expect(parseDescription(text)).toBeUndefined();
  fc.assert(fc.property(fc.json(), (text) => parseDescription(text) === undefined));
});

const manifest = (more: Partial<Manifest> = {}): Manifest => ({
  id: "a1",
  source: { host: "alpha", userName: "klio", path: "/tmp/x/b1-1/tablespace-16400" },
  description: '{"klio":1,"backup":"b1","content":"tablespace","host":"h"}',
  startTime: "2026-01-01T00:00:00.5Z",
  endTime: "2026-01-01T00:00:01Z",
  rootEntry: { obj: "k1", type: "d", summ: { size: 10, files: 2, dirs: 3, numFailed: 0 } },
  ...more,
});

test("a manifest becomes an entry; the oid is read from the path", () => {
  expect(catalogueEntry(manifest())).toMatchObject({
    id: "a1",
    user: "klio",
    cluster: "alpha",
    tablespaceOid: 16400,
    bytes: 10,
    files: 2,
    directories: 3,
    startTimeMs: Date.parse("2026-01-01T00:00:00.500Z"),
    incomplete: false,
  });
  const lost = manifest({ rootEntry: { obj: "k1", type: "d", summ: { size: 10, files: 1, dirs: 3, numFailed: 1 } } });
  expect(catalogueEntry(lost)).toMatchObject({ incomplete: true });
  expect(catalogueEntry(manifest({ description: "nightly" }))).toBeUndefined();
  expect(() => parseManifests("Error: no")).toThrow(/something other than snapshots/);
});

test("a snapshot that lost anything but a vanished file is none", () => {
  const vanished = { path: "base/1/2", error: "open /x: no such file or directory" };
  const denied = { path: "base/1/3", error: "open /x: permission denied" };
  const summary = (summ: NonNullable<NonNullable<Manifest["rootEntry"]>["summ"]>) =>
    manifestFault(manifest({ rootEntry: { obj: "k1", type: "d", summ } }));
  expect(manifestFault(manifest())).toBeUndefined();
  expect(manifestFault(manifest({ incomplete: "canceled" }))).toContain("incomplete");
  const { rootEntry: _rootEntry, ...rootless } = manifest();
  expect(manifestFault(rootless)).toContain("no content");
  expect(summary({ numIgnoredErrors: 1, errors: [vanished] })).toBeUndefined();
  expect(summary({ numIgnoredErrors: 2, errors: [vanished, denied] })).toContain("permission denied");
  expect(summary({ numIgnoredErrors: 3, errors: [vanished] })).toContain("3 files");
  expect(summary({ numFailed: 1 })).toContain("1 files");
});

test("P9: S3 storage: no key in the arguments, path of the base repository as prefix", () => {
  const storage = {
    kind: "s3",
    bucket: "b-1",
    region: "r",
    endpoint: "http://host:9000",
    prefix: "klio/base",
    accessKeyId: "AKIA",
    secretAccessKey: "SECRET",
  } as const;
  const args = storageArgs(storage);
  expect(args).toContain("--endpoint=host:9000");
  expect(args).toContain("--disable-tls");
  expect(args).toContain("--prefix=klio/base/");
  expect(args.join(" ")).not.toMatch(/AKIA|SECRET/);
  expect(storageEnvironment(storage)).toEqual({
    AWS_ACCESS_KEY_ID: "AKIA",
    AWS_SECRET_ACCESS_KEY: "SECRET",
    AWS_SESSION_TOKEN: "",
  });
});

test("a policy that would expire or skip anything is not right", () => {
  const right = {
    retention: { keepLatest: 1_000_000, keepHourly: 0, keepDaily: 0, keepWeekly: 0, keepMonthly: 0, keepAnnual: 0 },
    files: { ignore: [...ignoreRules], ignoreDotFiles: [".klio-ignores-nothing"], ignoreCacheDirs: false },
    errorHandling: { ignoreFileErrors: true, ignoreDirectoryErrors: true },
    compression: { compressorName: "zstd-fastest" },
  };
  expect(policyIsRight(right, "tier1")).toBe(true);
  expect(policyIsRight({}, "tier1")).toBe(false);
  expect(policyIsRight(right, "tier2")).toBe(false);
  const strict = { ...right, errorHandling: { ignoreFileErrors: false, ignoreDirectoryErrors: false } };
  expect(policyIsRight(strict, "tier2")).toBe(true);
  expect(policyIsRight({ ...right, retention: { ...right.retention, keepLatest: 10 } }, "tier1")).toBe(false);
  expect(policyIsRight({ ...right, files: { ...right.files, ignore: [...ignoreRules, "/base"] } }, "tier1")).toBe(
    false,
  );
  expect(policyIsRight({ ...right, files: { ...right.files, ignoreDotFiles: [".kopiaignore"] } }, "tier1")).toBe(false);
});

test("P6: access rules of others are found, missing ones named, tier 2 is never written by clients", () => {
  const entries = accessRules("tier1").map((rule, i) => ({ id: `i${i}`, user: "*@*", ...rule }));
  expect(accessDifference(entries, "tier1")).toEqual({ missing: [], wrong: [] });
  expect(accessDifference([], "tier1").missing).toEqual(accessRules("tier1"));
  const foreign = { id: "f", user: "eve@*", access: "FULL", target: { type: "snapshot" } };
  expect(accessDifference([...entries, foreign], "tier1").wrong).toEqual(["f"]);
  expect(accessRules("tier2").every(({ access }) => access === "READ")).toBe(true);
});

test("addresses: every interface is reached over loopback", () => {
  expect(serverUrls(":51515")).toEqual({ listen: "https://[::]:51515", local: "https://127.0.0.1:51515" });
  expect(serverUrls("10.0.0.1:1")).toEqual({ listen: "https://10.0.0.1:1", local: "https://10.0.0.1:1" });
});
