import { expect, test } from "vitest";
import { roomOf, SlotForecast } from "../../../src/domain/slot-forecast.ts";

const limits = { windowMs: 60_000, minSpanMs: 20_000, horizonSeconds: 10_000 };
/** Looks ten seconds apart; the forecast after each. */
function forecasts(retained: readonly number[], room: number | null = 1_000): (number | null)[] {
  const forecast = new SlotForecast(limits);
  return retained.map((retainedBytes, i) => forecast.after({ atMs: i * 10_000, retainedBytes }, room));
}

test("a steady growth fills the room when it should; nothing is said before enough was seen", () => {
  expect(forecasts([0, 100, 200, 300])).toEqual([null, null, 100, 100]);
});

test("what does not grow, or has no known limit, is never full", () => {
  expect(forecasts([500, 500, 500, 400])).toEqual([null, null, null, null]);
  expect(forecasts([0, 100, 200], null)).toEqual([null, null, null]);
});

test("only the window counts: an old burst is forgotten, a new one is seen", () => {
  const calm = Array.from({ length: 7 }, () => 700);
  expect(forecasts([0, 700, ...calm]).at(-1)).toBeNull();
  expect(forecasts([...calm, 1_300]).at(-1)).toBeCloseTo(1_000 / (600 / 60));
});

test("what lies beyond the horizon is not foretold", () => {
  expect(forecasts([0, 1, 2], 1_000).at(-1)).toBe(10_000);
  expect(forecasts([0, 1, 2], 1_001).at(-1)).toBeNull();
});

test("no room left is now, not later and never negative", () => {
  expect(forecasts([0, 100, 200], 0).at(-1)).toBe(0);
  expect(forecasts([0, 100, 200], -5).at(-1)).toBe(0);
});

test("another slot begins anew", () => {
  const forecast = new SlotForecast(limits);
  forecast.after({ atMs: 0, retainedBytes: 0 }, 10);
  forecast.forget();
  expect(forecast.after({ atMs: 30_000, retainedBytes: 1_000 }, 10)).toBeNull();
});

test("the nearest known limit is the room", () => {
  expect(roomOf(5, 3)).toBe(3);
  expect(roomOf(null, 3)).toBe(3);
  expect(roomOf(null, null)).toBeNull();
});
