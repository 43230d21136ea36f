import { expect, test } from "vitest";
import { silentTier } from "../../../src/domain/cluster-status.ts";
import { type ClusterStatus, exceededLimits } from "../../../src/domain/status-report.ts";

const exposure = (seconds: number) => ({ seconds, bytes: 1, heard_seconds: 0, silent: false });
const status = (values: Partial<ClusterStatus> = {}): ClusterStatus => ({
  cluster: "main",
  tiers: { tier1: silentTier("", exposure(5)), tier2: silentTier("", exposure(50)) },
  gaps: [],
  divergence: null,
  stream: null,
  slot: null,
  ...values,
});
const aged = (age: number) => ({
  ...silentTier("", null),
  latest_backup: { name: "b", completed_time: "", age_seconds: age, size: 1, verified_time: null },
});

test("a limit is kept at its value and exceeded above it, each on its own tier", () => {
  expect(exceededLimits([status()], { exposure: 5, tier2Exposure: 50 })).toEqual([]);
  expect(exceededLimits([status()], { exposure: 4, tier2Exposure: 49 })).toEqual([
    "exposure of main on tier 1 is 5 s, the limit is 4 s",
    "exposure of main on tier 2 is 50 s, the limit is 49 s",
  ]);
  expect(exceededLimits([status()], {})).toEqual([]);
});

test("what is not known keeps no limit", () => {
  const nothing = status({ tiers: {} });
  expect(exceededLimits([nothing], { exposure: 1_000, tier2Exposure: 1_000, backupAge: 1_000 })).toEqual([
    "exposure of main on tier 1 is not known",
    "exposure of main on tier 2 is not known",
    "age of the latest backup of main is not known",
  ]);
  expect(exceededLimits([], { exposure: 1 })).toEqual(["no cluster is known"]);
});

test("without the server the sidecar's word counts, and the younger backup of the two tiers", () => {
  const stream = { exposure_seconds: 7 } as ClusterStatus["stream"];
  expect(exceededLimits([status({ tiers: {}, stream })], { exposure: 6 })).toEqual([
    "exposure of main on tier 1 is 7 s, the limit is 6 s",
  ]);
  const backups = status({ tiers: { tier1: aged(100), tier2: aged(20) } });
  expect(exceededLimits([backups], { backupAge: 20 })).toEqual([]);
  expect(exceededLimits([backups], { backupAge: 19 })).toHaveLength(1);
});
