// What a base backup and its relay tell: whole span trees against the committed ones, and what is counted.
import { expect, test } from "vitest";
import { fromPromise, toPromise } from "xstate";
import type { OffloadTask } from "../../../src/domain/offload-task.ts";
import { failure, ok } from "../../../src/domain/outcome.ts";
import { backupRelay } from "../../../src/machines/backup-relay.machine.ts";
import { settle } from "../../support/eventually.ts";
import { type BackupScript, corrupt, down, input, lost, scripted } from "../../support/scripted-backup.ts";
import { type RecordedTelemetry, recordedTelemetry, treeText } from "../../support/span-tree.ts";

const expectTree = (recorded: RecordedTelemetry, name: string) =>
  expect(treeText(recorded.tree())).toMatchFileSnapshot(`../../golden/spans/${name}.txt`);

/** Values of the backup metrics by their names without the prefix. */
async function backupValues(recorded: RecordedTelemetry): Promise<Record<string, number>> {
  const values = Object.entries(await recorded.values());
  return Object.fromEntries(
    values.flatMap(([name, value]) => (name.startsWith("klio.backup.") ? [[name.slice(12), value]] : [])),
  );
}

async function told(script: BackupScript, golden: string) {
  await using recorded = await recordedTelemetry("klio-plugin");
  const { machine } = scripted(script);
  const fast = { ...input, lookMs: 1, verifyWaitMs: 1 };
  await toPromise(recorded.telemetry.start(machine, { id: "baseBackup/main", input: fast }));
  await expectTree(recorded, golden);
  return backupValues(recorded);
}

const none = { running: 0, unverified: 0, successes: 0, failures: 0, verifications: 0, verification_failures: 0 };

test("a complete backup: three spans below one, and the metrics of a success", async () => {
  const values = await told({}, "backup-good");
  expect(values).toMatchObject({ ...none, successes: 1, verifications: 1, verification_coverage: 1 });
  expect(values.latest_completion_time).toBeGreaterThan(1_700_000_000);
  expect(values.latest_failure_time).toBeUndefined();
  expect(values.latest_duration_seconds).toBeGreaterThanOrEqual(0);
});

test("a failed copy: the run and the backup are red, and a failure is counted", async () => {
  const values = await told({ copyData: lost }, "backup-run-failed");
  expect(values).toMatchObject({ ...none, failures: 1 });
  expect(values.latest_completion_time).toBeUndefined();
  expect(values.latest_failure_time).toBeGreaterThan(1_700_000_000);
});

test("corruption: backup and backup_verify are red, backup_run is not", async () => {
  const values = await told({ verified: [corrupt] }, "backup-corrupt");
  expect(values).toMatchObject({ ...none, failures: 1, verifications: 1, verification_failures: 1 });
});

test("a verification that could not be made: events, no error, and no verdict is counted", async () => {
  const values = await told({ verified: [down] }, "backup-unverified");
  expect(values).toMatchObject({ ...none, successes: 1, unverified: 1 });
});

test("maintenance that fails: its own span is red and nothing else", async () => {
  const values = await told({ maintainBackups: down }, "backup-maintenance-failed");
  expect(values).toMatchObject({ ...none, successes: 1, verifications: 1 });
});

test("a cancelled backup is neither red nor counted", async () => {
  await using recorded = await recordedTelemetry("klio-plugin");
  const { machine } = scripted({ copyData: "hangs" });
  const actor = recorded.telemetry.start(machine, { id: "baseBackup/main", input });
  await settle(10);
  actor.send({ type: "shutdown.requested" });
  await toPromise(actor);
  await expectTree(recorded, "backup-cancelled");
  expect(await backupValues(recorded)).toMatchObject(none);
});

const task: OffloadTask = {
  id: 1,
  cluster: "main",
  name: "b1",
  bytes: 0,
  deliveries: 1,
  traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
  deadLetter: 0,
  spread: 0,
  backup: { sendToTier2: true },
};
const good = {
  chooseBackup: ok({ kind: "one", backup: "b1" }),
  verifySource: ok({ corrupt: [] }),
  copyBackup: ok({ bytes: 1 }),
  verifyCopy: ok({ corrupt: [] }),
  applyRetention: ok(undefined),
  unpinBackup: ok(undefined),
  maintainTier1: ok(undefined),
};
const away = failure("KLIO-S3-DOWN", "503 SlowDown");
type Answers = Partial<Record<keyof typeof good, unknown>>;

test.each<[string, Answers, Record<string, number>]>([
  ["relay-good", {}, { backup_verification_success: 1, relayed: 1 }],
  ["relay-copy-failed", { copyBackup: away }, {}],
  ["relay-corrupt", { verifyCopy: ok({ corrupt: ["base/1 is damaged"] }) }, { backup_verification_failure: 1 }],
  ["relay-verification-failed", { verifyCopy: away }, {}],
  ["relay-retention-failed", { applyRetention: away }, { backup_verification_success: 1 }],
])(
  "%s: linked to what asked for it, red where it failed, counted when there is a verdict",
  async (name, answers, counts) => {
    await using recorded = await recordedTelemetry("klio-server");
    const actors = Object.entries({ ...good, ...answers }).map(([key, value]) => [key, fromPromise(async () => value)]);
    const machine = backupRelay.provide({ actors: Object.fromEntries(actors) });
    await toPromise(recorded.telemetry.start(machine, { id: "backupRelay/1", input: { task } }));
    await expectTree(recorded, name);
    const values = Object.entries(await recorded.values()).flatMap(([key, value]) => {
      const [, short] = /^klio\.consumer\.(\w+)\{cluster_name=main\}$/.exec(key) ?? [];
      return short === undefined ? [] : [[short, value]];
    });
    expect(Object.fromEntries(values)).toEqual(counts);
  },
);
