// klio.base.* over a repository that is asked, and that tells of its changes.
import { expect, test } from "vitest";
import { ok } from "../../../src/domain/outcome.ts";
import type { StoredBackup } from "../../../src/domain/snapshots.ts";
import { watchBaseBackups } from "../../../src/roles/base-metrics.ts";
import type { Reading } from "../../../src/telemetry/instruments.ts";
import type { MetricName } from "../../../src/telemetry/names.ts";
import { backupOf } from "../../support/backups.ts";
import { settle } from "../../support/eventually.ts";
import { testLog } from "../../support/test-log.ts";

const backup: StoredBackup = {
  metadata: backupOf({ name: "b", clusterName: "a" }),
  snapshots: [
    {
      id: "1",
      user: "klio",
      cluster: "a",
      path: "/b",
      backup: "b",
      content: "pgdata",
      startTimeMs: 0,
      endTimeMs: 1,
      bytes: 1,
      files: 1,
      directories: 1,
      pins: [],
    },
  ],
};

function scene() {
  const readers = new Map<MetricName, () => Iterable<Reading>>();
  const stored: StoredBackup[] = [];
  let listings = 0;
  let tell: () => void = () => undefined;
  const watch = watchBaseBackups(
    {
      tier: "tier2",
      backups: async () => {
        listings += 1;
        return ok([...stored]);
      },
      onChanged: (watcher) => {
        tell = watcher;
        return () => undefined;
      },
    },
    {
      observe: (name, read) => {
        readers.set(name, read);
        return () => readers.delete(name);
      },
    },
    testLog(),
  );
  const snapshots = () => [...(readers.get("klio.base.snapshots")?.() ?? [])];
  return { watch, stored, snapshots, listings: () => listings, tell: () => tell() };
}

test("a backup that a change brings is told without waiting for the next round; what is gone is absent", async () => {
  const { watch, stored, snapshots, tell, listings } = scene();
  await using _ = watch;
  await settle();
  expect(snapshots()).toEqual([]);
  stored.push(backup);
  for (let i = 0; i < 5; i++) tell();
  await settle();
  expect(snapshots()).toMatchObject([{ value: 1, labels: { tier: "tier2" } }]);
  expect(listings()).toBe(2); // changes in one go are one listing
  stored.pop();
  watch.refresh();
  await settle();
  expect(snapshots()).toEqual([]);
});
