import assert from "node:assert/strict";
import fc from "fast-check";
import { test } from "vitest";
import { scanCommits } from "../../../src/wire/wal-commit-times.ts";
import { recordBytes, type TestRecord, walSegment } from "../../support/wal-records.ts";

const SEGMENT = 256 << 10;
const times = fc.integer({ min: 1_600_000_000_000_000, max: 1_900_000_000_000_000 });
const records: fc.Arbitrary<TestRecord[]> = fc.array(
  fc.oneof(
    fc.record({
      kind: fc.constantFrom("commit" as const, "abort" as const, "commitPrepared" as const),
      atUs: times,
      origin: fc.boolean(),
      topLevel: fc.boolean(),
      long: fc.boolean(),
    }),
    fc.record({ kind: fc.constant("other" as const), bytes: fc.integer({ min: 0, max: 20_000 }) }),
  ),
  { maxLength: 9 },
);
const latestOf = (list: readonly TestRecord[]) =>
  list.reduce<number | undefined>(
    (latest, one) => (one.kind === "other" ? latest : Math.max(latest ?? 0, one.atUs)),
    undefined,
  );

test("X2: the latest end of a transaction is found, however the segment is cut into blocks", () => {
  fc.assert(
    fc.property(
      records,
      fc.integer({ min: 0, max: 30_000 }),
      fc.array(fc.integer({ min: 1, max: 9000 }), { minLength: 1 }),
      (list, before, sizes) => {
        const segment = walSegment(list, SEGMENT, before);
        const scan = scanCommits();
        for (let at = 0, i = 0; at < segment.length; i++) {
          const size = sizes[i % sizes.length] ?? 1;
          scan.push(segment.subarray(at, at + size));
          at += size;
        }
        assert.equal(scan.latestUs, latestOf(list));
      },
    ),
  );
});

test("X2: byte by byte", () => {
  const list: TestRecord[] = [
    { kind: "other", bytes: 8100 },
    { kind: "commit", atUs: 1_700_000_000_000_001, origin: true, topLevel: true },
    { kind: "other", bytes: 9000 },
    { kind: "abort", atUs: 1_700_000_000_000_000 },
  ];
  const segment = walSegment(list, 32 << 10, 100);
  const scan = scanCommits();
  for (const byte of segment) scan.push(Uint8Array.of(byte));
  assert.equal(scan.latestUs, 1_700_000_000_000_001);
});

test("X1: a commit whose last byte is not there does not count", () => {
  const first: TestRecord = { kind: "commit", atUs: 1_700_000_000_000_000 };
  const second: TestRecord = { kind: "commit", atUs: 1_800_000_000_000_000 };
  const length = recordBytes(second).length;
  const start = 40 + Math.ceil(recordBytes(first).length / 8) * 8;
  const segment = walSegment([first, second], SEGMENT);
  const cut = (end: number) => {
    const scan = scanCommits();
    scan.push(segment.subarray(0, end));
    return scan.latestUs;
  };
  assert.equal(cut(start + length - 1), first.atUs);
  assert.equal(cut(start + length), second.atUs);
});

test("nothing is found in zeros, nor behind them", () => {
  const scan = scanCommits();
  scan.push(Buffer.alloc(8192));
  scan.push(walSegment([{ kind: "commit", atUs: 1_700_000_000_000_000 }], 8192));
  assert.equal(scan.latestUs, undefined);
});
