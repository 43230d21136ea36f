import { expect, test } from "vitest";
import type { DivergenceReport } from "../../../src/domain/cluster-status.ts";
import { watchDivergence } from "../../../src/roles/offload-gauges.ts";
import type { Reading } from "../../../src/telemetry/instruments.ts";

test("each cluster that was compared has a value of each kind, and 0 is told, too", () => {
  const found = new Map<string, DivergenceReport>();
  let read: () => Iterable<Reading> = () => [];
  let hasStopped = false;
  const stop = watchDivergence(found, {
    observe(name, readings) {
      expect(name).toBe("klio.tiers.divergence");
      read = readings;
      return () => {
        hasStopped = true;
      };
    },
  });
  expect([...read()]).toEqual([]);
  found.set("a", { compared_time: "", missing: 3, stale: 1, different: 0, foreign: 2 });
  expect([...read()].map(({ value, labels }) => `${labels?.cluster_name} ${labels?.kind} ${value}`)).toEqual([
    "a missing 3",
    "a stale 1",
    "a different 0",
    "a foreign 2",
  ]);
  stop();
  expect(hasStopped).toBe(true);
});
