import fc from "fast-check";
import { expect, test } from "vitest";
import type { Block } from "../../../../src/actors/postgres/block-builder.ts";
import { WalPipe } from "../../../../src/actors/postgres/wal-pipe.ts";
import { HEADROOM_BYTES } from "../../../../src/wire/wal-message.ts";

const MIB = 1 << 20;

type Carried = { name: string; fromOffset: number; bytes: Buffer; blocks: number[]; ended: boolean };

/** A pipe whose segments are carried at once, into memory; `hold` keeps the blocks unsent. */
function pipe(options: { start?: bigint; blockBytes?: number; method?: "stream" | "put"; hold?: boolean } = {}) {
  const carried = new Map<string, Carried>();
  const pressure: boolean[] = [];
  const unsent: (() => void)[] = [];
  let flushes = 0;
  const made = new WalPipe({
    timeline: 1,
    start: options.start ?? 0n,
    segmentBytes: MIB,
    blockBytes: options.blockBytes ?? 256 << 10,
    method: options.method ?? "stream",
    highBytes: 3 * MIB,
    lowBytes: MIB,
    onSegment: ({ name, fromOffset }) => {
      const into: Carried = { name, fromOffset, bytes: Buffer.alloc(0), blocks: [], ended: false };
      carried.set(name, into);
      const segment = made.segment(name);
      segment.connect({
        block: ({ buffer, start, end, release }: Block) => {
          into.bytes = Buffer.concat([into.bytes, buffer.subarray(start, end)]);
          into.blocks.push(end - start);
          const done = () => {
            buffer.fill(0xee, start - HEADROOM_BYTES, end); // what a transport may leave behind
            release();
            segment.sent(end - start);
          };
          if (options.hold === true) unsent.push(done);
          else done();
        },
        ended: () => {
          into.ended = true;
        },
      });
    },
    onFlushed: () => {
      flushes += 1;
    },
    onPressure: (isHigh) => pressure.push(isHigh),
  });
  return { pipe: made, carried, pressure, unsent, flushes: () => flushes };
}

test("bytes are cut at segment ends and arrive whole, in order, however they come", () => {
  const reads = fc.array(fc.integer({ min: 1, max: 400_000 }), { minLength: 1, maxLength: 30 });
  fc.assert(
    fc.property(reads, fc.integer({ min: 0, max: MIB - 1 }), (sizes, offset) => {
      const start = BigInt(5 * MIB + offset);
      const { pipe: made, carried } = pipe({ start, blockBytes: 65_536 });
      const total = sizes.reduce((sum, size) => sum + size, 0);
      const source = Buffer.alloc(total);
      for (let i = 0; i < total; i += 97) source[i] = (i * 31) & 0xff;
      let at = 0;
      for (const size of sizes) {
        made.expect(start + BigInt(at));
        made.append(source, at, at + size);
        made.endOfRead();
        at += size;
      }
      made.end();
      const names = [...carried.keys()];
      expect(names).toEqual([...names].sort());
      expect(Buffer.concat([...carried.values()].map(({ bytes }) => bytes)).equals(source)).toBe(true);
      const pieces = [...carried.values()];
      expect(pieces[0]?.fromOffset).toBe(offset);
      for (const { fromOffset, bytes, ended } of pieces.slice(0, -1)) {
        expect(fromOffset + bytes.length).toBe(MIB);
        expect(ended).toBe(true);
      }
    }),
    { numRuns: 40 },
  );
});

test("KLIO-WAL-GAP: bytes that do not follow are refused", () => {
  const { pipe: made } = pipe({ start: 100n });
  made.expect(100n);
  made.append(Buffer.alloc(10), 0, 10);
  expect(() => made.expect(111n)).toThrow(expect.objectContaining({ code: "KLIO-WAL-GAP" }));
  made.expect(110n);
});

