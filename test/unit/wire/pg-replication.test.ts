import fc from "fast-check";
import { expect, test } from "vitest";
import { KlioError } from "../../../src/errors.ts";
import {
  encodeStatus,
  FrameReader,
  type FrameSink,
  quoteSlot,
  type ServerNotice,
  startReplication,
} from "../../../src/wire/pg-replication.ts";

function frame(kind: string, body: Buffer = Buffer.alloc(0)): Buffer {
  const head = Buffer.alloc(5);
  head.write(kind, 0);
  head.writeUInt32BE(body.length + 4, 1);
  return Buffer.concat([head, body]);
}
const EPOCH = 946_684_800_000;

function wal(start: bigint, bytes: Buffer, serverEnd = start + BigInt(bytes.length), sentAtMs = EPOCH + 5): Buffer {
  const head = Buffer.alloc(25);
  head.write("w", 0);
  head.writeBigUInt64BE(start, 1);
  head.writeBigUInt64BE(serverEnd, 9);
  head.writeBigInt64BE(BigInt(sentAtMs - EPOCH) * 1000n, 17);
  return frame("d", Buffer.concat([head, bytes]));
}
function keepalive(serverEnd: bigint, reply: boolean): Buffer {
  const body = Buffer.alloc(18);
  body.write("k", 0);
  body.writeBigUInt64BE(serverEnd, 1);
  body.writeBigInt64BE(7_000_000n, 9);
  body[17] = reply ? 1 : 0;
  return frame("d", body);
}
function row(...columns: (string | null)[]): Buffer {
  const count = Buffer.alloc(2);
  count.writeUInt16BE(columns.length);
  const cells = columns.map((column) => {
    const length = Buffer.alloc(4);
    length.writeInt32BE(column === null ? -1 : Buffer.byteLength(column));
    return Buffer.concat([length, Buffer.from(column ?? "")]);
  });
  return frame("D", Buffer.concat([count, ...cells]));
}
const notice = (kind: string, fields: Record<string, string>) =>
  frame(
    kind,
    Buffer.concat([
      ...Object.entries(fields).map(([name, value]) => Buffer.from(`${name}${value}\0`)),
      Buffer.from([0]),
    ]),
  );

/** Keeps all that a reader tells; `bytes` copied as they come. */
class Recorder implements FrameSink {
  readonly told: string[] = [];
  bytes = Buffer.alloc(0);
  copyStarted() {
    this.told.push("copy");
  }
  walHeader(header: { start: bigint; length: number; serverEnd: bigint; sentAtMs: number }) {
    this.told.push(`wal ${header.start}+${header.length} end ${header.serverEnd} at ${header.sentAtMs - EPOCH}`);
  }
  walBytes(chunk: Buffer, from: number, to: number) {
    this.bytes = Buffer.concat([this.bytes, chunk.subarray(from, to)]);
  }
  keepalive(told: { serverEnd: bigint; sentAtMs: number; replyRequested: boolean }) {
    this.told.push(`keepalive ${told.serverEnd} ${told.sentAtMs - EPOCH} ${told.replyRequested}`);
  }
  copyDone() {
    this.told.push("done");
  }
  row(columns: (string | null)[]) {
    this.told.push(`row ${JSON.stringify(columns)}`);
  }
  serverError(error: ServerNotice) {
    this.told.push(`error ${error.severity} ${error.code} ${error.message} ${error.hint}`);
  }
  serverNotice(told: ServerNotice) {
    this.told.push(`notice ${told.message}`);
  }
  ready() {
    this.told.push("ready");
  }
}

const payload = Buffer.from(Array.from({ length: 70 }, (_, i) => (i * 37) & 0xff));
const stream = Buffer.concat([
  frame("W", Buffer.from([0, 0, 0])),
  wal(0x1_6000_0000n, payload.subarray(0, 40), 0x1_7000_0000n),
  keepalive(0x1_7000_0001n, true),
  frame("S", Buffer.from("TimeZone\0UTC\0")),
  wal(0x1_6000_0028n, payload.subarray(40)),
  wal(0x1_6000_0046n, Buffer.alloc(0)),
  notice("N", { S: "NOTICE", C: "00000", M: "hear" }),
  keepalive(0x1_7000_0002n, false),
  frame("c"),
  frame("T", Buffer.from([0, 0])),
  row("2", "1/6000", null),
  frame("C", Buffer.from("START_STREAMING\0")),
  notice("E", { S: "FATAL", V: "FATAL", C: "57P01", M: "stopped", H: "wait" }),
  frame("Z", Buffer.from("I")),
]);
const told = [
  "copy",
  `wal ${0x1_6000_0000n}+40 end ${0x1_7000_0000n} at 5`,
  `keepalive ${0x1_7000_0001n} 7000 true`,
  `wal ${0x1_6000_0028n}+30 end ${0x1_6000_0046n} at 5`,
  `wal ${0x1_6000_0046n}+0 end ${0x1_6000_0046n} at 5`,
  "notice hear",
  `keepalive ${0x1_7000_0002n} 7000 false`,
  "done",
  'row ["2","1/6000",null]',
  "error FATAL 57P01 stopped wait",
  "ready",
];

