// Bulk ingest: WAL that lies ready, received by pg_receivewal --synchronous and by Klio in turns.
import { rmSync } from "node:fs";
import { join } from "node:path";
import type { Figure } from "../run.ts";
import { median, spread } from "../statistics.ts";
import { forgetPeak, usageOf, type WalBench } from "./stage.ts";
import type { Range } from "./workload.ts";

type Run = { mibPerSecond: number; cpuPerGiB: number; sidecarCpu: number; serverCpu: number; peaks: number[] };

/** Time from the start of the walsender until everything up to `range.end` is confirmed as flushed. */
async function received(bench: WalBench, slot: string, end: string): Promise<number> {
  for (;;) {
    const { rows } = await bench.session.query<{ seconds: string; done: boolean }>(
      `select extract(epoch from clock_timestamp() - a.backend_start) as seconds, r.flush_lsn >= '${end}' as done
       from pg_replication_slots s join pg_stat_replication r on r.pid = s.active_pid
       join pg_stat_activity a on a.pid = r.pid where s.slot_name = '${slot}'`,
    );
    const [row] = rows;
    if (row?.done === true) return Number(row.seconds);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

async function freshSlot(bench: WalBench, range: Range, slot: string): Promise<void> {
  await bench.session.query(`select pg_copy_physical_replication_slot('${range.slot}', '${slot}')`);
}

async function dropSlot(bench: WalBench, slot: string): Promise<void> {
  await bench.until(`select not active from pg_replication_slots where slot_name = '${slot}'`);
  await bench.session.query(`select pg_drop_replication_slot('${slot}')`);
}

const started = (bench: WalBench, slot: string) =>
  bench.until(`select active from pg_replication_slots where slot_name = '${slot}'`, 2);

async function receiveByTool(bench: WalBench, range: Range): Promise<Run> {
  const slot = "round_tool";
  await freshSlot(bench, range, slot);
  const receiver = bench.receivewal(join(bench.directory, "received"), slot);
  const seconds = await received(bench, slot, range.end);
  const { cpuSeconds, peakMiB } = usageOf(receiver.pid);
  await receiver.stop();
  await dropSlot(bench, slot);
  rmSync(join(bench.directory, "received"), { recursive: true, force: true });
  const gib = range.bytes / 2 ** 30;
  return {
    mibPerSecond: (gib * 1024) / seconds,
    cpuPerGiB: cpuSeconds / gib,
    sidecarCpu: cpuSeconds / gib,
    serverCpu: 0,
    peaks: [peakMiB],
  };
}

/** `cluster` must be new to the server. */
export async function receiveByKlio(bench: WalBench, range: Range, cluster: string, address?: string): Promise<Run> {
  const slot = "round_klio";
  await freshSlot(bench, range, slot);
  const server = bench.serverPid;
  forgetPeak(server);
  const receiver = await bench.sidecar(cluster, slot, address);
  await started(bench, slot);
  const before = { sidecar: usageOf(receiver.pid).cpuSeconds, server: usageOf(server).cpuSeconds };
  const seconds = await received(bench, slot, range.end);
  const [sidecar, own] = [usageOf(receiver.pid), usageOf(server)];
  await receiver.stop();
  await dropSlot(bench, slot);
  rmSync(join(bench.walDirectory, cluster), { recursive: true, force: true });
  const gib = range.bytes / 2 ** 30;
  const sidecarCpu = (sidecar.cpuSeconds - before.sidecar) / gib;
  const serverCpu = (own.cpuSeconds - before.server) / gib;
  return {
    mibPerSecond: (gib * 1024) / seconds,
    cpuPerGiB: sidecarCpu + serverCpu,
    sidecarCpu,
    serverCpu,
    peaks: [sidecar.peakMiB, own.peakMiB],
  };
}

export const bulkClusters = (rounds: number) =>
  ["copy", "fpi", "rec"].flatMap((kind) => Array.from({ length: rounds }, (_, n) => `bulk-${kind}-${n}`));

export async function benchBulk(bench: WalBench, ranges: readonly Range[], rounds: number): Promise<Figure[]> {
  const figures: Figure[] = [];
  for (const range of ranges) {
    const tool: Run[] = [];
    const klio: Run[] = [];
    for (let round = 0; round < rounds; round++) {
      const byTool = async () => void tool.push(await receiveByTool(bench, range));
      const byKlio = async () => void klio.push(await receiveByKlio(bench, range, `bulk-${range.kind}-${round}`));
      for (const receive of round % 2 === 0 ? [byTool, byKlio] : [byKlio, byTool]) await receive();
    }
    const of = (runs: Run[], get: (run: Run) => number) => median(runs.map(get));
    const ratios = (get: (run: Run) => number) => klio.map((run, n) => get(run) / get(tool[n]!));
    const speed = ratios((run) => run.mibPerSecond);
    const cpu = ratios((run) => run.cpuPerGiB);
    const { kind } = range;
    figures.push(
      { name: `bulk ${kind}: pg_receivewal --synchronous`, value: of(tool, (run) => run.mibPerSecond), unit: "MiB/s" },
      { name: `bulk ${kind}: Klio`, value: of(klio, (run) => run.mibPerSecond), unit: "MiB/s" },
      { name: `bulk ${kind}: Klio / pg_receivewal`, value: median(speed), unit: `x ${spread(speed)}`, atLeast: 0.8 },
      {
        name: `bulk ${kind}: CPU of pg_receivewal`,
        value: of(tool, (run) => run.cpuPerGiB),
        unit: "s/GiB",
      },
      { name: `bulk ${kind}: CPU of the sidecar`, value: of(klio, (run) => run.sidecarCpu), unit: "s/GiB" },
      { name: `bulk ${kind}: CPU of the server`, value: of(klio, (run) => run.serverCpu), unit: "s/GiB" },
      { name: `bulk ${kind}: CPU, Klio / pg_receivewal`, value: median(cpu), unit: `x ${spread(cpu)}`, bound: 2.5 },
      { name: `bulk ${kind}: peak memory of the sidecar`, value: of(klio, (run) => run.peaks[0]!), unit: "MiB" },
      { name: `bulk ${kind}: peak memory of the server`, value: of(klio, (run) => run.peaks[1]!), unit: "MiB" },
    );
  }
  return figures;
}
