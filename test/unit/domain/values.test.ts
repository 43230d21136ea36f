import fc from "fast-check";
import { expect, test } from "vitest";
import { backoffMs } from "../../../src/domain/backoff.ts";
import { type BackupMetadata, formatBackupMetadata, parseBackupMetadata } from "../../../src/domain/backup-metadata.ts";
import { parseCommonName, requireClusterName } from "../../../src/domain/cluster-name.ts";
import { failure, failureOf, ok, unwrap } from "../../../src/domain/outcome.ts";
import { asKlioError, errorText, KlioError } from "../../../src/errors.ts";

test("waits grow to their limit and stay within it, whatever the spread", () => {
  const policy = { firstMs: 100, factor: 2, limitMs: 5_000 };
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 500 }), fc.double({ min: 0, max: 1, noNaN: true }), (attempt, spread) => {
      const wait = backoffMs(policy, attempt, spread);
      const full = Math.min(5_000, 100 * 2 ** Math.min(attempt - 1, 60));
      expect(wait).toBeGreaterThanOrEqual(Math.floor(full / 2));
      expect(wait).toBeLessThanOrEqual(full);
    }),
  );
});

test.each(["alpha", "a.b-c_D9", "x".repeat(255)])("%s is a cluster name", (name) => {
  expect(requireClusterName(name)).toBe(name);
});

test.each(["", ".", "..", ".hidden", "a/b", "a\\b", "a b", "ä", "a\0", "x".repeat(256)])(
  "KLIO-NAME-INVALID: %j is none",
  (name) => {
    expect(() => requireClusterName(name)).toThrow(/not a cluster name/);
  },
);

test("a common name is user@cluster and nothing else", () => {
  expect(parseCommonName("klio@alpha")).toEqual({ user: "klio", cluster: "alpha" });
  for (const cn of ["", "alpha", "@alpha", "klio@", "a@b@c", "a b@c"]) expect(parseCommonName(cn)).toBeUndefined();
});

test("outcomes: a KlioError keeps its kind, anything else is a bug and is thrown on", () => {
  expect(failureOf(new KlioError("KLIO-S3-DOWN", "503"))).toEqual({
    kind: "retryable",
    code: "KLIO-S3-DOWN",
    reason: "503",
  });
  expect(failure("KLIO-SLOT-LOST", "gone").kind).toBe("fatal");
  expect(() => failureOf(new TypeError("x"))).toThrow(TypeError);
  expect(() => failureOf(new KlioError("KLIO-BUG", "x"))).toThrow("x");
  expect(unwrap(ok(1))).toBe(1);
  expect(() => unwrap(failure("KLIO-S3-DOWN", "503"))).toThrow("503");
});

test("KLIO-BUG: an unknown error becomes a bug with its text and its causes", () => {
  const error = asKlioError(new Error("outer", { cause: new Error("inner") }));
  expect([error.code, error.kind, error.exit]).toEqual(["KLIO-BUG", "bug", 70]);
  expect(error.message).toBe("outer: inner");
  expect(errorText(Object.assign(new Error(""), { code: "ECONNREFUSED" }))).toBe("ECONNREFUSED");
});

const metadata: BackupMetadata = {
  name: "backup-1",
  clusterName: "alpha",
  systemId: "7000000000000000001",
  startLsn: "18446744073709551615",
  endLsn: "9007199254740993",
  startWal: "000000010000000000000001",
  endWal: "000000010000000000000002",
  tli: 1,
  segmentSize: 16_777_216,
  backupLabel: 'START WAL LOCATION: 0/2000028 ("startLsn":"1")\n',
  tablespaceMap: "",
  pgData: "/data",
  pgVersion: 170_000,
  tablespaces: [],
  annotations: {},
  startedAt: 1,
  stoppedAt: 2,
};

test("backup metadata: LSNs above 2^53 are numbers in JSON and exact after parsing", () => {
  for (const indent of [0, 2]) {
    const text = formatBackupMetadata(metadata, indent);
    expect(text).toMatch(/"startLsn": ?18446744073709551615/);
    expect(parseBackupMetadata(text)).toEqual(metadata);
  }
});

test("KLIO-REPOSITORY: metadata that is no JSON or lacks keys is refused", () => {
  expect(() => parseBackupMetadata("{")).toThrow(/not JSON/);
  expect(() => parseBackupMetadata('{"name":"x"}')).toThrow(/lacks clusterName/);
});
