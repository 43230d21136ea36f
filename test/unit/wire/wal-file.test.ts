import { createHash, randomBytes } from "node:crypto";
import fc from "fast-check";
import { expect, test } from "vitest";
import { KlioError } from "../../../src/errors.ts";
import { decodeWalFile, rewrapHeader, sealFooter, WalFileDecoder } from "../../../src/wire/wal-file.ts";
import { encodeWalFile } from "../../../src/wire/wal-file-encode.ts";
import { FrameSealer, pack, packSync } from "../../../src/wire/wal-file-frame.ts";
import { encodeHeader, fileKeyOf, masterKeyOf, parseHeader } from "../../../src/wire/wal-file-header.ts";

const master = masterKeyOf(randomBytes(32));
const cluster = "alpha";
const name = "000000010000000000000001";

async function bytesOf(pieces: AsyncIterable<Uint8Array>): Promise<Buffer> {
  const parts: Uint8Array[] = [];
  for await (const piece of pieces) parts.push(piece);
  return Buffer.concat(parts);
}

function encode(raw: Buffer, complete = true, segmentBytes = raw.length): Promise<Buffer> {
  return bytesOf(encodeWalFile({ cluster, name, segmentBytes }, master, randomBytes, [raw], complete));
}

async function* inChunks(bytes: Buffer, size: number): AsyncGenerator<Buffer> {
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size);
}

async function decode(stored: Buffer, file = name, chunk = 1 << 16, key = master): Promise<Buffer | undefined> {
  const wal = await decodeWalFile(inChunks(stored, chunk), { master: key, cluster, name: file });
  return wal === undefined ? undefined : bytesOf(wal.blocks);
}

const damaged = (promise: Promise<unknown>) => expect(promise).rejects.toMatchObject({ code: "KLIO-WAL-DAMAGED" });

/** A partial file written in several openings with frames of the given sizes: what the live path leaves. */
function writtenInPieces(raw: Buffer, openings: number[][], segmentBytes: number, withFooter: boolean): Buffer {
  const identity = { cluster, name, segmentBytes };
  const fileKey = fileKeyOf(identity, randomBytes(32));
  const parts = [encodeHeader(identity, fileKey.dataKey, master, randomBytes(12))];
  let at = 0;
  let sealer = new FrameSealer(fileKey, randomBytes(32));
  for (const sizes of openings) {
    sealer = new FrameSealer(fileKey, randomBytes(32));
    for (const size of sizes) {
      const piece = raw.subarray(at, at + size);
      if (piece.length === 0) continue;
      parts.push(...sealer.seal("data", packSync([piece]), at, false));
      at += piece.length;
    }
  }
  if (withFooter)
    parts.push(...sealFooter(sealer, { rawBytes: at, sha256: createHash("sha256").update(raw).digest() }));
  return Buffer.concat(parts);
}

const compressible = (bytes: number) => Buffer.alloc(bytes, "0123456789abcdef");

test("what was written is read, in whatever pieces it comes", async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.uint8Array({ minLength: 1, maxLength: 40_000 }),
      fc.integer({ min: 1, max: 5_000 }),
      async (bytes, chunk) => {
        const raw = Buffer.from(bytes);
        expect((await decode(await encode(raw), name, chunk))?.equals(raw)).toBe(true);
      },
    ),
    { numRuns: 60 },
  );
});

test("large files: frames of at most 1 MiB, compressed ones and others", async () => {
  const raw = Buffer.concat([compressible(2_500_000), randomBytes(1_700_000)]);
  const stored = await encode(raw);
  expect(stored.length).toBeLessThan(1_900_000);
  const wal = await decodeWalFile(inChunks(stored, 1 << 20), { master, cluster, name });
  expect(wal).toMatchObject({ segmentBytes: raw.length, complete: true });
  const blocks: Uint8Array[] = [];
  for await (const block of wal!.blocks) blocks.push(block);
  expect(Math.max(...blocks.map((block) => block.length))).toBe(1 << 20);
  expect(Buffer.concat(blocks).equals(raw)).toBe(true);
});

