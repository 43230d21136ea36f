// What the next process of a sidecar knows of a backup of this one, by the file between them.
import { join } from "node:path";
import { expect, test } from "vitest";
import type { ClientConfig } from "../../../src/config/config.ts";
import { openBackupHistory } from "../../../src/roles/backup-history.ts";
import { temporaryDirectory } from "../../support/temporary-directory.ts";
import { testLog } from "../../support/test-log.ts";

/** A process that has just started: its history, and what it told at once. */
async function started(path: string) {
  const told: Record<string, number> = {};
  const telemetry = {
    hydrate: (metric: string, _: object, value: number) => {
      told[metric.replace("klio.backup.", "")] = value;
    },
    clientInterceptors: () => [],
  };
  const config = { clusterName: "main" } as ClientConfig;
  return { told, history: await openBackupHistory(path, { config, env: {}, telemetry, log: testLog() }) };
}

test("a backup that stayed unverified is told by the next process, until one was verified", async () => {
  await using dir = await temporaryDirectory();
  const path = join(dir.path, "backups");
  const first = await started(path);
  expect(first.told).toEqual({ unverified: 0 });
  await first.history.during("b1", async () => ({ unverified: true }));
  const second = await started(path);
  expect(second.told).toMatchObject({ unverified: 1, latest_completion_time: expect.any(Number) });
  await expect(second.history.during("b2", () => Promise.reject(new Error("copy failed")))).rejects.toThrow();
  expect((await started(path)).told).toMatchObject({ unverified: 1, latest_failure_time: expect.any(Number) });
  await second.history.during("b3", async () => ({ unverified: false }));
  expect((await started(path)).told).toMatchObject({ unverified: 0 });
});
