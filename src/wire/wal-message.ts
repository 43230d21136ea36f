// The hot message of the WAL service, PutRequest, encoded and decoded by hand: a block is neither copied when it is sent
// nor when it arrives. Everything else goes through the generated code. Field order and padded lengths are legal
// protobuf; every decoder must take them.
import { KlioError } from "../errors.ts";

/** Room that a sender keeps free before the first byte of a block, for the fields in front of it. */
export const HEADROOM_BYTES = 640; // 2 names of at most 255 bytes, their tags, and the numbers
/** Largest block in one message, and largest message. */
export const MAX_BLOCK_BYTES = 8 << 20;
export const MAX_MESSAGE_BYTES = MAX_BLOCK_BYTES + (512 << 10);

export type PutFields = {
  cluster: string;
  walName: string;
  segmentBytes: number;
  sendToTier2: boolean;
  /** Raw offset of the block in the file; only `Stream` heeds it. */
  offset: number;
  /** The block is one zstd frame that gives so many raw bytes. Absent: it is raw. */
  packedFrom?: number;
};
export type PutMessage = PutFields & { block: Buffer };

const TAG = {
  cluster: 10,
  walName: 18,
  block: 26,
  segmentBytes: 32,
  sendToTier2: 56,
  offset: 64,
  codec: 72,
  rawBytes: 80,
} as const;
/** BlockCodec of the service. */
export const CODEC = { none: 0, zstd: 1 } as const;

function varint(value: number): number[] {
  const bytes: number[] = [];
  let rest = value;
  while (rest >= 0x80) {
    bytes.push((rest % 0x80) | 0x80);
    rest = Math.floor(rest / 0x80);
  }
  bytes.push(rest);
  return bytes;
}

/** The fields before the block, block tag and length included; the length is always five bytes long. */
function prefix(fields: PutFields, blockBytes: number): Buffer {
  const cluster = Buffer.from(fields.cluster, "utf8");
  const walName = Buffer.from(fields.walName, "utf8");
  const length = [0, 7, 14, 21].map((shift) => ((blockBytes >>> shift) & 0x7f) | 0x80);
  return Buffer.concat([
    Buffer.from([TAG.cluster, ...varint(cluster.length)]),
    cluster,
    Buffer.from([TAG.walName, ...varint(walName.length)]),
    walName,
    Buffer.from([
      TAG.segmentBytes,
      ...varint(fields.segmentBytes),
      ...(fields.sendToTier2 ? [TAG.sendToTier2, 1] : []),
      ...(fields.offset > 0 ? [TAG.offset, ...varint(fields.offset)] : []),
      ...(fields.packedFrom === undefined ? [] : [TAG.codec, CODEC.zstd, TAG.rawBytes, ...varint(fields.packedFrom)]),
      TAG.block,
      ...length,
      (blockBytes / 2 ** 28) & 0x7f,
    ]),
  ]);
}

/**
 * The encoded message as a view of `buffer`: the block is `buffer[start, end)` and the `HEADROOM_BYTES` before `start`
 * are overwritten. The buffer belongs to the transport until its write callback was called.
 */
export function encodePutInPlace(fields: PutFields, buffer: Buffer, start: number, end: number): Buffer {
  const before = prefix(fields, end - start);
  if (before.length > start)
    throw new KlioError("KLIO-BUG", `${before.length} bytes of headroom needed, ${start} there`);
  before.copy(buffer, start - before.length);
  return buffer.subarray(start - before.length, end);
}

/** The encoded message with the block copied: for small messages. */
export function encodePut(fields: PutFields, block: Uint8Array): Buffer {
  return Buffer.concat([prefix(fields, block.length), block]);
}

class Reader {
  at = 0;
  readonly bytes: Buffer;
  constructor(bytes: Buffer) {
    this.bytes = bytes;
  }
  number(): number {
    let value = 0;
    let scale = 1;
    for (let i = 0; i < 10; i++) {
      const byte = this.bytes[this.at++];
      if (byte === undefined) break;
      value += (byte & 0x7f) * scale;
      if (byte < 0x80) {
        if (value > Number.MAX_SAFE_INTEGER) throw malformed(`number ${value} is too large`);
        return value;
      }
      scale *= 0x80;
    }
    throw malformed("a number has no end");
  }
  view(): Buffer {
    const length = this.number();
    if (length > this.bytes.length - this.at) throw malformed(`a field of ${length} bytes passes the end`);
    this.at += length;
    return this.bytes.subarray(this.at - length, this.at);
  }
  skip(wireType: number): void {
    if (wireType === 0) this.number();
    else if (wireType === 1) this.at += 8;
    else if (wireType === 2) this.view();
    else if (wireType === 5) this.at += 4;
    else throw malformed(`wire type ${wireType} is not known`);
    if (this.at > this.bytes.length) throw malformed("a field passes the end");
  }
}

function malformed(reason: string): KlioError {
  return new KlioError("KLIO-USAGE", `message is no PutRequest: ${reason}`);
}

/** Decodes a PutRequest; `block` is a view of `bytes`. Unknown fields are passed over. Throws KLIO-USAGE. */
export function decodePut(bytes: Buffer): PutMessage {
  const reader = new Reader(bytes);
  let codec: number = CODEC.none;
  let rawBytes = 0;
  const message: PutMessage = {
    cluster: "",
    walName: "",
    segmentBytes: 0,
    sendToTier2: false,
    offset: 0,
    block: bytes.subarray(0, 0),
  };
  while (reader.at < bytes.length) {
    const tag = reader.number();
    if (tag === TAG.cluster) message.cluster = reader.view().toString("utf8");
    else if (tag === TAG.walName) message.walName = reader.view().toString("utf8");
    else if (tag === TAG.block) message.block = reader.view();
    else if (tag === TAG.segmentBytes) message.segmentBytes = reader.number();
    else if (tag === TAG.sendToTier2) message.sendToTier2 = reader.number() !== 0;
    else if (tag === TAG.offset) message.offset = reader.number();
    else if (tag === TAG.codec) codec = reader.number();
    else if (tag === TAG.rawBytes) rawBytes = reader.number();
    else if (tag < 8) throw malformed(`field number 0`);
    else reader.skip(tag % 8);
  }
  if (codec === CODEC.none) return message;
  if (codec !== CODEC.zstd) throw malformed(`codec ${codec} was not offered`);
  return { ...message, packedFrom: rawBytes };
}
