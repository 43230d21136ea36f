// P8: the server is killed (-9) in each state of a backup's life. Whatever comes of the backup, sidecar and server tell the same
// afterwards, and it is the truth.
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { klio, tryKlio } from "../../../src/demo/klio-command.ts";
import { giveTo } from "../../../src/demo/run-as.ts";
import type { BackupMetadata } from "../../../src/domain/backup-metadata.ts";
import { backupStates } from "../../support/backup-states.ts";
import { eventually } from "../../support/eventually.ts";
import { openStage, type TestStage } from "../../support/stage.ts";

let place: TestStage;

beforeAll(async () => {
  place = await openStage({ version: 17 });
  const { postgres, runAs } = place.stage;
  const tablespace = join(place.directory, "tablespace");
  mkdirSync(tablespace);
  await giveTo(tablespace, runAs);
  await postgres.query(`create tablespace other location '${tablespace}'`);
  await postgres.query(
    "create table u tablespace other as select g, md5(g::text) as filler from generate_series(1, 100000) g",
  );
  expect((await place.backup("good")).code).toBe(0);
}, 120_000);
afterAll(() => place[Symbol.asyncDispose](), 60_000);

async function value(process: "server" | "sidecar", series: RegExp): Promise<number | undefined> {
  const line = (await place.page(process)).split("\n").find((text) => series.test(text));
  return line === undefined ? undefined : Number(line.split(" ").at(-1));
}
async function backupCounts() {
  const read = async (name: string) => (await value("sidecar", new RegExp(`^klio_backup_${name}\\{`))) ?? -1;
  return { running: await read("running"), ok: await read("successes_total"), failed: await read("failures_total") };
}
/** Both tiers and their repositories are served: what is listed is all there is. */
async function isReady(): Promise<boolean> {
  const { serverConsole } = place.stage.surroundings.ports;
  const response = await fetch(`http://127.0.0.1:${serverConsole}/readyz`);
  const parts = await response.text();
  return response.ok && !parts.includes('"ready":false');
}

async function stored(): Promise<string[]> {
  const { program, clientEnv: env, runAs, surroundings } = place.stage;
  const text = await klio({ program, env, runAs, args: ["backup", "list", "--config", surroundings.sidecarConfig] });
  return (JSON.parse(text) as BackupMetadata[]).map(({ name }) => name);
}

test.each(backupStates)(
  "server killed in %s: one end is counted, and the list, the sidecar and the server agree",
  async (state) => {
    const name = `server-killed-in-${state.replace(/\W/g, "-")}`;
    const { server } = place.stage;
    const pid = server.pid() ?? 0;
    const writtenBefore = (await value("server", /^klio_wal_latest_written_time_seconds\{/)) ?? 0;
    const before = await backupCounts();
    let isKilled = false;
    const { code, stderr } = await place.backup(name, [], {
      onLine(line) {
        if (isKilled || line.trim().split(":")[0] !== state) return;
        isKilled = true;
        process.kill(pid, "SIGKILL");
      },
    });
    expect(isKilled, `${state} was not seen: ${stderr}`).toBe(true);
    const isComplete = code === 0;
    expect(await backupCounts()).toEqual({
      running: 0,
      ok: before.ok + (isComplete ? 1 : 0),
      failed: before.failed + (isComplete ? 0 : 1),
    });
    await eventually(() => server.pid() !== undefined && server.pid() !== pid, { what: "a new server" });
    await eventually(isReady, { timeoutMs: 60_000, what: "the server, ready" });
    const listed = await stored();
    expect(listed.includes(name)).toBe(isComplete);
    await eventually(async () => (await value("server", /^klio_base_snapshots\{.*tier="tier1"/)) === listed.length, {
      timeoutMs: 30_000,
      what: `${listed.length} backups on the server's page`,
    });
    // Restored from the store before the first new file.
    expect(await value("server", /^klio_wal_latest_written_time_seconds\{/)).toBeGreaterThanOrEqual(
      Math.floor(writtenBefore),
    );
  },
  120_000,
);

test("a backup by the command itself goes well beside a sidecar that has the port for metrics", async () => {
  const { program, clientEnv, runAs, surroundings } = place.stage;
  const env = {
    ...clientEnv,
    OTEL_METRICS_EXPORTER: "prometheus",
    OTEL_TRACES_EXPORTER: "none",
    OTEL_EXPORTER_PROMETHEUS_PORT: String(surroundings.ports.sidecarMetrics),
  };
  await place.page("sidecar"); // it has the port
  const args = ["backup", "run", "--config", surroundings.sidecarConfig, "--name", "by-itself"];
  const { code, stderr } = await tryKlio({ program, env, runAs, args });
  expect([code, stderr]).toEqual([0, expect.not.stringContaining("in use")]);
  expect(await stored()).toContain("by-itself");
}, 60_000);

test("a list that lacks a tier is printed, and the command fails", async () => {
  const { program, clientEnv: env, runAs, surroundings, server } = place.stage;
  expect((await place.backup("on-both", ["--enable-tier2-backup"])).code).toBe(0);
  await eventually(async () => (await value("server", /^klio_base_snapshots\{.*tier="tier2"/)) === 1, {
    timeoutMs: 60_000,
    what: "a backup on tier 2",
  });
  await server.stop();
  await place.stage.startServer({ tier1: false, tier2: true });
  const args = ["backup", "list", "--config", surroundings.sidecarConfig];
  const { code, stdout, stderr } = await tryKlio({ program, env, runAs, args });
  expect([code, stderr]).toEqual([69, expect.stringContaining("backups of tier1 are not listed")]);
  expect((JSON.parse(stdout) as BackupMetadata[]).map(({ name }) => name)).toEqual(["on-both"]);
}, 120_000);
