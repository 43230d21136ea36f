import { expect, test } from "vitest";
import { Exposure } from "../../../src/domain/exposure.ts";

test("the age is that of the oldest byte that is missing", () => {
  const exposure = new Exposure(100n);
  expect(exposure.seconds(5_000)).toBe(0);
  exposure.sourceAt(200n, 1_000);
  exposure.sourceAt(200n, 1_500);
  exposure.sourceAt(300n, 2_000);
  expect([exposure.seconds(5_000), exposure.bytes]).toEqual([4, 200]);
  exposure.durableAt(199n);
  expect([exposure.seconds(5_000), exposure.bytes]).toEqual([4, 101]);
  exposure.durableAt(200n);
  expect([exposure.seconds(5_000), exposure.bytes]).toEqual([3, 100]);
  exposure.durableAt(300n);
  expect([exposure.seconds(5_000), exposure.bytes]).toEqual([0, 0]);
});

test("a source that is not heard counts from the last moment at which nothing was missing", () => {
  const exposure = new Exposure(100n);
  exposure.lost(10_000);
  exposure.lost(12_000);
  expect(exposure.seconds(15_000)).toBe(5);
  exposure.regained(100n, 500n, 16_000);
  expect([exposure.seconds(16_000), exposure.bytes]).toEqual([6, 400]);
  exposure.durableAt(500n);
  expect(exposure.seconds(20_000)).toBe(0);
  exposure.lost(20_000);
  exposure.regained(500n, 500n, 21_000);
  expect(exposure.seconds(30_000)).toBe(0);
});

test("thinning never makes the age smaller, and keeps the newest end", () => {
  const exposure = new Exposure(0n);
  for (let i = 1; i <= 5_000; i++) exposure.sourceAt(BigInt(i), i);
  expect(exposure.seconds(5_001)).toBe(5);
  exposure.durableAt(4_999n);
  expect(exposure.seconds(5_001)).toBeGreaterThan(0);
  exposure.durableAt(5_000n);
  expect(exposure.seconds(5_001)).toBe(0);
});
