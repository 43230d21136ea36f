// What survives when the power goes: the real store on a disk that keeps only what it was made to keep. A failing seed is
// named; KLIO_POWER_LOSS_SEED runs it alone, KLIO_POWER_LOSS_SEEDS that many.
import { expect, test } from "vitest";
import { losePower } from "../../support/power-loss.ts";
import { seeds } from "../../support/random.ts";

const SEEDS = 1_000;

test("E1, E2, E3, E6, E7, P10: no power loss takes, changes or hides what was confirmed", {
  timeout: 600_000,
}, async () => {
  let [failures, completeFiles] = [0, 0];
  const run = seeds("KLIO_POWER_LOSS", SEEDS);
  for (const seed of run) {
    const result = await losePower(seed);
    failures += result.failures;
    completeFiles += result.completeFiles;
    expect(result.damaged, `seed ${seed}: an alarm for what no one lost`).toBe(0);
  }
  // The model does something.
  expect(failures).toBeGreaterThan(2 * run.length);
  expect(completeFiles).toBeGreaterThan(run.length / 2);
});

test.each(["write-through", "file-sync", "directory-sync"] as const)(
  "a disk that only pretends (%s) is found out",
  async (lie) => {
    const found: string[] = [];
    for (let seed = 1; seed <= 60; seed++)
      await losePower(seed, lie).catch((error: Error) => found.push(error.message));
    expect(found.length).toBeGreaterThan(0);
    expect(found[0]).toMatch(/^power loss, seed \d+: /);
  },
);
