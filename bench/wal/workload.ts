// WAL of three kinds, each kept by a slot so that it can be received again and again.
import { execFileSync } from "node:child_process";
import type { WalBench } from "./stage.ts";

type Kind = "copy" | "fpi" | "rec";
export type Range = { kind: Kind; slot: string; start: string; end: string; bytes: number };

export function run(command: string, args: readonly string[]): string {
  return execFileSync(command, args, { encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] });
}

/** Fills the database and keeps the WAL of it: COPY and index build, full page images, records only. About `bytes` each. */
export async function makeWal(bench: WalBench, bytes: number): Promise<Range[]> {
  const { postgres } = bench;
  const scale = Math.max(1, Math.round(bytes / (15 << 20)));
  const makers: Record<Kind, () => Promise<unknown>> = {
    copy: async () => run("pgbench", ["-i", "-q", "-s", String(scale), postgres.dsn]),
    // Each page is changed once after a checkpoint: its image goes into the WAL.
    fpi: async () => {
      await bench.session.query("checkpoint");
      await bench.session.query("update pgbench_accounts set abalance = abalance + 1 where aid % 61 = 1");
    },
    rec: async () => {
      await postgres.query("alter system set full_page_writes = off");
      await postgres.query("select pg_reload_conf()");
      await bench.until("select current_setting('full_page_writes') = 'off'");
      await bench.session.query("update pgbench_accounts set abalance = abalance + 1 where aid % 2 = 0");
      await postgres.query("alter system reset full_page_writes");
      await postgres.query("select pg_reload_conf()");
      await bench.until("select current_setting('full_page_writes') = 'on'");
    },
  };
  const ranges: Range[] = [];
  for (const kind of ["copy", "fpi", "rec"] as const) {
    const slot = `base_${kind}`;
    await bench.session.query("checkpoint");
    await bench.session.query("select pg_switch_wal()");
    await bench.session.query(`select pg_create_physical_replication_slot('${slot}', true)`);
    const start = await bench.value(`select restart_lsn from pg_replication_slots where slot_name = '${slot}'`);
    await makers[kind]();
    const end = await bench.value("select pg_current_wal_flush_lsn()");
    await bench.session.query("select pg_switch_wal()");
    ranges.push({ kind, slot, start, end, bytes: Number(await bench.value(`select '${end}'::pg_lsn - '${start}'`)) });
  }
  return ranges;
}