test("A1: every split in two gives the same messages and bytes", () => {
  for (let cut = 0; cut <= stream.length; cut++) {
    const recorder = new Recorder();
    const reader = new FrameReader(recorder);
    reader.push(stream.subarray(0, cut));
    reader.push(stream.subarray(cut));
    expect(recorder.told, `cut at ${cut}`).toEqual(told);
    expect(recorder.bytes.equals(payload), `cut at ${cut}`).toBe(true);
  }
});

test("A1: chunks of one byte, and any other cutting, give the same", () => {
  fc.assert(
    fc.property(fc.array(fc.integer({ min: 1, max: 60 }), { minLength: 1 }), (sizes) => {
      const recorder = new Recorder();
      const reader = new FrameReader(recorder);
      for (let at = 0, i = 0; at < stream.length; i++) {
        const size = sizes[i % sizes.length] ?? 1;
        reader.push(stream.subarray(at, at + size));
        at += size;
      }
      expect(recorder.told).toEqual(told);
      expect(recorder.bytes.equals(payload)).toBe(true);
    }),
    { examples: [[[1]]] },
  );
});

test("A2: a payload is a view of the pushed chunk, never a copy that lags behind", () => {
  const seen: { chunk: Buffer; from: number; to: number }[] = [];
  const recorder = new Recorder();
  recorder.walBytes = (chunk, from, to) => seen.push({ chunk, from, to });
  const message = wal(0n, payload);
  const [head, tail] = [message.subarray(0, 35), message.subarray(35)];
  const reader = new FrameReader(recorder);
  reader.push(head);
  reader.push(tail);
  expect(seen.map(({ chunk }) => chunk)).toEqual([head, tail]);
  expect(seen[0]?.chunk).toBe(head);
  expect(seen.map(({ from, to }) => to - from)).toEqual([5, 65]);
});

test.each([
  ["an unknown type", Buffer.from("X\0\0\0\x04")],
  ["a length below its own four bytes", Buffer.from("d\0\0\0\x03")],
  ["an error of 16 MiB", Buffer.from([0x45, 1, 0, 0, 0])],
  ["an unknown kind of replication message", frame("d", Buffer.from("x234567890123456789012345"))],
  ["a WAL message without its header", frame("d", Buffer.from("w2345"))],
  ["a keepalive that is too long", frame("d", Buffer.from("k234567890123456789"))],
  ["a copy message without a kind", frame("d")],
  ["a row that ends early", frame("D", Buffer.from([0, 1, 0, 0]))],
])("A3: %s is refused as KLIO-SOURCE-DOWN", (_, bytes) => {
  const reader = new FrameReader(new Recorder());
  expect(() => reader.push(bytes)).toThrow(expect.objectContaining({ code: "KLIO-SOURCE-DOWN" }) as KlioError);
});

test("a status holds three positions, the clock since 2000 in microseconds, and the wish for an answer", () => {
  const status = { written: 0x1_0000_0003n, flushed: 2n, applied: 1n, nowMs: EPOCH + 42, replyRequested: true };
  const message = encodeStatus(status);
  expect(message.length).toBe(34);
  expect(String.fromCharCode(message[0] ?? 0)).toBe("r");
  expect([message.readBigUInt64BE(1), message.readBigUInt64BE(9), message.readBigUInt64BE(17)]).toEqual([
    0x1_0000_0003n,
    2n,
    1n,
  ]);
  expect(message.readBigInt64BE(25)).toBe(42_000n);
  expect(message[33]).toBe(1);
  expect(encodeStatus({ ...status, replyRequested: false })[33]).toBe(0);
});

test("a command names slot, position and timeline; a name that is none never gets into one", () => {
  expect(startReplication("klio", "16/B3000000", 3)).toBe(
    'START_REPLICATION SLOT "klio" PHYSICAL 16/B3000000 TIMELINE 3',
  );
  expect(() => quoteSlot('k"; DROP')).toThrow(KlioError);
});
