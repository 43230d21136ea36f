import { expect, test } from "vitest";
import { type Frontier, noFrontier } from "../../../src/domain/frontier.ts";
import { SILENT_AFTER_MS, watchExposure } from "../../../src/roles/source-exposure.ts";
import type { Reading } from "../../../src/telemetry/instruments.ts";

const MiB = 1 << 20;
const segmentBytes = 16 * MiB;
const at = (segments: number, bytes = 0) => BigInt(segments * segmentBytes + bytes);
const held = (segment: number): Frontier => ({
  ...noFrontier,
  listed: true,
  at: `0000000100000000${segment.toString(16).toUpperCase().padStart(8, "0")}`,
});

function watch(tier2 = true) {
  let nowMs = 1_000_000;
  let frontier = noFrontier;
  const readers = new Map<string, () => Iterable<Reading>>();
  const exposure = watchExposure({
    telemetry: {
      observe: (metric, read) => {
        readers.set(metric, read);
        return () => void readers.delete(metric);
      },
    },
    ...(tier2 && { frontierOf: () => frontier }),
    now: () => nowMs,
  });
  const values = (metric = "klio.wal.exposure") =>
    Object.fromEntries(
      [...(readers.get(metric)?.() ?? [])].map(({ value, labels }) => [
        `${labels?.cluster_name}/${labels?.tier}`,
        value,
      ]),
    );
  return {
    exposure,
    values,
    readers,
    pass: (ms: number) => {
      nowMs += ms;
      return nowMs;
    },
    hold: (next: Frontier) => {
      frontier = next;
    },
  };
}

test("a tier that holds everything shows 0; one that lags shows the age of what it lacks, and how much", () => {
  const { exposure, values, pass, hold } = watch();
  hold(held(2));
  exposure.report("a", { end: at(3), flushed: at(3), segmentBytes });
  expect(values()).toEqual({ "a/tier1": 0, "a/tier2": 0 });
  pass(5_000);
  exposure.report("a", { end: at(3, 100), flushed: at(3, 40), segmentBytes });
  expect(values("klio.wal.exposure_size")).toEqual({ "a/tier1": 60, "a/tier2": 100 });
  pass(4_000);
  expect(values()).toEqual({ "a/tier1": 4, "a/tier2": 4 });
  exposure.report("a", { end: at(3, 100), flushed: at(3, 100), segmentBytes });
  expect(values()).toEqual({ "a/tier1": 0, "a/tier2": 4 });
  hold(held(3));
  expect(values()).toEqual({ "a/tier1": 0, "a/tier2": 0 });
});

test("a sidecar that is not heard any more is behind from the last moment it was heard; heard again, it is not", () => {
  const { exposure, values, pass } = watch(false);
  exposure.report("a", { end: at(1), flushed: at(1), segmentBytes });
  pass(SILENT_AFTER_MS);
  expect(values()).toEqual({ "a/tier1": 0 });
  pass(1);
  expect(values()["a/tier1"]).toBeCloseTo((SILENT_AFTER_MS + 1) / 1000);
  pass(60_000);
  expect(values()["a/tier1"]).toBeCloseTo((SILENT_AFTER_MS + 60_001) / 1000);
  exposure.report("a", { end: at(1, 8), flushed: at(1), segmentBytes });
  expect(values()["a/tier1"]).toBeGreaterThan(75);
  exposure.report("a", { end: at(1, 8), flushed: at(1, 8), segmentBytes });
  expect(values()).toEqual({ "a/tier1": 0 });
});

test("after a restart of the server a cluster counts from its newest file until its sidecar is heard", () => {
  const { exposure, values, pass, hold } = watch();
  exposure.known("a", "tier1", pass(0) - 30_000);
  expect(values()).toEqual({ "a/tier1": 30 });
  exposure.known("a", "tier2", pass(0) - 90_000);
  expect(values()).toEqual({ "a/tier1": 30, "a/tier2": 90 });
  hold(held(1));
  exposure.report("a", { end: at(3), flushed: at(3), segmentBytes });
  expect(values()).toEqual({ "a/tier1": 0, "a/tier2": 90 });
  expect(exposure.seconds("a", "tier2")).toBe(90);
  hold(held(2));
  expect(values()).toEqual({ "a/tier1": 0, "a/tier2": 0 });
  expect(exposure.seconds("b", "tier1")).toBeUndefined();
});

test("a cluster of which nothing is to be on tier 2 has no series of it; one that waits for its first file has", () => {
  const { exposure, values, hold } = watch();
  exposure.report("a", { end: at(3), flushed: at(3), segmentBytes });
  expect(Object.keys(values())).toEqual(["a/tier1"]);
  hold({ ...noFrontier, missing: [held(2).at] });
  expect(Object.keys(values())).toEqual(["a/tier1", "a/tier2"]);
});

test("a frontier that was not compared with the listings yet is believed by nobody", () => {
  const { exposure, values, pass, hold } = watch();
  hold({ ...held(9), listed: false });
  exposure.report("a", { end: at(3), flushed: at(3), segmentBytes });
  pass(2_000);
  expect(values()["a/tier2"]).toBe(2);
});

test("disposed it ends its series", () => {
  const { exposure, readers } = watch();
  expect([...readers.keys()]).toEqual(["klio.wal.exposure", "klio.wal.exposure_size"]);
  exposure[Symbol.dispose]();
  expect(readers.size).toBe(0);
});
