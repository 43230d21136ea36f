// How fast a restore replays when get-wal feeds it, beside cp from a local archive. PostgreSQL itself says how long its redo
// took, waits for files included.
import { chmodSync, cpSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { preparePostgres } from "../../src/demo/local-postgres.ts";
import { giveTo } from "../../src/demo/run-as.ts";
import type { Figure } from "../run.ts";
import { median, spread } from "../statistics.ts";
import { COPY_SETTINGS, type WalBench } from "./stage.ts";

export const FEED_CLUSTER = "feed";
const SLOTS = { tool: "feed_tool", klio: "feed_klio" };

/** A copy of the data directory as a base backup makes it. */
async function copyBase(bench: WalBench, directory: string): Promise<void> {
  await bench.session.query("select pg_backup_start('bench', true)");
  cpSync(bench.postgres.dataDirectory, directory, {
    recursive: true,
    filter: (path) => !path.endsWith("postmaster.pid") && !/pg_wal\/.+/.test(path) && !/pg_replslot\/.+/.test(path),
  });
  const { rows } = await bench.session.query<{ labelfile: string }>("select labelfile from pg_backup_stop(false)");
  writeFileSync(join(directory, "backup_label"), rows[0]?.labelfile ?? "");
  writeFileSync(join(directory, "recovery.signal"), "");
}

/** Seconds of redo. */
async function replay(bench: WalBench, base: string, target: string, restoreCommand: string): Promise<number> {
  const directory = join(bench.directory, "replay");
  mkdirSync(directory);
  cpSync(base, join(directory, "data"), { recursive: true });
  chmodSync(join(directory, "data"), 0o700);
  const postgres = await preparePostgres({
    directory,
    version: bench.postgres.version,
    existing: true,
    settings: {
      ...COPY_SETTINGS,
      restore_command: restoreCommand,
      recovery_target_lsn: target,
      recovery_target_action: "promote",
    },
  });
  await postgres.start();
  while ((await postgres.query("select pg_is_in_recovery() as r"))[0]?.r === true)
    await new Promise((resolve) => setTimeout(resolve, 20));
  await postgres.stop("immediate");
  const seconds = /redo done at .* elapsed: ([\d.]+) s/.exec(readFileSync(postgres.logFile, "utf8"))?.[1];
  if (seconds === undefined) throw new Error(`no redo in ${postgres.logFile}`);
  rmSync(directory, { recursive: true, force: true });
  return Number(seconds);
}

export async function benchFeed(bench: WalBench, rounds: number): Promise<Figure[]> {
  for (const slot of Object.values(SLOTS))
    await bench.session.query(`select pg_create_physical_replication_slot('${slot}', true)`);
  const base = join(bench.directory, "base");
  await copyBase(bench, base);
  const archive = join(bench.directory, "archive");
  const receivers = [bench.receivewal(archive, SLOTS.tool), await bench.sidecar(FEED_CLUSTER, SLOTS.klio)];
  const start = await bench.value("select pg_current_wal_lsn()");
  await bench.session.query("update pgbench_accounts set abalance = abalance + 1 where aid % 3 = 0");
  const end = await bench.value("select pg_current_wal_flush_lsn()");
  await bench.session.query("select pg_switch_wal()");
  await bench.session.query("checkpoint");
  for (const slot of Object.values(SLOTS))
    await bench.until(
      `select coalesce(bool_or(r.flush_lsn > '${end}'), false) from pg_replication_slots s
       join pg_stat_replication r on r.pid = s.active_pid where s.slot_name = '${slot}'`,
    );
  for (const receiver of receivers) await receiver.stop();
  for (const name of readdirSync(archive))
    if (name.endsWith(".partial")) renameSync(join(archive, name), join(archive, name.replace(".partial", "")));
  const config = bench.clientConfig(FEED_CLUSTER, SLOTS.klio);
  for (const path of [archive, base, config, join(bench.directory, "tls")]) await giveTo(path, bench.postgres.runAs);
  const commands = {
    cp: `cp ${archive}/%f %p`,
    // As `klio restore --configure` writes it.
    klio: `mv pg_wal/.klio-spool/%f %p 2>/dev/null || ${bench.klio("get-wal", "%f", "%p", "--config", config).join(" ")}`,
  };
  const taken = { cp: [] as number[], klio: [] as number[] };
  for (let round = 0; round < rounds; round++)
    for (const which of round % 2 === 0 ? (["cp", "klio"] as const) : (["klio", "cp"] as const))
      taken[which].push(await replay(bench, base, end, commands[which]));
  const more = taken.klio.map((seconds, n) => (seconds / (taken.cp[n] ?? Number.NaN) - 1) * 100);
  const segments = Number(await bench.value(`select ('${end}'::pg_lsn - '${start}'::pg_lsn) / (16 * 1024 * 1024)`));
  return [
    { name: "replay: segments", value: segments, unit: "" },
    { name: "replay, fed by cp", value: median(taken.cp), unit: "s" },
    { name: "replay, fed by klio get-wal", value: median(taken.klio), unit: "s" },
    { name: "replay: more than with cp", value: median(more), unit: `% ${spread(more)}`, bound: 10 },
  ];
}
