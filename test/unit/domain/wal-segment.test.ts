import fc from "fast-check";
import { expect, test } from "vitest";
import {
  historyName,
  isSegmentSize,
  nextSegment,
  parseWalName,
  requireWalName,
  segmentAt,
  segmentRange,
  segmentStart,
  timelineOf,
  walPath,
} from "../../../src/domain/wal-segment.ts";

const MiB = 1 << 20;
const sizes = fc.constantFrom(1 * MiB, 16 * MiB, 64 * MiB, 1024 * MiB);
const timelines = fc.integer({ min: 1, max: 0xffff_ffff });
const positions = fc.bigInt({ min: 0n, max: 2n ** 64n - 1n });

test("a position lies in the segment that is named after it", () => {
  fc.assert(
    fc.property(timelines, positions, sizes, (timeline, position, size) => {
      const name = segmentAt(timeline, position, size);
      const start = segmentStart(name, size);
      expect(start <= position && position < start + BigInt(size)).toBe(true);
      expect(timelineOf(name)).toBe(timeline);
      expect(parseWalName(name)?.kind).toBe("segment");
    }),
  );
});

test("the next segment begins where this one ends, over log boundaries too", () => {
  fc.assert(
    fc.property(timelines, fc.bigInt({ min: 0n, max: 2n ** 63n }), sizes, (timeline, position, size) => {
      const name = segmentAt(timeline, position, size);
      expect(segmentStart(nextSegment(name, size), size)).toBe(segmentStart(name, size) + BigInt(size));
    }),
  );
  expect(nextSegment("0000000100000000000000FF", 16 * MiB)).toBe("000000010000000100000000");
});

test.each([
  ["000000010000000000000001", "segment"],
  ["00000001000000000000000a", "segment"],
  ["000000010000000000000001.partial", "partial"],
  ["00000002.history", "history"],
  ["000000010000000000000001.00000028.backup", "label"],
])("%s is a %s", (name, kind) => {
  expect(requireWalName(name).kind).toBe(kind);
});

test.each([
  "",
  "00000001",
  "../000000010000000000000001",
  "000000010000000000000001.gz",
  "00000001000000000000000G",
  "metadata",
])("KLIO-NAME-INVALID: %j is no WAL file", (name) => {
  expect(parseWalName(name)).toBeUndefined();
  expect(() => requireWalName(name)).toThrow(JSON.stringify(name));
});

test("ranges: both ends, refused when they cannot be", () => {
  expect(segmentRange("0000000100000000000000FE", "000000010000000100000000", 16 * MiB)).toEqual([
    "0000000100000000000000FE",
    "0000000100000000000000FF",
    "000000010000000100000000",
  ]);
  expect(() => segmentRange("000000010000000000000002", "000000010000000000000001", 16 * MiB)).toThrow(/not a range/);
  expect(() => segmentRange("000000010000000000000001", "000000020000000000000001", 16 * MiB)).toThrow(/not a range/);
  expect(() => segmentRange("000000010000000000000001", "0000000100000FFF00000001", 16 * MiB)).toThrow(/not a range/);
  expect(() => segmentRange("000000010000000000000001", "000000010000000000000001", 0)).toThrow(/segment size/);
  expect(() => segmentStart("0000000100000000000001FF", 16 * MiB)).toThrow(/no segment of/);
});

test("where files lie; which sizes PostgreSQL has", () => {
  expect(walPath("0000000100000002000000FF")).toBe("0000000100000002/0000000100000002000000FF");
  expect(walPath("0000000100000002000000FF.partial")).toBe("0000000100000002/0000000100000002000000FF.partial");
  expect(walPath(historyName(3))).toBe("00000003.history");
  expect([1, 16, 1024].map((n) => isSegmentSize(n * MiB))).toEqual([true, true, true]);
  expect([0, 3 * MiB, 512 * 1024, 2048 * MiB, 1.5].map(isSegmentSize)).toEqual([false, false, false, false, false]);
});
