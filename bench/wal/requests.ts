// What a segment costs in requests: calls to the server, what the server asks of tier 1's file system, and what it asks of tier 2's store.
// strace counts the system calls below the WAL directory, so nothing is timed here.
import { spawn } from "node:child_process";
import { mkdirSync, readdirSync, readFileSync } from "node:fs";
import { basename, join } from "node:path";
import { findTool } from "../../src/config/tools.ts";
import { freePort } from "../../src/demo/local-postgres.ts";
import { startS3 } from "../../src/demo/local-s3.ts";
import { eventually } from "../../test/support/eventually.ts";
import { slowLink } from "../../test/support/slow-link.ts";
import { descriptorOf, pathsOf, type SystemCall, traceEvents } from "../../test/support/strace.ts";
import type { Figure } from "../run.ts";
import { WalBench } from "./stage.ts";
import { run } from "./workload.ts";

const CLUSTER = "requests";
const SCALE = 40;

/** What is counted of tier 1, by the system calls that do it. */
const counted: Readonly<Record<string, RegExp>> = {
  "files and directories opened": /^openat$/,
  "writes, each synced": /^(write|writev|pwrite64|pwritev|pwritev2)$/,
  "syncs of files and directories": /^f(data)?sync$/,
  renames: /^rename/,
  "reads, those for tier 2 among them": /^(read|readv|pread64|preadv|preadv2)$/,
};
const CALLS =
  "openat,write,writev,pwrite64,pwritev,pwritev2,fsync,fdatasync,rename,renameat,renameat2,read,readv,pread64,preadv,preadv2";

/** Follows a process until `stop`, which gives its calls below `directory`. */
async function follow(pid: number, directory: string, file: string): Promise<{ stop(): Promise<SystemCall[]> }> {
  const args = ["-f", "-yy", "-xx", "-v", "-s", "0", "-o", file, "-e", `trace=${CALLS}`, "-p", String(pid)];
  const tracer = spawn("strace", args, { stdio: ["ignore", "ignore", "pipe"] });
  const gone = new Promise<void>((resolve) => tracer.once("exit", () => resolve()));
  let said = "";
  tracer.stderr.on("data", (chunk) => {
    said += String(chunk);
  });
  await eventually(() => said.includes("attached"), { what: "strace" });
  return {
    async stop() {
      tracer.kill("SIGINT");
      await gone;
      const calls: SystemCall[] = [];
      for (const event of traceEvents(readFileSync(file, "utf8").split("\n")))
        if (event.kind === "end" && event.result >= 0) {
          const paths = [descriptorOf(event.call), ...pathsOf(event.call)];
          if (paths.some((path) => path.startsWith(directory))) calls.push(event.call);
        }
      return calls;
    },
  };
}

export async function benchRequests(directory: string): Promise<Figure[]> {
  await using stack = new AsyncDisposableStack();
  mkdirSync(join(directory, "s3"));
  const executable = findTool("versitygw", process.env);
  const s3 = stack.use(await startS3({ directory: join(directory, "s3"), bucket: "klio-bench", executable }));
  const link = stack.use(await slowLink({ port: s3.port }, 0));
  const { bucket: bucketName, region, accessKeyId, secretAccessKey } = s3;
  const endpoint = `http://127.0.0.1:${link.port}`;
  const port = await freePort();
  const bench = stack.use(
    await WalBench.open(directory, [CLUSTER], {
      tier2: { bucketName, region, endpoint, accessKeyId, secretAccessKey },
      env: { OTEL_METRICS_EXPORTER: "prometheus", OTEL_EXPORTER_PROMETHEUS_PORT: String(port) },
    }),
  );
  /** Calls of each method that have ended. */
  const calls = async (): Promise<Record<string, number>> => {
    const page = await (await fetch(`http://127.0.0.1:${port}/metrics`)).text();
    const found: Record<string, number> = {};
    for (const [, labels = "", value] of page.matchAll(/^rpc_server_call_duration_seconds_count\{(.*)\} (\d+)/gm)) {
      const method = /rpc_method="[^"]*\/([^"]+)"/.exec(labels)?.[1] ?? "";
      found[method] = (found[method] ?? 0) + Number(value);
    }
    return found;
  };
  const settled = async () => {
    await bench.session.query("select pg_switch_wal()");
    const end = await bench.value("select pg_current_wal_flush_lsn()");
    await bench.until(
      `select coalesce(bool_or(flush_lsn >= '${end}'), false) from pg_stat_replication where application_name = 'klio'`,
    );
    await eventually(async () => (await bench.pendingWals()) === 0, { timeoutMs: 120_000, what: "an empty queue" });
  };
  await bench.session.query(`select pg_create_physical_replication_slot('${CLUSTER}', true)`);
  await bench.sidecar(CLUSTER, CLUSTER);
  await bench.until("select count(*) = 1 from pg_stat_replication");
  await settled();
  const directoryOfTier1 = join(bench.walDirectory, CLUSTER);
  const whole = () =>
    readdirSync(directoryOfTier1, { recursive: true, encoding: "utf8" }).filter((path) =>
      /^[0-9A-F]{24}$/.test(basename(path)),
    ).length;
  const stored = whole();
  const before = await calls();
  link.reset();
  const tracer = await follow(bench.serverPid, directoryOfTier1, join(directory, "trace.txt"));
  run("pgbench", ["-i", "-q", "-s", String(SCALE), bench.postgres.dsn]);
  await settled();
  const tier1 = await tracer.stop();
  const after = await calls();
  const { PUT: puts = 0, ...others } = link.requests();
  const segments = whole() - stored;
  const figure = (name: string, count: number): Figure => ({
    name: `per segment: ${name}`,
    value: count / segments,
    unit: "requests",
  });
  return [
    { name: "segments of COPY and index build, counted", value: segments, unit: "segments" },
    ...Object.entries(after)
      .filter(([method, count]) => count > (before[method] ?? 0))
      .map(([method, count]) => figure(`calls of ${method}`, count - (before[method] ?? 0))),
    ...Object.entries(counted).map(([name, pattern]) =>
      figure(`tier 1, ${name}`, tier1.filter((call) => pattern.test(call.name)).length),
    ),
    { ...figure("tier 2, PUTs", puts), bound: 1 },
    figure(
      "tier 2, other requests",
      Object.values(others).reduce((sum, count) => sum + count, 0),
    ),
  ];
}
