import fc from "fast-check";
import { expect, test } from "vitest";
import { type PageCheckOptions, systemIdIn, WalPageCheck } from "../../../src/domain/wal-page.ts";
import { SYSTEM_ID, type WalBytesOptions, walSegment } from "../../support/wal-bytes.ts";

const MiB = 1 << 20;
const name = "00000002000000010000000A";

function check(bytes: Uint8Array, cuts: number[], options: Partial<PageCheckOptions> = {}, from = 0): void {
  const checker = new WalPageCheck({ name, segmentBytes: MiB, systemId: SYSTEM_ID, ...options });
  let at = from;
  for (const cut of [...cuts, bytes.length].toSorted((a, b) => a - b)) {
    if (cut <= at) continue;
    checker.check(bytes.subarray(at, cut), at);
    at = cut;
  }
}

const mismatch = (bytes: Uint8Array, text: RegExp, options: Partial<PageCheckOptions> = {}) =>
  expect(() => check(bytes, [], options)).toThrow(
    expect.objectContaining({ code: "KLIO-WAL-MISMATCH", message: expect.stringMatching(text) }),
  );

const segment = (options: WalBytesOptions = {}) => walSegment(name, MiB, options);

test("WAL of each version, either byte order, passes wherever it is cut", () => {
  const cuts = fc.array(
    fc.oneof(
      fc.nat(MiB),
      fc.nat(127).map((page) => page * 8192 + 12),
      fc.nat(50),
    ),
    {
      maxLength: 40,
    },
  );
  for (const magic of [0xd110, 0xd113, 0xd116, 0xd118])
    for (const littleEndian of [true, false]) {
      const bytes = segment({ magic, littleEndian });
      fc.assert(
        fc.property(cuts, (positions) => check(bytes, positions)),
        { numRuns: 20 },
      );
    }
});

test("any byte moved is found, wherever the blocks are cut", () => {
  const bytes = segment();
  fc.assert(
    fc.property(fc.integer({ min: 1, max: MiB - 50_000 }), fc.array(fc.nat(MiB), { maxLength: 10 }), (shift, cuts) => {
      const shifted = bytes.subarray(shift);
      expect(() => check(shifted, cuts)).toThrow(expect.objectContaining({ code: "KLIO-WAL-MISMATCH" }));
    }),
    { numRuns: 50 },
  );
});

test("wrong, foreign and unknown WAL is refused with what is wrong", () => {
  mismatch(segment({ systemId: "42" }), /of system 42, the cluster is 7300000000000000001/);
  mismatch(walSegment("00000002000000010000000B", MiB), /the page is 1\/B00000/);
  mismatch(walSegment("00000003000000010000000A", MiB), /of timeline 3/);
  mismatch(segment({ magic: 0xd106 }), /15 to 18/);
  mismatch(segment().fill(0, 0, 8192), /no page of WAL/);
  mismatch(walSegment("000000020000000100000005", 2 * MiB), /segments have 2097152 bytes/);
  const notFirst = segment();
  notFirst.writeUInt16LE(0, 2);
  mismatch(notFirst, /does not begin a segment/);
  const later = segment();
  later.writeBigUInt64LE(1n, 77 * 8192 + 8);
  mismatch(later, /at 1\/A9A000: the page is 0\/1/);
});

test("zeros behind a switch and the older timeline's pages are legal", () => {
  check(segment({ zerosFromPage: 1 }), []);
  check(segment({ zerosFromPage: 100 }), [5, 800_000, 900_001]);
  check(segment({ switchedAtPage: 64 }), []);
});

test("data of a player passes only when allowed, from its first byte, for a cluster that is not known", () => {
  const data = Buffer.alloc(MiB, "not WAL ");
  mismatch(data, /no page of WAL/, { allowForeign: true });
  const unknown = new WalPageCheck({ name, segmentBytes: MiB, allowForeign: true });
  unknown.check(data.subarray(0, 10), 0);
  unknown.check(data.subarray(10), 10);
  const real = new WalPageCheck({ name, segmentBytes: MiB, allowForeign: true });
  real.check(segment().subarray(0, 8192), 0);
  expect(() => real.check(data.subarray(8192), 8192)).toThrow(/no page of WAL/);
});

test("the system identifier is read from a segment's first bytes", () => {
  expect(systemIdIn(segment())).toBe(SYSTEM_ID);
  expect(systemIdIn(segment({ littleEndian: false }))).toBe(SYSTEM_ID);
  expect(systemIdIn(segment().subarray(0, 39))).toBeUndefined();
  expect(systemIdIn(segment().subarray(8192))).toBeUndefined();
  expect(systemIdIn(Buffer.alloc(100))).toBeUndefined();
});
