// P7, P3: base backups of a real PostgreSQL to a real server: what is stored, what PostgreSQL sees of it, and what a fault leaves.
import { spawn } from "node:child_process";
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { checkDataDirectory } from "../../../src/actors/backup/data-directory.ts";
import { resolveClientConfig } from "../../../src/config/resolve.ts";
import { klio, tryKlio } from "../../../src/demo/klio-command.ts";
import { createNarrator } from "../../../src/demo/narrator.ts";
import { giveTo } from "../../../src/demo/run-as.ts";
import { type Stage, setStage } from "../../../src/demo/stage.ts";
import { type BackupMetadata, parseBackupMetadata } from "../../../src/domain/backup-metadata.ts";
import { KlioError } from "../../../src/errors.ts";
import { type BaseBackupOptions, runBaseBackup } from "../../../src/roles/backup.ts";
import { noTelemetry } from "../../../src/telemetry/telemetry.ts";
import { eventually } from "../../support/eventually.ts";
import { temporaryDirectory } from "../../support/temporary-directory.ts";
import { testLog } from "../../support/test-log.ts";

const stack = new AsyncDisposableStack();
let stage: Stage;
let tablespace: string;

beforeAll(async () => {
  const dir = stack.use(await temporaryDirectory());
  stage = await setStage({
    directory: dir.path,
    version: 17,
    env: process.env,
    narrator: createNarrator(process.stderr),
    stack,
    usualPorts: false,
  });
  tablespace = join(dir.path, "fast disk");
  mkdirSync(tablespace);
  await giveTo(tablespace, stage.runAs);
  await stage.postgres.query(`create tablespace fast location '${tablespace}'`);
  await stage.postgres.query(
    "create table t tablespace fast as select g, repeat('x', 500) as filler from generate_series(1, 20000) g",
  );
  await stage.postgres.query("create table u as select g, md5(g::text) as filler from generate_series(1, 200000) g");
}, 120_000);

afterAll(() => stack.disposeAsync(), 60_000);

function backup(name: string, more: Partial<BaseBackupOptions> = {}) {
  const text = readFileSync(stage.surroundings.sidecarConfig, "utf8");
  const { config } = resolveClientConfig(text, {}, ["source", "base", "wal"], "the sidecar's file");
  return runBaseBackup({
    config,
    env: { ...process.env, ...stage.clientEnv, TMPDIR: stage.surroundings.directory },
    telemetry: noTelemetry(),
    log: testLog(),
    signal: new AbortController().signal,
    name,
    sendToTier2: false,
    waitForWals: true,
    ...more,
  });
}

const config = () => ["--config", stage.surroundings.sidecarConfig];
const command = () => ({ program: stage.program, env: stage.clientEnv, runAs: stage.runAs });
const cli = (...args: string[]) => klio({ ...command(), args: ["backup", ...args, ...config()] });
const names = async () => (JSON.parse(await cli("list")) as BackupMetadata[]).map(({ name }) => name);
const sessions = async () =>
  (await stage.postgres.query("select pid from pg_stat_activity where application_name = 'klio-backup'")).length;

