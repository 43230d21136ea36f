import { createHash, randomBytes } from "node:crypto";
import { create } from "@bufbuild/protobuf";
import { expect, test } from "vitest";
import { ReceivedFile } from "../../../../src/actors/grpc/received-file.ts";
import { BlockCodec, type GetResult, GetResultSchema } from "../../../../src/proto/generated/klio/wal/v1/wal_pb.ts";
import { zstdPack } from "../../../../src/wire/zstd.ts";

const name = "000000010000000000000003";
const raw = Buffer.concat([Buffer.alloc(100_000, 7), randomBytes(20_000)]);
const sha256 = createHash("sha256").update(raw).digest();
const wrong = (text: RegExp) =>
  expect.objectContaining({ code: "KLIO-SERVER-DOWN", message: expect.stringMatching(text) });

type Sent = { bytes: Buffer; rawSize?: number; codec?: BlockCodec };
const packed = (bytes: Buffer): Sent => ({
  bytes: Buffer.from(zstdPack(bytes)),
  rawSize: bytes.length,
  codec: BlockCodec.ZSTD,
});

function receive(blocks: Sent[], last: Partial<Pick<GetResult, "sha256">>, complete = true): Buffer {
  const file = new ReceivedFile("server:1", name);
  const parts = blocks.map(({ bytes, rawSize = 0, codec = BlockCodec.NONE }) =>
    Buffer.from(file.take(create(GetResultSchema, { walBlock: bytes, rawSize: BigInt(rawSize), codec }))),
  );
  file.take(create(GetResultSchema, last));
  file.check(raw.length, complete);
  return Buffer.concat(parts);
}
const thrown = (act: () => unknown) => {
  try {
    act();
  } catch (error) {
    return error;
  }
  return undefined;
};

test("raw and compressed blocks come out as the file, and later blocks leave earlier ones alone", () => {
  const blocks = [
    packed(raw.subarray(0, 50_000)),
    { bytes: raw.subarray(50_000, 60_000) },
    packed(raw.subarray(60_000)),
  ];
  expect(receive(blocks, { sha256 }).equals(raw)).toBe(true);
  expect(receive([{ bytes: raw }], {}).equals(raw)).toBe(true); // an older server
});

test("who takes one block after the other gets them in one buffer, no other file's", () => {
  const [one, other] = [1, 2].map(() => new ReceivedFile("server:1", name, { reuses: true }));
  const take = (file: ReceivedFile | undefined, bytes: Buffer) =>
    file?.take(create(GetResultSchema, { walBlock: bytes, rawSize: 50_000n, codec: BlockCodec.ZSTD }));
  const [a, b] = [raw.subarray(0, 50_000), raw.subarray(60_000, 110_000)];
  const first = take(one, packed(a).bytes);
  expect(a.equals(first ?? b)).toBe(true);
  const second = take(other, packed(b).bytes);
  expect(a.equals(first ?? b)).toBe(true);
  expect(b.equals(second ?? a)).toBe(true);
  expect(take(one, packed(b).bytes)?.buffer).toBe(first?.buffer);
  one?.close();
  expect(take(new ReceivedFile("server:1", name, { reuses: true }), packed(a).bytes)?.buffer).toBe(first?.buffer);
  expect(b.equals(second ?? a)).toBe(true);
});

test("a whole file of other bytes, or without the hash that goes with compressed blocks, is refused", () => {
  const other = Buffer.from(raw);
  other[70_000] = 8;
  for (const [blocks, last] of [
    [[packed(other)], { sha256 }],
    [[{ bytes: other }], { sha256 }],
    [[packed(raw)], {}],
  ] as const)
    expect(thrown(() => receive([...blocks], last))).toEqual(wrong(/other bytes than were stored/));
});

test("a file that ends early is refused; an unfinished one may", () => {
  const part = [packed(raw.subarray(0, 50_000))];
  expect(thrown(() => receive(part, { sha256 }))).toEqual(wrong(/50000 of 120000 bytes/));
  expect(receive(part, {}, false)).toHaveLength(50_000);
});

test("a block that is not what it says is refused", () => {
  const good = packed(raw);
  for (const [block, text] of [
    [{ ...good, rawSize: raw.length - 1 }, /cannot be unpacked/],
    [{ ...good, rawSize: 0 }, /0 raw bytes/],
    [{ ...good, rawSize: 2 << 20 }, /2097152 raw bytes/],
    [{ ...good, codec: 9 as BlockCodec }, /codec 9/],
    [{ ...good, bytes: raw }, /cannot be unpacked/],
  ] as const)
    expect(thrown(() => receive([block], { sha256 }))).toEqual(wrong(text));
});