test("D1: every changed bit of a complete file is found", async () => {
  const raw = randomBytes(300);
  const stored = writtenInPieces(raw, [[100, 50], [150]], raw.length, true);
  expect((await decode(stored))?.equals(raw)).toBe(true);
  for (let bit = 0; bit < stored.length * 8; bit++) {
    const changed = Buffer.from(stored);
    changed[bit >> 3] = (changed[bit >> 3] ?? 0) ^ (1 << (bit & 7));
    const error: unknown = await decode(changed).then(
      () => undefined,
      (reason: unknown) => reason,
    );
    // A changed key id reads as a file of another key; everything else as damage.
    expect(error, `bit ${bit}`).toBeInstanceOf(KlioError);
    expect((error as KlioError).code, `bit ${bit}`).toMatch(/KLIO-WAL-DAMAGED|KLIO-KEY-MISMATCH/);
  }
});

test("D1: a complete file cut anywhere, with bytes behind it, or with frames exchanged is damaged", async () => {
  const raw = randomBytes(90);
  const stored = writtenInPieces(raw, [[30, 30, 30]], raw.length, true);
  for (let length = 1; length < stored.length; length++) await damaged(decode(stored.subarray(0, length)));
  await damaged(decode(Buffer.concat([stored, Buffer.alloc(1)])));
  await damaged(decode(Buffer.concat([stored, Buffer.alloc(100)])));
  await damaged(decode(Buffer.concat([stored, stored])));
  const frame = 16 + 30 + 16;
  const start = stored.length - (16 + 40 + 16) - 2 * frame;
  const exchanged = Buffer.concat([
    stored.subarray(0, start),
    stored.subarray(start + frame, start + 2 * frame),
    stored.subarray(start, start + frame),
    stored.subarray(start + 2 * frame),
  ]);
  await damaged(decode(exchanged));
});

test("D1: a file does not pass for another one", async () => {
  const stored = await encode(randomBytes(100));
  await damaged(decode(stored, "000000010000000000000002"));
  const wal = decodeWalFile(inChunks(stored, 50), { master, cluster: "beta", name });
  await damaged(wal);
});

test("D2: no two frames of a file are sealed with the same key and nonce", () => {
  const raw = Buffer.alloc(400);
  const stored = writtenInPieces(raw, [[100], [100], [100, 100]], 500, false);
  const header = parseHeader(stored)!;
  const ciphers = [0, 1, 2].map((i) => {
    const at = header.bytes + i * (16 + 32 + 100 + 16);
    return stored.subarray(at + 16 + 32, at + 16 + 32 + 100).toString("hex");
  });
  const lastAt = header.bytes + 3 * (16 + 32 + 100 + 16);
  ciphers.push(stored.subarray(lastAt + 16, lastAt + 16 + 100).toString("hex"));
  expect(new Set(ciphers).size).toBe(4); // the same zeros, never the same cipher text
});

test("D3: a partial file cut anywhere reads up to its last whole frame, and says how much is torn", async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.array(fc.integer({ min: 1, max: 60 }), { minLength: 1, maxLength: 4 }), {
        minLength: 1,
        maxLength: 3,
      }),
      fc.double({ min: 0, max: 1, noNaN: true }),
      fc.integer({ min: 0, max: 40 }),
      async (openings, share, zeros) => {
        const raw = randomBytes(openings.flat().reduce((sum, size) => sum + size, 0));
        const stored = writtenInPieces(raw, openings, raw.length + 1, false);
        const header = parseHeader(stored)!;
        const cut = Math.floor(header.bytes + share * (stored.length - header.bytes));
        const whole: Buffer = stored.subarray(0, cut);
        const decoder = new WalFileDecoder(master, { cluster, name });
        decoder.push(whole);
        while (decoder.next() !== undefined);
        const file = Buffer.concat([stored.subarray(0, decoder.wholeBytes), Buffer.alloc(zeros)]);
        expect((await decode(file, `${name}.partial`))?.equals(raw.subarray(0, decoder.rawBytes))).toBe(true);
        expect((await decode(whole, `${name}.partial`))?.equals(raw.subarray(0, decoder.rawBytes))).toBe(true);
        expect(decoder.wholeBytes + decoder.tornBytes).toBe(cut);
        let frames = 0;
        for (const size of openings.flat()) if (frames + size <= decoder.rawBytes) frames += size;
        expect(decoder.rawBytes).toBe(frames);
      },
    ),
    { numRuns: 80 },
  );
});

