import fc from "fast-check";
import { expect, test } from "vitest";
import { StreamPositions } from "../../../src/domain/stream-positions.ts";

test("flushed moves over whole segments only when each before is complete", () => {
  const positions = new StreamPositions(100n);
  const first = positions.open(200n);
  positions.receive(100);
  const second = positions.open(300n);
  positions.receive(50);
  expect(positions.received).toBe(250n);
  first.sent(200n);
  second.sent(250n);
  expect([positions.written, positions.flushed]).toEqual([250n, 100n]);
  expect(second.durable(240n, false)).toBe(false);
  expect(positions.flushed).toBe(100n);
  expect(first.durable(180n, false)).toBe(true);
  expect(positions.flushed).toBe(180n);
  expect(first.durable(200n, false)).toBe(false); // not before it has its final name
  expect(positions.flushed).toBe(180n);
  expect(first.durable(200n, true)).toBe(true);
  expect(positions.flushed).toBe(240n);
  expect(second.durable(230n, false)).toBe(false); // never back
  expect([positions.written, positions.flushed]).toEqual([250n, 240n]);
});

test("whatever order confirmations come in, flushed is the part without a hole, and never more than written", () => {
  const steps = fc.array(fc.record({ segment: fc.nat(4), bytes: fc.nat(10) }), { maxLength: 60 });
  fc.assert(
    fc.property(steps, (told) => {
      const positions = new StreamPositions(0n);
      const segments = Array.from({ length: 5 }, (_, i) => {
        const segment = positions.open(BigInt(i + 1) * 10n);
        positions.receive(10);
        return segment;
      });
      const durable = [0, 0, 0, 0, 0];
      for (const { segment, bytes } of told) {
        durable[segment] = Math.max(durable[segment] ?? 0, bytes);
        segments[segment]?.sent(BigInt(segment * 10 + bytes));
        const before = positions.flushed;
        const moved = segments[segment]?.durable(BigInt(segment * 10 + bytes), bytes === 10);
        expect(moved).toBe(positions.flushed > before);
        const hole = durable.findIndex((done) => done < 10);
        const expected = hole < 0 ? 50 : hole * 10 + (durable[hole] ?? 0);
        expect(positions.flushed).toBe(BigInt(expected));
        expect(positions.written >= positions.flushed).toBe(true);
      }
    }),
  );
});
