import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import fc from "fast-check";
import { expect, test } from "vitest";
import { BlockCodec, PutRequestSchema } from "../../../src/proto/generated/klio/wal/v1/wal_pb.ts";
import {
  CODEC,
  decodePut,
  encodePut,
  encodePutInPlace,
  HEADROOM_BYTES,
  type PutFields,
} from "../../../src/wire/wal-message.ts";

const fields: fc.Arbitrary<PutFields> = fc.record({
  cluster: fc.string({ maxLength: 60 }),
  walName: fc.string({ maxLength: 40 }),
  segmentBytes: fc.integer({ min: 0, max: 2 ** 40 }),
  sendToTier2: fc.boolean(),
  offset: fc.integer({ min: 0, max: 2 ** 40 }),
});

test("what is encoded by hand is read by the generated decoder, and the reverse", () => {
  fc.assert(
    fc.property(fields, fc.uint8Array({ maxLength: 5000 }), (given, block) => {
      const generated = fromBinary(PutRequestSchema, encodePut(given, block));
      expect(generated).toMatchObject({
        clusterName: given.cluster,
        walName: given.walName,
        segmentSize: BigInt(given.segmentBytes),
        sendToTier2: given.sendToTier2,
        offset: BigInt(given.offset),
      });
      expect(Buffer.from(generated.walBlock).equals(block)).toBe(true);
      const decoded = decodePut(Buffer.from(toBinary(PutRequestSchema, generated)));
      expect({ ...decoded, block: Buffer.from(decoded.block) }).toEqual({ ...given, block: Buffer.from(block) });
    }),
  );
});

test("a compressed block says its codec and its raw size, and another codec is refused", () => {
  expect(CODEC).toEqual({ none: BlockCodec.NONE, zstd: BlockCodec.ZSTD });
  const given = {
    cluster: "c",
    walName: "w",
    segmentBytes: 1 << 24,
    sendToTier2: true,
    offset: 8192,
    packedFrom: 90_000,
  };
  const message = encodePut(given, Buffer.from("frame"));
  expect(fromBinary(PutRequestSchema, message)).toMatchObject({ codec: BlockCodec.ZSTD, rawSize: 90_000n });
  expect(decodePut(message)).toMatchObject({ ...given, block: Buffer.from("frame") });
  const other = toBinary(PutRequestSchema, create(PutRequestSchema, { codec: 7 as BlockCodec }));
  expect(() => decodePut(Buffer.from(other))).toThrow(/codec 7/);
});

test("in place and copied are the same bytes, and the longest names fit the headroom", () => {
  const given = { cluster: "c".repeat(255), walName: "w".repeat(255), segmentBytes: 2 ** 40, sendToTier2: true };
  const block = Buffer.from("bytes of WAL");
  const buffer = Buffer.alloc(HEADROOM_BYTES + 100);
  block.copy(buffer, HEADROOM_BYTES);
  const message = encodePutInPlace(
    { ...given, offset: 2 ** 40 },
    buffer,
    HEADROOM_BYTES,
    HEADROOM_BYTES + block.length,
  );
  expect(message.equals(encodePut({ ...given, offset: 2 ** 40 }, block))).toBe(true);
  expect(message.buffer).toBe(buffer.buffer);
  expect(() => encodePutInPlace({ ...given, offset: 0 }, buffer, 10, 20)).toThrow(/headroom/);
});

test("a decoded block is a view of the message, not a copy", () => {
  const message = encodePut(
    { cluster: "c", walName: "w", segmentBytes: 1, sendToTier2: false, offset: 0 },
    Buffer.alloc(9),
  );
  expect(decodePut(message).block.buffer).toBe(message.buffer);
});

test("retired and unknown fields are passed over", () => {
  const known = toBinary(PutRequestSchema, create(PutRequestSchema, { clusterName: "c", walName: "w" }));
  const retired = Buffer.from([0x2a, 2, 65, 66, 0x32, 1, 67, 0x79, 1, 2, 3, 4, 5, 6, 7, 8, 0x7d, 1, 2, 3, 4]);
  expect(decodePut(Buffer.concat([retired, known]))).toMatchObject({ cluster: "c", walName: "w" });
});

test("P11: a message that is none is refused, whatever the bytes", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 64 }), (bytes) => {
      try {
        decodePut(Buffer.from(bytes));
      } catch (error) {
        expect(error).toMatchObject({ code: "KLIO-USAGE" });
      }
    }),
  );
  expect(() => decodePut(Buffer.from([26, 0xff, 0xff, 0xff, 0x7f]))).toThrow(/passes the end/);
  expect(() => decodePut(Buffer.alloc(11, 0xff))).toThrow(/no end/);
  expect(() => decodePut(Buffer.from([11]))).toThrow(/wire type 3/);
});