/** What lies in the data directory, but for what PostgreSQL itself makes and removes while it runs. */
const filesOf = (directory: string) =>
  readdirSync(directory, { recursive: true, encoding: "utf8" })
    .filter((path) => !/^(pg_wal|pg_stat|pg_stat_tmp|pg_replslot|pg_subtrans|pg_xact|base|log)\//.test(path))
    .sort();

async function failureOf(running: Promise<unknown>): Promise<KlioError> {
  try {
    await running;
  } catch (error) {
    if (error instanceof KlioError) return error;
    throw error;
  }
  throw new Error("it did not fail");
}

test("a backup with a tablespace: metadata, list, get-metadata, and not a trace in the data directory (P7)", async () => {
  const { dataDirectory } = stage.postgres;
  const before = filesOf(dataDirectory);
  const states: string[] = [];
  const { metadata } = await backup("first", {
    onProgress: ({ state }) => {
      if (states.at(-1) !== state) states.push(state);
    },
  });
  expect(filesOf(dataDirectory)).toEqual(before);
  expect(await sessions()).toBe(0);
  expect(states).toEqual([
    "running.starting",
    "running.copyingTablespaces",
    "running.copyingData",
    "running.copyingControlFile",
    "running.stopping",
    "running.storingManifest",
    "running.awaitingWal.closing",
    ...states
      .filter((state) => state === "running.awaitingWal.waiting")
      .flatMap((state) => [state, "running.awaitingWal.closing"]),
    "verifying.reading",
    "maintaining.working",
    "completed",
  ]);
  const [row] = await stage.postgres.query(
    "select oid::int8::int as oid, (select system_identifier::text from pg_control_system()) as id, extract(epoch from now())::float as now from pg_tablespace where spcname = 'fast'",
  );
  expect(metadata).toMatchObject({
    name: "first",
    clusterName: "demo",
    systemId: row?.id,
    tli: 1,
    segmentSize: 16 << 20,
    pgData: dataDirectory,
    pgVersion: expect.any(Number),
    tablespaces: [{ name: "fast", oid: row?.oid, path: tablespace }],
    tablespaceMap: `${row?.oid} ${tablespace}\n`,
    backupLabel: expect.stringMatching(/^START WAL LOCATION: .*\nCHECKPOINT LOCATION: .*\n[\s\S]*LABEL: first\n/),
  });
  expect(Math.trunc(metadata.pgVersion / 10_000)).toBe(17);
  expect(BigInt(metadata.endLsn)).toBeGreaterThan(BigInt(metadata.startLsn));
  expect(metadata.startWal <= metadata.endWal).toBe(true);
  expect(Math.abs(Number(row?.now) - metadata.stoppedAt)).toBeLessThan(60);
  expect(await names()).toEqual(["first"]);
  const read = parseBackupMetadata(await cli("get-metadata", "first"));
  expect(read).toEqual({ ...metadata, annotations: { "klio.io/tier1": "present" } });
}, 60_000);

test("KLIO-USAGE: a name that is taken or that is none, before PostgreSQL is touched", async () => {
  expect(await failureOf(backup("first"))).toMatchObject({
    code: "KLIO-USAGE",
    message: "backup first failed: there is a backup first already",
  });
  expect(await failureOf(backup("../etc"))).toMatchObject({ code: "KLIO-USAGE" });
  const named = await tryKlio({ ...command(), args: ["backup", "run", ...config(), "--name", "a b"] });
  expect([named.code, named.stderr]).toEqual([64, expect.stringContaining('not a name for a backup: "a b"')]);
});

test("KLIO-BACKUP-RUNNING: a second backup of the instance is refused and the first goes on", async () => {
  let second: Promise<KlioError> | undefined;
  const first = backup("one-of-two", {
    onProgress: ({ state }) => {
      if (state === "running.copyingData") second ??= failureOf(backup("two-of-two"));
    },
  });
  expect((await first).metadata.name).toBe("one-of-two");
  expect(await second).toMatchObject({ code: "KLIO-BACKUP-RUNNING", exit: 75 });
  expect(await names()).toEqual(["first", "one-of-two"]);
}, 60_000);

test("KLIO-SOURCE-DOWN: a session that is lost while copying ends the backup at once, and nothing of it is listed", async () => {
  let cut = false;
  const error = await failureOf(
    backup("cut-off", {
      onProgress({ state }) {
        if (cut || state !== "running.copyingData") return;
        cut = true;
        void stage.postgres.query(
          "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'klio-backup'",
        );
      },
    }),
  );
  expect(error).toMatchObject({ code: "KLIO-SOURCE-DOWN", exit: 68 });
  expect(await names()).not.toContain("cut-off");
}, 60_000);

test("KLIO-CANCELLED: a cancelled backup leaves backup mode and nothing that is listed", async () => {
  const stop = new AbortController();
  const error = await failureOf(
    backup("cancelled", {
      signal: stop.signal,
      onProgress({ state }) {
        if (state === "running.copyingData") stop.abort();
      },
    }),
  );
  expect(error).toMatchObject({ code: "KLIO-CANCELLED", exit: 75 });
  expect(await sessions()).toBe(0);
  expect(await names()).not.toContain("cancelled");
}, 60_000);

test("P7: a backup that is killed (-9) leaves PostgreSQL out of backup mode, and the next one is whole", async () => {
  const { node, main } = stage.program;
  const child = spawn(node, [main, "backup", "run", "--name", "killed", ...config()], {
    env: stage.clientEnv,
    stdio: ["ignore", "ignore", "pipe"],
    ...stage.runAs,
  });
  let said = "";
  child.stderr.on("data", (chunk: Buffer) => {
    said += chunk.toString();
    if (said.includes("running.copyingData")) child.kill("SIGKILL");
  });
  const { promise: ended, resolve } = Promise.withResolvers<string | null>();
  child.on("exit", (_, signal) => resolve(signal));
  expect(await ended).toBe("SIGKILL");
  await eventually(async () => (await sessions()) === 0, { what: "the end of the killed backup's session" });
  expect(existsSync(join(stage.postgres.dataDirectory, "backup_label"))).toBe(false);
  expect(await names()).not.toContain("killed");
  const text = await cli("run", "--name", "after-the-kill");
  expect(parseBackupMetadata(text).name).toBe("after-the-kill");
}, 60_000);

test("the sidecar takes a backup on request and refuses a second one meanwhile", async () => {
  const run = (name: string) =>
    tryKlio({ ...command(), args: ["backup", "run", "--socket", stage.surroundings.sidecarSocket, "--name", name] });
  const both = await Promise.all([run("asked"), run("asked-too")]);
  const [won, refused] = both.toSorted((a, b) => (a.code ?? 99) - (b.code ?? 99));
  expect([won?.code, refused?.code]).toEqual([0, 75]);
  expect(refused?.stderr).toContain("a backup of this cluster is running");
  const nobody = await tryKlio({ ...command(), args: ["backup", "run", "--socket", "/nowhere/sidecar.sock"] });
  expect([nobody.code, nobody.stderr]).toEqual([69, expect.stringContaining("no answer on /nowhere/sidecar.sock")]);
}, 60_000);

test("KLIO-BACKUP-FAILED: a data directory that is not here, or another PostgreSQL's, is refused", async () => {
  await using dir = await temporaryDirectory();
  const missing = await checkDataDirectory(join(dir.path, "nothing"), "7");
  expect(missing).toMatchObject({
    kind: "fatal",
    code: "KLIO-BACKUP-FAILED",
    reason: expect.stringContaining("ENOENT"),
  });
  mkdirSync(join(dir.path, "global"));
  writeFileSync(join(dir.path, "global", "pg_control"), Buffer.from([1, 0, 0, 0, 0, 0, 0, 0, 9]));
  expect(await checkDataDirectory(dir.path, "1")).toEqual({ kind: "ok", value: null });
  expect(await checkDataDirectory(dir.path, "2")).toMatchObject({
    reason: expect.stringContaining("of database system 1"),
  });
});

test("KLIO-BACKUP-UNKNOWN, KLIO-BACKUP-CORRUPT: verify tells sound, unknown and damaged apart; delete takes one off the list", async () => {
  const verify = (...args: string[]) =>
    tryKlio({ ...command(), args: ["backup", "verify", ...args, "--tiers", "tier1", ...config()] });
  const sound = await verify("after-the-kill");
  expect([sound.code, sound.stdout]).toEqual([0, "after-the-kill on tier1: sound, 100 % of its files were read\n"]);
  const unknown = await verify("nobody");
  expect([unknown.code, unknown.stderr]).toEqual([69, expect.stringContaining("not stored on tier1: nobody")]);
  expect((await verify()).code).toBe(64);

  await cli("delete", "one-of-two");
  expect(await names()).not.toContain("one-of-two");
  const again = await tryKlio({ ...command(), args: ["backup", "delete", "one-of-two", ...config()] });
  expect(again.code).toBe(69);

  const repository = join(stage.surroundings.directory, "server", "data", "base");
  const packs = readdirSync(repository, { recursive: true, encoding: "utf8" }).filter(
    (path) => /^p/.test(path) && /\.f$/.test(path),
  );
  expect(packs.length).toBeGreaterThan(0);
  for (const path of packs) {
    const bytes = readFileSync(join(repository, path));
    // Everywhere, so that whatever the next backup finds stored already is damaged, too.
    for (let at = 20; at < bytes.length; at += 40) bytes[at] = (bytes[at] ?? 0) ^ 0xff;
    writeFileSync(join(repository, path), bytes);
  }
  const damaged = await verify("--all", "--json");
  expect(damaged.code).toBe(65);
  const verdicts = damaged.stdout
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line) as { backup: string; damage: string[] });
  expect(verdicts.some(({ damage }) => damage.length > 0)).toBe(true);
  expect(damaged.stderr).toContain("damaged:");

  const fresh = await failureOf(backup("on-damaged-ground"));
  expect(fresh).toMatchObject({ code: "KLIO-BACKUP-CORRUPT", exit: 65 });
  expect(await names()).not.toContain("on-damaged-ground");
}, 60_000);
