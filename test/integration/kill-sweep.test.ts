// The short form of `npm run chaos wal`. KLIO_KILL_SEED runs one seed, KLIO_KILL_SEEDS that many.
import { expect, test } from "vitest";
import { isExact } from "../../src/demo/ledger.ts";
import { sweepKills } from "../support/kill-sweep.ts";
import { seeds } from "../support/random.ts";

/** Server and sidecar at points and at any time, PostgreSQL, nats-server, a Kopia server, and two at once. */
const USUAL = [2, 6, 9, 11, 15, 35, 84, 61];

test("P1, P2, P8: whoever is killed, and when, every acknowledged commit is restored, and segments are PostgreSQL's own", {
  timeout: 600_000,
}, async () => {
  const run = seeds("KLIO_KILL", USUAL);
  const told: string[] = [];
  const result = await sweepKills({ seeds: run, tell: (text) => told.push(text) });
  expect(told.length).toBe(run.length);
  expect(result.kills).toBeGreaterThanOrEqual(run.length);
  expect(result.segments).toBeGreaterThan(0);
  expect(result.commits).toBeGreaterThan(5 * run.length);
  expect(isExact(result.restored)).toBe(true);
});
