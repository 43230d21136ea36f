import fc from "fast-check";
import { expect, test } from "vitest";
import { compareRows, isExact, Ledger } from "../../../src/demo/ledger.ts";

test("the same rows are exact, in any order", () => {
  fc.assert(
    fc.property(fc.dictionary(fc.nat().map(String), fc.string()), (rows) => {
      const list = Object.entries(rows).map(([id, payload]) => ({ id: Number(id), payload }));
      const expected = new Map(list.map(({ id, payload }) => [id, payload]));
      expect(isExact(compareRows(expected, list.reverse()))).toBe(true);
    }),
  );
});

test("a lost, a changed and an unexpected row are counted apart", () => {
  const expected = new Map([
    [1, "a"],
    [2, "b"],
    [3, "c"],
  ]);
  const found = [
    { id: 1, payload: "a" },
    { id: 2, payload: "x" },
    { id: 9, payload: "z" },
  ];
  expect(compareRows(expected, found)).toEqual({ expected: 3, found: 3, lost: 1, different: 1, unexpected: 1 });
  expect(compareRows(expected, found, (id) => id === 9).unexpected).toBe(0);
});

test("a row is doubtful from its sending to its acknowledgement", () => {
  const ledger = new Ledger();
  ledger.sent(5);
  expect([ledger.isDoubtful(5), ledger.count]).toEqual([true, 0]);
  ledger.acknowledged({ id: 5, payload: "p" }, 1000);
  expect([ledger.isDoubtful(5), ledger.count, ledger.lastAcknowledgedMs]).toEqual([false, 1, 1000]);
});
