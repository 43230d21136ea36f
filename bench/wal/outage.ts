// What an outage of tier 2 costs PostgreSQL: commits of 4 clients that wait for Klio as their synchronous standby, while the object
// store takes segments, refuses connections, and stalls, in turns.
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { findTool } from "../../src/config/tools.ts";
import { startS3 } from "../../src/demo/local-s3.ts";
import { eventually } from "../../test/support/eventually.ts";
import { startFaultyLink } from "../../test/support/faulty-link.ts";
import type { Figure } from "../run.ts";
import { median, spread } from "../statistics.ts";
import { type Latency, measureCommits, standby } from "./commit.ts";
import { WalBench } from "./stage.ts";
import { run } from "./workload.ts";

const CLUSTER = "outage";
const CLIENTS = 4;
const SCALE = 20;
const WARM_SECONDS = 15;
const SLOW = { timeoutMs: 600_000, what: "the state of tier 2" };

const modes = ["up", "refuses", "stalls"] as const;
type Mode = (typeof modes)[number];

export async function benchOutage(directory: string, rounds: number, seconds: number): Promise<Figure[]> {
  await using stack = new AsyncDisposableStack();
  mkdirSync(join(directory, "s3"));
  const executable = findTool("versitygw", process.env);
  const s3 = stack.use(await startS3({ directory: join(directory, "s3"), bucket: "klio-bench", executable }));
  const link = stack.use(await startFaultyLink({ host: "127.0.0.1", port: s3.port }));
  const { bucket: bucketName, region, accessKeyId, secretAccessKey } = s3;
  const endpoint = `http://127.0.0.1:${link.port}`;
  const bench = stack.use(
    await WalBench.open(directory, [CLUSTER], {
      tier2: { bucketName, region, endpoint, accessKeyId, secretAccessKey },
    }),
  );
  run("pgbench", ["-i", "-q", "-s", String(SCALE), bench.postgres.dsn]);
  await bench.session.query(`select pg_create_physical_replication_slot('${CLUSTER}', true)`);
  await bench.sidecar(CLUSTER, CLUSTER);
  await standby(bench, "klio");
  /** The store is as told, and the server has met it that way: with all that was stored before, or with a segment it cannot send. */
  const enter: Record<Mode, () => Promise<void>> = {
    async up() {
      await s3.start();
      link.heal();
      link.cut(); // what was stalled begins anew
      await eventually(async () => (await bench.pendingWals()) === 0, SLOW);
    },
    async refuses() {
      await s3.stop();
      await bench.session.query("select pg_switch_wal()");
      await eventually(async () => (await bench.pendingWals()) > 0, SLOW);
    },
    async stalls() {
      link.stall(["up", "down"]);
      await bench.session.query("select pg_switch_wal()");
      await eventually(async () => (await bench.pendingWals()) > 0, SLOW);
    },
  };
  const taken: Record<Mode, Latency[]> = { up: [], refuses: [], stalls: [] };
  measureCommits(bench, CLIENTS, WARM_SECONDS); // with the full page images, which later commits do without
  for (let round = 0; round < rounds; round++)
    for (let turn = 0; turn < modes.length; turn++) {
      const mode = modes[(round + turn) % modes.length] ?? "up";
      await enter.up();
      if (mode !== "up") await enter[mode]();
      taken[mode].push(measureCommits(bench, CLIENTS, seconds));
    }
  await enter.up();
  await standby(bench, "");
  const figures: Figure[] = [];
  for (const mode of modes)
    for (const what of ["p50", "p99"] as const)
      figures.push({
        name: `commit, ${CLIENTS} clients, tier 2 ${mode}: ${what}`,
        value: median(taken[mode].map((latency) => latency[what])),
        unit: "ms",
      });
  for (const mode of ["refuses", "stalls"] as const)
    for (const what of ["p50", "p99"] as const) {
      const ratios = taken[mode].map((latency, n) => latency[what] / (taken.up[n]?.[what] ?? Number.NaN));
      figures.push({
        name: `commit, ${CLIENTS} clients: ${what}, tier 2 ${mode} / up`,
        value: median(ratios),
        unit: `x ${spread(ratios)}`,
        ...(what === "p50" && { bound: 1.1 }),
      });
    }
  return figures;
}
