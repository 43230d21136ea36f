// Latency of commits that wait for a synchronous standby: none, pg_receivewal, Klio, in turns.
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import type { Figure } from "../run.ts";
import { median, quantile, spread } from "../statistics.ts";
import type { Receiver, WalBench } from "./stage.ts";
import { run } from "./workload.ts";

type Mode = "none" | "pg_receivewal" | "klio";
export type Latency = { p50: number; p95: number; p99: number; tps: number };

const CLIENTS = [1, 4, 16];
export const COMMIT_CLUSTER = "commit";

/** Milliseconds from pgbench's log of every transaction. */
export function measureCommits(bench: WalBench, clients: number, seconds: number): Latency {
  const directory = mkdtempSync(join(bench.directory, "pgbench-"));
  const prefix = join(directory, "log");
  const args = ["-n", "-N", "-M", "prepared", "-c", String(clients), "-j", "1", "-T", String(seconds)];
  run("pgbench", [...args, "-l", "--log-prefix", prefix, bench.postgres.dsn]);
  const times = readdirSync(directory).flatMap((name) =>
    readFileSync(join(directory, name), "utf8")
      .trim()
      .split("\n")
      .map((line) => Number(line.split(" ")[2]) / 1000),
  );
  rmSync(directory, { recursive: true, force: true });
  return {
    p50: median(times),
    p95: quantile(times, 0.95),
    p99: quantile(times, 0.99),
    tps: times.length / seconds,
  };
}

export async function standby(bench: WalBench, name: string): Promise<void> {
  await bench.postgres.query(`alter system set synchronous_standby_names = '${name}'`);
  await bench.postgres.query("select pg_reload_conf()");
  await bench.until(`select current_setting('synchronous_standby_names') = '${name}'`);
  if (name === "") return;
  await bench.until(
    `select coalesce(bool_or(sync_state = 'sync' and flush_lsn >= pg_current_wal_flush_lsn()), false)
     from pg_stat_replication where application_name = '${name}'`,
  );
}

export async function benchCommits(bench: WalBench, rounds: number, seconds: number): Promise<Figure[]> {
  const taken = new Map<string, Latency[]>();
  for (const slot of ["commit_tool", "commit_klio"])
    await bench.session.query(`select pg_create_physical_replication_slot('${slot}', true)`);
  const receivers: Record<Mode, () => Promise<Receiver | undefined>> = {
    none: async () => undefined,
    pg_receivewal: async () => bench.receivewal(join(bench.directory, "received"), "commit_tool"),
    klio: async () => bench.sidecar(COMMIT_CLUSTER, "commit_klio"),
  };
  const names: Record<Mode, string> = { none: "", pg_receivewal: "pg_receivewal", klio: "klio" };
  for (let round = 0; round < rounds; round++) {
    const modes: Mode[] = ["none", "pg_receivewal", "klio"];
    for (let turn = 0; turn < round % 3; turn++) modes.push(modes.shift()!);
    for (const mode of modes) {
      const receiver = await receivers[mode]();
      await standby(bench, names[mode]);
      measureCommits(bench, 4, 2); // warms up
      for (const clients of CLIENTS) {
        const key = `${mode} ${clients}`;
        taken.set(key, [...(taken.get(key) ?? []), measureCommits(bench, clients, seconds)]);
      }
      await standby(bench, "");
      await receiver?.stop();
    }
  }
  for (const slot of ["commit_tool", "commit_klio"]) {
    await bench.until(`select not active from pg_replication_slots where slot_name = '${slot}'`);
    await bench.session.query(`select pg_drop_replication_slot('${slot}')`);
  }
  const figures: Figure[] = [];
  for (const clients of CLIENTS) {
    const of = (mode: Mode) => taken.get(`${mode} ${clients}`) ?? [];
    for (const mode of ["none", "pg_receivewal", "klio"] as const)
      for (const what of ["p50", "p95", "p99"] as const)
        figures.push({
          name: `commit, ${clients} clients, ${mode}: ${what}`,
          value: median(of(mode).map((latency) => latency[what])),
          unit: "ms",
        });
    for (const [what, bound] of [["p50", clients === 1 ? 1.8 : 2] as const, ["p99", 3] as const]) {
      const ratios = of("klio").map((latency, n) => latency[what] / of("pg_receivewal")[n]![what]);
      figures.push({
        name: `commit, ${clients} clients: ${what}, Klio / pg_receivewal`,
        value: median(ratios),
        unit: `x ${spread(ratios)}`,
        ...(clients === 4 && what === "p50" ? {} : { bound }),
      });
    }
  }
  return figures;
}