test("small reads go out at once; while the way is full they are gathered", () => {
  const { pipe: made, carried } = pipe();
  const chunk = Buffer.alloc(1_000, 7);
  const read = () => {
    made.append(chunk, 0, chunk.length);
    made.endOfRead();
  };
  read();
  read();
  const segment = made.segment("000000010000000000000000");
  segment.congested(true);
  for (let i = 0; i < 10; i++) read();
  expect(carried.get(segment.name)?.blocks).toEqual([1_000, 1_000]);
  segment.congested(false);
  expect(carried.get(segment.name)?.blocks).toEqual([1_000, 1_000, 10_000]);
});

test("unconfirmed bytes hold the source back between the two marks", () => {
  const { pipe: made, pressure } = pipe();
  const chunk = Buffer.alloc(MIB);
  for (let i = 0; i < 4; i++) {
    made.append(chunk, 0, chunk.length);
    made.endOfRead();
  }
  expect(made.heldBytes).toBe(4 * MIB);
  expect(pressure).toEqual([true]);
  for (let i = 0; i < 3; i++) made.segment(`00000001000000000000000${i}`).durable(MIB, true);
  expect(made.heldBytes).toBe(MIB);
  expect(pressure).toEqual([true]);
  made.segment("000000010000000000000003").durable(10, false);
  expect(pressure).toEqual([true, false]);
});

test("with put only what is not sent holds back", () => {
  const { pipe: made, unsent } = pipe({ method: "put", hold: true, blockBytes: MIB });
  made.append(Buffer.alloc(MIB), 0, MIB);
  expect(made.heldBytes).toBe(MIB);
  for (const done of unsent.splice(0)) done();
  expect(made.heldBytes).toBe(0);
  expect(made.positions.flushed).toBe(0n);
});

test("a stall counts from the last confirmation, and only while bytes wait", () => {
  const { pipe: made } = pipe();
  expect(made.stalledMs(1_000)).toBe(0);
  expect(made.stalledMs(50_000)).toBe(0);
  made.append(Buffer.alloc(100), 0, 100);
  made.endOfRead();
  expect(made.stalledMs(51_000)).toBe(1_000);
  made.append(Buffer.alloc(100), 0, 100);
  made.endOfRead();
  expect(made.stalledMs(55_000)).toBe(5_000); // sent is not confirmed
  made.segment("000000010000000000000000").durable(100, false);
  expect(made.stalledMs(56_000)).toBe(0);
  expect(made.stalledMs(58_000)).toBe(2_000);
});

test("it settles when it was ended and every carrier is", async () => {
  const { pipe: made, carried } = pipe();
  made.append(Buffer.alloc(MIB + 5), 0, MIB + 5);
  let isSettled = false;
  void made.settled.then(() => {
    isSettled = true;
  });
  const [one, two] = [...carried.keys()].map((name) => made.segment(name));
  one?.close();
  made.end();
  await Promise.resolve();
  expect(isSettled).toBe(false);
  expect(carried.get(two?.name ?? "")).toMatchObject({ ended: true, blocks: [5] });
  two?.close();
  await made.settled;
  expect(() => made.segment(two?.name ?? "")).toThrow(expect.objectContaining({ code: "KLIO-BUG" }));
});

test("while the source has whole blocks more, blocks are filled; at its end they go out with each read", () => {
  const { pipe: made, carried } = pipe({ blockBytes: 65_536 });
  made.sourceAt(200_000n);
  for (let at = 0; at < 200_000; at += 20_000) {
    made.append(Buffer.alloc(20_000, at), 0, 20_000);
    made.endOfRead();
  }
  const [segment] = carried.values();
  expect(segment?.blocks.slice(0, 2)).toEqual([65_536, 65_536]);
  expect(segment?.bytes).toHaveLength(200_000);
  made.sourceAt(200_300n);
  made.append(Buffer.alloc(300), 0, 300);
  made.endOfRead();
  expect(segment?.blocks.at(-1)).toBe(300);
});
