// P1, watched from outside: strace follows server and sidecar while thousands of commits wait for them.
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { afterAll, beforeAll, expect, test } from "vitest";
import { startLoad } from "../../src/demo/load.ts";
import { type LocalPostgres, startPostgres } from "../../src/demo/local-postgres.ts";
import { killHard } from "../../src/demo/process-tree.ts";
import { POSTGRES_SETTINGS } from "../../src/demo/stage.ts";
import { judge, storedSizes, type Verdict } from "../support/durability-oracle.ts";
import { eventually } from "../support/eventually.ts";
import { temporaryDirectory } from "../support/temporary-directory.ts";
import { prepareCast, type WalCast } from "../support/wal-cast.ts";

const CALLS =
  "write,writev,sendto,sendmsg,pwrite64,pwritev,pwritev2,openat,fsync,fdatasync,rename,renameat,renameat2,mkdir,mkdirat,io_uring_setup";
const LIE = join(import.meta.dirname, "../support/lie.mts");
const LAUNCH = join(import.meta.dirname, "../support/launch-processes.mts");

let directory: Awaited<ReturnType<typeof temporaryDirectory>>;
let postgres: LocalPostgres;
let cast: WalCast;

function requireStrace(): void {
  try {
    execFileSync("strace", ["-V"], { stdio: "ignore" });
  } catch (cause) {
    throw new Error(
      "strace is missing: this test reads the system calls of server and sidecar (Debian package strace)",
      {
        cause,
      },
    );
  }
}

beforeAll(async () => {
  if (process.platform !== "linux") return;
  requireStrace();
  directory = await temporaryDirectory();
  postgres = await startPostgres({
    directory: join(directory.path, "postgresql"),
    version: 17,
    settings: POSTGRES_SETTINGS,
    walSegmentMiB: 1,
  });
  cast = await prepareCast(directory.path, postgres);
});

afterAll(async () => {
  await postgres?.[Symbol.asyncDispose]();
  await directory?.[Symbol.asyncDispose]();
});

/** Starts a program below the tracer; resolves with its process id. */
async function launch(tracer: ChildProcess, answers: AsyncIterator<string>, args: string[], lie?: string) {
  const order = {
    args: lie === undefined ? args : ["--import", LIE, ...args],
    env: { ...cast.env, ...(lie !== undefined && { KLIO_TEST_LIE: lie }) },
    output: join(directory.path, "processes.log"),
  };
  tracer.stdin?.write(`${JSON.stringify(order)}\n`);
  return Number((await answers.next()).value);
}

/** A load of so many commits through a fresh server and a fresh sidecar, and what the oracle says of it. */
async function watched(commits: number, lies: { server?: string; sidecar?: string } = {}): Promise<Verdict> {
  const trace = join(directory.path, "trace.txt");
  const known = storedSizes(cast.walDirectory);
  const options = ["-f", "--seccomp-bpf", "-yy", "-xx", "-v", "-s", "128", "-o", trace, "-e", `trace=${CALLS}`];
  const tracer = spawn("strace", [...options, process.execPath, LAUNCH], { stdio: ["pipe", "pipe", "inherit"] });
  const gone = new Promise<void>((resolve) => tracer.once("exit", () => resolve()));
  const answers = createInterface({ input: tracer.stdout })[Symbol.asyncIterator]();
  const pids: number[] = [];
  try {
    pids.push(await launch(tracer, answers, cast.server, lies.server));
    await eventually(() => cast.isReady("server"), { timeoutMs: 60_000, what: "a server" });
    pids.push(await launch(tracer, answers, cast.sidecar, lies.sidecar));
    await eventually(() => cast.isReady("sidecar"), { timeoutMs: 60_000, what: "a sidecar" });
    const load = await startLoad({ dsn: postgres.dsn, sessions: 6, pauseMs: 0, firstId: Date.now() });
    for (let part = 1; part <= 4; part++) {
      await load.reached((commits * part) / 4, AbortSignal.timeout(300_000));
      await postgres.query("select pg_switch_wal()");
    }
    await load.stop();
    // In order, so that the files are whole when they are read.
    for (const pid of pids.toReversed()) process.kill(pid, "SIGTERM");
  } finally {
    tracer.stdin.end();
    const impatience = setTimeout(() => pids.forEach(killHard), 30_000);
    await gone;
    clearTimeout(impatience);
  }
  const lines = readFileSync(trace, "utf8").split("\n");
  return judge({ lines, directory: cast.walDirectory, postgresPort: postgres.port, known });
}

test.runIf(process.platform === "linux")(
  "P1: no flushed position is told before its bytes, and the names that lead to them, are on disk",
  { timeout: 400_000 },
  async () => {
    const commits = Number(process.env.KLIO_ORACLE_COMMITS ?? 3_000);
    const verdict = await watched(commits);
    expect(verdict.violations).toEqual([]);
    expect(verdict.advances).toBeGreaterThan(commits / 6);
    expect(verdict.created).toBeGreaterThan(3);
    expect(verdict.completed).toBeGreaterThan(2);
  },
);

// The last one loses what it acknowledged.
const liars: [string, { server?: string; sidecar?: string }][] = [
  ["a sidecar that tells as flushed what it sent", { sidecar: "early-status" }],
  ["a server that syncs no names", { server: "no-directory-sync" }],
  ["a server that acknowledges a write before it", { server: "early-write" }],
];

test.runIf(process.platform === "linux").each(liars)(
  "P1: the oracle finds %s",
  { timeout: 200_000 },
  async (_, lies) => {
    const verdict = await watched(200, lies);
    expect(verdict.violations.length).toBeGreaterThan(0);
  },
);
