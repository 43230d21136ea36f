// A raw WAL segment made of given records, laid out as PostgreSQL does: page headers, alignment, continuations.

const PAGE = 8192;
const EPOCH_US = 946_684_800_000_000;
export type TestRecord =
  | { kind: "commit" | "abort" | "commitPrepared"; atUs: number; origin?: boolean; topLevel?: boolean; long?: boolean }
  | { kind: "other"; bytes: number };

export function recordBytes(record: TestRecord): Buffer {
  if (record.kind === "other") {
    const bytes = Buffer.alloc(24 + record.bytes, 0x55);
    bytes.writeUInt32LE(bytes.length, 0);
    bytes[16] = 0x00;
    bytes[17] = 10; // heap
    return bytes;
  }
  const info = { commit: 0x00, abort: 0x20, commitPrepared: 0x30 }[record.kind];
  const time = Buffer.alloc(8);
  time.writeBigInt64LE(BigInt(record.atUs - EPOCH_US));
  const data = Buffer.concat([time, Buffer.alloc(12, 0x77)]);
  const length = Buffer.alloc(4);
  length.writeUInt32LE(data.length);
  const parts = [
    Buffer.alloc(24),
    record.origin === true ? Buffer.from([0xfd, 1, 0]) : Buffer.alloc(0),
    record.topLevel === true ? Buffer.from([0xfc, 1, 2, 3, 4]) : Buffer.alloc(0),
    record.long === true ? Buffer.concat([Buffer.from([0xfe]), length]) : Buffer.from([0xff, data.length]),
    data,
  ];
  const bytes = Buffer.concat(parts);
  bytes.writeUInt32LE(bytes.length, 0);
  bytes[16] = info | 0x80; // with XLOG_XACT_HAS_INFO, as most have
  bytes[17] = 1;
  return bytes;
}

/** `before`: bytes of a record that began in the segment before this one. */
export function walSegment(records: readonly TestRecord[], segmentBytes: number, before = 0): Buffer {
  const segment = Buffer.alloc(segmentBytes);
  let at = 0;
  let left = before;
  const header = (rest: number) => {
    const isLong = at === 0;
    segment.writeUInt16LE(0xd110, at);
    segment.writeUInt16LE((rest > 0 ? 0x0001 : 0) | (isLong ? 0x0002 : 0), at + 2);
    segment.writeUInt32LE(1, at + 4);
    segment.writeBigUInt64LE(BigInt(at), at + 8);
    segment.writeUInt32LE(rest, at + 16);
    at += isLong ? 40 : 24;
  };
  const write = (bytes: Buffer) => {
    for (let done = 0; done < bytes.length; ) {
      if (at % PAGE === 0) header(done === 0 && left === 0 ? 0 : bytes.length - done);
      const size = Math.min(PAGE - (at % PAGE), bytes.length - done);
      bytes.copy(segment, at, done, done + size);
      at += size;
      done += size;
    }
    at = Math.ceil(at / 8) * 8;
  };
  if (left > 0) write(Buffer.alloc(left, 0x33));
  left = 0;
  if (at === 0) header(0);
  for (const record of records) write(recordBytes(record));
  return segment;
}
