import { randomBytes } from "node:crypto";
import { zstdCompressSync, zstdDecompressSync } from "node:zlib";
import fc from "fast-check";
import { expect, test } from "vitest";
import { isWholeFrame, keepsContexts, MAX_ZSTD_RAW_BYTES, zstdPack, zstdUnpack } from "../../../src/wire/zstd.ts";

/** Some of it repeats, as WAL does. */
function likeWal(bytes: number): Buffer {
  const raw = Buffer.alloc(bytes);
  for (let at = 0; at < bytes; at += 64) randomBytes(Math.min(20, bytes - at)).copy(raw, at);
  return raw;
}

const packed = (raw: Buffer) => Buffer.from(zstdPack(raw));

test("this Node lets contexts be kept: without, each block costs several times as much", () => {
  expect(keepsContexts()).toBe(true);
});

test.each([1, 2, 100, 8191, 8192, 65_536, 300_001, MAX_ZSTD_RAW_BYTES - 1, MAX_ZSTD_RAW_BYTES])(
  "%i bytes come back, also through Node's own functions",
  (bytes) => {
    for (const raw of [likeWal(bytes), randomBytes(bytes), Buffer.alloc(bytes)]) {
      const frame = packed(raw);
      expect(isWholeFrame(frame)).toBe(true);
      expect(zstdUnpack(frame, bytes).equals(raw)).toBe(true);
      expect(zstdDecompressSync(frame).equals(raw)).toBe(true);
      expect(zstdUnpack(zstdCompressSync(raw), bytes).equals(raw)).toBe(true);
    }
  },
);

test("Z1: a frame that is cut, followed by something, or of another length is refused, and the next block is right", () => {
  const raw = likeWal(100_000);
  const frame = packed(raw);
  const next = likeWal(50_000);
  const nextFrame = packed(next);
  const bad: [Buffer, number][] = [
    [Buffer.concat([frame, frame]), 200_000],
    [Buffer.concat([frame, Buffer.alloc(1)]), 100_000],
    [Buffer.from("504d2a180400000001020304", "hex"), 4], // a skippable frame
    [frame, 99_999],
    [frame, 100_001],
    [frame, 1],
    [Buffer.alloc(0), 1],
  ];
  for (let cut = 1; cut < frame.length; cut += 97) bad.push([frame.subarray(0, cut), 100_000]);
  for (const [bytes, rawBytes] of bad) {
    expect(() => zstdUnpack(bytes, rawBytes)).toThrow();
    expect(zstdUnpack(nextFrame, next.length).equals(next)).toBe(true);
  }
});

test("Z1: whatever the bytes are, nothing of one block comes out with another", () => {
  const good = likeWal(20_000);
  const goodFrame = packed(good);
  const frame = packed(likeWal(30_000));
  fc.assert(
    fc.property(fc.nat(frame.length - 1), fc.integer({ min: 1, max: 255 }), (at, flip) => {
      const changed = Buffer.from(frame);
      changed[at] = (changed[at] ?? 0) ^ flip;
      try {
        expect(zstdUnpack(changed, 30_000)).toHaveLength(30_000);
      } catch {
        // refused, which is as good
      }
      expect(zstdUnpack(goodFrame, good.length).equals(good)).toBe(true);
    }),
    { numRuns: 2_000 },
  );
});

test("a frame that would unpack to more than was said costs no more than that", () => {
  const bomb = zstdCompressSync(Buffer.alloc(200 << 20));
  expect(() => zstdUnpack(bomb, MAX_ZSTD_RAW_BYTES)).toThrow(/more bytes than it says|gives/);
});
