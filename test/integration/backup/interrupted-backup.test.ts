// P8: the sidecar is killed (-9) in each state of a backup's life; after the restart its metrics tell the truth.
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { klio } from "../../../src/demo/klio-command.ts";
import { giveTo } from "../../../src/demo/run-as.ts";
import type { Stage } from "../../../src/demo/stage.ts";
import type { BackupMetadata } from "../../../src/domain/backup-metadata.ts";
import { backupStates } from "../../support/backup-states.ts";
import { eventually } from "../../support/eventually.ts";
import { openStage, type TestStage } from "../../support/stage.ts";

let place: TestStage;
let stage: Stage;

beforeAll(async () => {
  place = await openStage({});
  stage = place.stage;
  const tablespace = join(place.directory, "tablespace");
  mkdirSync(tablespace);
  await giveTo(tablespace, stage.runAs);
  await stage.postgres.query(`create tablespace other location '${tablespace}'`);
  await stage.postgres.query(
    "create table u tablespace other as select g, md5(g::text) as filler from generate_series(1, 100000) g",
  );
}, 120_000);
afterAll(() => place[Symbol.asyncDispose](), 60_000);

/** Values of the sidecar's backup metrics, by their names without the prefix; undefined while nobody answers. */
async function scrape(): Promise<Record<string, number> | undefined> {
  try {
    const lines = (await place.page("sidecar")).split("\n");
    const rows = lines.flatMap((line) => {
      const row = /^klio_backup_(\w+)\{[^}]*\} (\S+)/.exec(line);
      return row?.[1] === undefined ? [] : [[row[1], Number(row[2])] as const];
    });
    return Object.fromEntries(rows);
  } catch {
    return undefined; // it is being started again
  }
}

async function stored(): Promise<string[]> {
  const { program, clientEnv: env, runAs, surroundings } = stage;
  const text = await klio({ program, env, runAs, args: ["backup", "list", "--config", surroundings.sidecarConfig] });
  return (JSON.parse(text) as BackupMetadata[]).map(({ name }) => name);
}

/** The metrics of the next process, once it has read what the last one remembered. */
async function restarted(pid: number): Promise<Record<string, number>> {
  await eventually(() => stage.sidecar.pid() !== undefined && stage.sidecar.pid() !== pid, { what: "a new sidecar" });
  return eventually(
    async () => {
      const values = await scrape();
      return values?.latest_start_time_seconds === undefined ? undefined : values;
    },
    { timeoutMs: 60_000, what: "metrics of the new sidecar" },
  );
}

/** After these a next backup is taken: in the midst of the copy, and when all was stored. */
const followed: readonly string[] = ["running.copyingData", "maintaining.working"];

test("a good backup, then a restart: times are restored, counters begin at 0", async () => {
  expect((await place.backup("good")).code).toBe(0);
  const before = await scrape();
  expect(before).toMatchObject({ running: 0, successes_total: 1, failures_total: 0 });
  const pid = stage.sidecar.pid() ?? 0;
  process.kill(pid, "SIGKILL");
  const after = await restarted(pid);
  expect(after).toMatchObject({ running: 0, successes_total: 0, failures_total: 0, verifications_total: 0 });
  for (const name of ["latest_start_time_seconds", "latest_completion_time_seconds", "latest_duration_seconds"])
    expect(Math.abs((after[name] ?? 0) - (before?.[name] ?? -9)), name).toBeLessThan(2);
  expect(after).not.toHaveProperty("latest_failure_time_seconds");
}, 60_000);

test.each(backupStates)(
  "killed in %s: one failure, nothing running, nothing half is listed",
  async (state) => {
    const name = `killed-in-${state.replace(/\W/g, "-")}`;
    const pid = stage.sidecar.pid() ?? 0;
    const startedAt = Math.floor(Date.now() / 1000);
    let isKilled = false;
    const result = await place.backup(name, [], {
      onLine(line) {
        if (isKilled || line.trim().split(":")[0] !== state) return;
        isKilled = true;
        process.kill(pid, "SIGKILL");
      },
    });
    expect(isKilled, `${state} was not seen`).toBe(true);
    expect(result.code).toBe(69);
    const after = await restarted(pid);
    expect(after).toMatchObject({ running: 0, successes_total: 0, failures_total: 1 });
    expect(after.latest_failure_time_seconds).toBeGreaterThanOrEqual(startedAt);
    expect(after.latest_start_time_seconds).toBeGreaterThanOrEqual(startedAt);
    // What became whole before the end stays; nothing else is ever listed.
    const listed = await stored();
    if (!/awaitingWal|storingManifest|verifying|maintaining/.test(state)) expect(listed).not.toContain(name);
    if (!followed.includes(state)) return;
    expect((await place.backup(`after-${name}`)).code).toBe(0);
    expect(await scrape()).toMatchObject({ running: 0, successes_total: 1, failures_total: 1 });
  },
  90_000,
);

test("the server's exposure is 0 while the sidecar streams, grows while it is away, and is 0 again when it is back", async () => {
  const exposure = async (tier: string) => {
    const row = new RegExp(`^klio_wal_exposure_seconds\\{[^}]*tier="${tier}"\\} (\\S+)`, "m").exec(
      await place.page("server"),
    );
    return row?.[1] === undefined ? undefined : Number(row[1]);
  };
  await eventually(async () => (await exposure("tier1")) === 0, { what: "no exposure of tier 1" });
  await eventually(async () => ((await exposure("tier2")) ?? -1) >= 0, { what: "the exposure of tier 2" });
  await stage.sidecar.stop();
  await eventually(async () => ((await exposure("tier1")) ?? 0) > 15, { timeoutMs: 40_000, what: "an exposure" });
  await stage.sidecar.start();
  await eventually(async () => (await exposure("tier1")) === 0, { timeoutMs: 40_000, what: "no exposure again" });
}, 120_000);