test("D3: a changed length inside a partial file is damage, not a torn tail", async () => {
  const stored = writtenInPieces(randomBytes(120), [[40, 40, 40]], 500, false);
  const header = parseHeader(stored)!;
  for (const at of [4, 5, 6, 7, 8, 9, 10, 11]) {
    const changed = Buffer.from(stored);
    changed[header.bytes + at] = 0xff;
    await damaged(decode(changed, `${name}.partial`));
  }
});

test("D4: a footer that does not fit the bytes before it is damage", async () => {
  const raw = randomBytes(50);
  const identity = { cluster, name, segmentBytes: 50 };
  const fileKey = fileKeyOf(identity, randomBytes(32));
  const header = encodeHeader(identity, fileKey.dataKey, master, randomBytes(12));
  const file = (footer: { rawBytes: number; sha256: Buffer }) => {
    const sealer = new FrameSealer(fileKey, randomBytes(32));
    const frame = sealer.seal("data", packSync([raw]), 0, true);
    return Buffer.concat([header, ...frame, ...sealFooter(sealer, footer)]);
  };
  const sha256 = createHash("sha256").update(raw).digest();
  expect(await decode(file({ rawBytes: 50, sha256 }))).toEqual(raw);
  await damaged(decode(file({ rawBytes: 49, sha256 })));
  await damaged(decode(file({ rawBytes: 50, sha256: randomBytes(32) })));
});

test("D5: with its header wrapped anew a file reads under the other key, and only under it", async () => {
  const raw = Buffer.concat([compressible(200_000), randomBytes(1000)]);
  const stored = await encode(raw);
  const target = masterKeyOf(randomBytes(32));
  const decoder = new WalFileDecoder(master, { cluster, name });
  decoder.push(stored);
  while (decoder.next() !== undefined);
  const header = rewrapHeader(decoder.header!, decoder.fileKey!, target, randomBytes(12));
  const moved = Buffer.concat([header, stored.subarray(decoder.header!.bytes)]);
  expect((await decode(moved, name, 1000, target))?.equals(raw)).toBe(true);
  await expect(decode(moved)).rejects.toMatchObject({ code: "KLIO-KEY-MISMATCH" });
});

test("a file without a whole header is as good as none; a complete one like that is damaged", async () => {
  const stored = await encode(randomBytes(10));
  const header = parseHeader(stored)!;
  expect(await decode(Buffer.alloc(0))).toBeUndefined();
  expect(await decode(stored.subarray(0, header.bytes - 1), `${name}.partial`)).toBeUndefined();
  expect(await decode(stored.subarray(0, header.bytes), `${name}.partial`)).toEqual(Buffer.alloc(0));
});

test("compressing in the pool and at once chooses the same codec; what does not shrink stays raw", async () => {
  for (const raw of [compressible(100_000), randomBytes(100_000)]) {
    const pooled = await pack([raw.subarray(0, 50), raw.subarray(50)]);
    expect(pooled.codec).toBe(packSync([raw]).codec);
  }
  expect(packSync([randomBytes(100_000)]).codec).toBe("none");
  expect(packSync([compressible(100)]).codec).toBe("none");
});

test("leaving the loop closes the source, and an abort ends the reading", async () => {
  const stored = await encode(randomBytes(3_000_000));
  let closed = 0;
  async function* source() {
    try {
      yield* inChunks(stored, 1000);
    } finally {
      closed++;
    }
  }
  const wal = await decodeWalFile(source(), { master, cluster, name });
  for await (const _ of wal!.blocks) break;
  expect(closed).toBe(1);
  const controller = new AbortController();
  const second = await decodeWalFile(source(), { master, cluster, name, signal: controller.signal });
  controller.abort();
  await expect(bytesOf(second!.blocks)).rejects.toMatchObject({ code: "KLIO-CANCELLED" });
  expect(closed).toBe(2);
  // Neither begun nor left: whoever opened it disposes of it.
  {
    await using unread = await decodeWalFile(source(), { master, cluster, name });
    expect(unread?.complete).toBe(true);
    expect(closed).toBe(2);
  }
  expect(closed).toBe(3);
});
