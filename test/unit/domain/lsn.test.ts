import fc from "fast-check";
import { expect, test } from "vitest";
import { formatLsn, lsn, maxLsn, parseLsn } from "../../../src/domain/lsn.ts";

const position = fc.bigInt({ min: 0n, max: 2n ** 64n - 1n });

test("parse(format(x)) is x over the whole range", () => {
  fc.assert(fc.property(position, (x) => parseLsn(formatLsn(lsn(x))) === x));
});

test("the form is PostgreSQL's", () => {
  expect(formatLsn(0x16_b374_d848n)).toBe("16/B374D848");
  expect(parseLsn("0/0")).toBe(0n);
  expect(parseLsn("ffffffff/ffffffff")).toBe(2n ** 64n - 1n);
});

test.each(["", "16", "16/", "/1", "16/B374D848F", "0x1/2", "1/2 "])(
  "%j is refused with what an LSN looks like",
  (text) => {
    expect(() => parseLsn(text)).toThrow(`not an LSN: ${JSON.stringify(text)}`);
  },
);

test("positions outside of 64 bits are refused; the greater of two is found", () => {
  expect(() => lsn(-1)).toThrow(/out of range/);
  expect(() => lsn(2n ** 64n)).toThrow(/out of range/);
  expect(maxLsn(lsn(1), lsn(2))).toBe(2n);
  expect(maxLsn(lsn(3), lsn(2))).toBe(3n);
});
