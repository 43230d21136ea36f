import { execFileSync } from "node:child_process";
import { appendFileSync, mkdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { eventually } from "../support/eventually.ts";
import { offloadBench, wal } from "../support/offload-bench.ts";
import { temporaryDirectory } from "../support/temporary-directory.ts";

const quick = { probe: { firstMs: 50, limitMs: 200 }, delaysMs: [100] };

test.runIf(process.getuid?.() === 0)(
  "P4, P10: a full volume of the queue delays no storing; with space again all of it is relayed",
  async () => {
    await using directory = await temporaryDirectory();
    const volume = join(directory.path, "queue");
    mkdirSync(volume);
    execFileSync("mount", ["-t", "tmpfs", "-o", "size=16m", "tmpfs", volume]);
    try {
      await using bench = await offloadBench(directory.path);
      const role = await bench.start({ limits: quick, reconcileMs: 1_000 });
      await bench.segment("a", wal(1));
      await eventually(async () => (await bench.names2("a")).includes(wal(1)));
      const filler = join(volume, "filler");
      expect(() => {
        for (;;) appendFileSync(filler, Buffer.alloc(4_096));
      }).toThrow(/ENOSPC/);
      for (let n = 2; n <= 60; n++) await bench.segment("a", wal(n));
      await eventually(() => bench.log.events().includes("queue.refusing"), { what: "the queue's refusal" });
      rmSync(filler);
      const names = Array.from({ length: 60 }, (_, i) => wal(i + 1));
      await eventually(async () => (await bench.names2("a")).join() === names.join(), { timeoutMs: 90_000 });
      await eventually(() => role.frontier("a").at === wal(60), { timeoutMs: 30_000 });
      // What was settled while nobody could write it down is handed out once more after 30 s.
      await eventually(async () => (await role.admin.pending()).wal === 0, { timeoutMs: 60_000 });
      expect(await role.admin.failed("wal")).toEqual([]);
      const told = bench.log.lines.filter(({ event }) => event === "queue.full");
      expect(told.filter(({ level }) => level === "warn")).toHaveLength(1);
      expect(told[0]?.fields.code).toBe("KLIO-DISK-FULL");
    } finally {
      execFileSync("umount", ["-l", volume]);
    }
  },
);
