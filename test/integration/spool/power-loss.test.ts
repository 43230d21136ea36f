// What survives when the power goes: the real store on a disk that keeps only what it was made to keep. A failing seed is
// named; KLIO_POWER_LOSS_SEED runs it alone, KLIO_POWER_LOSS_SEEDS that many.
import { mkdir } from "node:fs/promises";
import { expect, test } from "vitest";
import { makeDirectory } from "../../../src/actors/spool/durable-file.ts";
import { attachDisk } from "../../support/attach-disk.ts";
import { MemoryDisk } from "../../support/memory-disk.ts";
import { losePower } from "../../support/power-loss.ts";
import { random, seeds } from "../../support/random.ts";

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

test("E1: a directory that somebody made and did not sync is durable when the next one has asked for it", async () => {
  let lost = 0;
  for (let seed = 1; seed <= 40; seed++) {
    for (const isAsked of [true, false]) {
      const disk = new MemoryDisk({ random: random(seed) });
      const root = `/klio-memory-directory-${seed}-${isAsked}`;
      using _ = attachDisk(root, disk);
      await mkdir(`${root}/cluster`);
      if (isAsked) await makeDirectory(`${root}/cluster`);
      const isThere = disk.powerReturns().find("/cluster") !== undefined;
      if (isAsked) expect(isThere, `seed ${seed}`).toBe(true);
      else if (!isThere) lost += 1;
    }
  }
  expect(lost).toBeGreaterThan(0); // the disk would have lost it
});
