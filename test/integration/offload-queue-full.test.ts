import { execFileSync } from "node:child_process";
import { appendFileSync, mkdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { eventually } from "../support/eventually.ts";
import { type OffloadBench, offloadBench, wal } from "../support/offload-bench.ts";
import { temporaryDirectory } from "../support/temporary-directory.ts";

const quick = { probe: { firstMs: 50, limitMs: 200 }, delaysMs: [100] };

const isRoot = process.getuid?.() === 0;
const hasAll = (bench: OffloadBench, last: number) => async () => {
  const names = Array.from({ length: last }, (_, i) => wal(i + 1));
  return (await bench.names2("a")).join() === names.join();
};
/** Takes all the space there is. */
const fill = (file: string) =>
  expect(() => {
    for (;;) appendFileSync(file, Buffer.alloc(4_096));
  }).toThrow(/ENOSPC/);

async function onSmallVolume(body: (directory: string, volume: string) => Promise<void>): Promise<void> {
  await using directory = await temporaryDirectory();
  const volume = join(directory.path, "queue");
  mkdirSync(volume);
  execFileSync("mount", ["-t", "tmpfs", "-o", "size=16m", "tmpfs", volume]);
  try {
    await body(directory.path, volume);
  } finally {
    execFileSync("umount", ["-l", volume]);
  }
}

test.runIf(isRoot)("P4, P10: a full volume of the queue delays no storing; with space again all of it is relayed", () =>
  onSmallVolume(async (directory, volume) => {
    await using bench = await offloadBench(directory);
    const role = await bench.start({ limits: quick, reconcileMs: 1_000 });
    await bench.segment("a", wal(1));
    await eventually(async () => (await bench.names2("a")).includes(wal(1)));
    const filler = join(volume, "filler");
    fill(filler);
    for (let n = 2; n <= 60; n++) await bench.segment("a", wal(n));
    await eventually(() => bench.log.events().includes("queue.refusing"), { what: "the queue's refusal" });
    rmSync(filler);
    await eventually(hasAll(bench, 60), { timeoutMs: 90_000 });
    await eventually(() => role.frontier("a").at === wal(60), { timeoutMs: 30_000 });
    // What was settled while nobody could write it down is handed out once more after 30 s.
    await eventually(async () => (await role.admin.pending()).wal === 0, { timeoutMs: 60_000 });
    expect(await role.admin.failed("wal")).toEqual([]);
    const told = bench.log.lines.filter(({ event }) => event === "queue.full");
    expect(told.filter(({ level }) => level === "warn")).toHaveLength(1);
    expect(told[0]?.fields.code).toBe("KLIO-DISK-FULL");
  }),
);

test.runIf(isRoot)(
  "P4, P10: a start on a full volume, and a queue server that ends while it is full, delay no storing; then all is relayed",
  () =>
    onSmallVolume(async (directory, volume) => {
      await using bench = await offloadBench(directory);
      const first = await bench.start({ limits: quick });
      await bench.segment("a", wal(1));
      await eventually(hasAll(bench, 1));
      await first.stop();
      const filler = join(volume, "filler");
      fill(filler);
      const role = await bench.start({ limits: quick, reconcileMs: 1_000 });
      expect(bench.log.events()).toContain("queue.away");
      for (let n = 2; n <= 10; n++) await bench.segment("a", wal(n));
      const before = role.queuePid();
      process.kill(before, "SIGKILL");
      await eventually(() => role.queuePid() !== 0 && role.queuePid() !== before);
      rmSync(filler);
      await eventually(hasAll(bench, 10), { timeoutMs: 60_000 });
      await eventually(async () => (await role.admin.pending()).wal === 0, { timeoutMs: 60_000 });
    }),
  120_000,
);
