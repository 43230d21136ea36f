import fc from "fast-check";
import { expect, test } from "vitest";
import { Ring } from "../../../src/console/ring.ts";

test("Z9: a ring holds the last items in their order and gives back what it drops", () => {
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 8 }), fc.array(fc.integer(), { maxLength: 40 }), (capacity, items) => {
      const ring = new Ring<number>(capacity);
      const gone = items.map((item) => ring.push(item)).filter((item) => item !== undefined);
      expect(ring.toArray()).toEqual(items.slice(-capacity));
      expect(gone).toEqual(items.slice(0, Math.max(0, items.length - capacity)));
      expect(ring.oldest).toBe(items.slice(-capacity)[0]);
    }),
  );
});
