// The demo as a user runs it: exit status, figures, nothing left behind.
import { existsSync, mkdirSync, readdirSync, readFileSync } from "node:fs";
import { readdir } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { type CommandResult, runCommand } from "../../src/actors/process/run-command.ts";
import type { DemoFigures } from "../../src/demo/report.ts";
import { eventually } from "../support/eventually.ts";
import { temporaryDirectory } from "../support/temporary-directory.ts";

const main = fileURLToPath(new URL("../../src/main.ts", import.meta.url));
const env = () =>
  Object.fromEntries(Object.entries(process.env).filter((e): e is [string, string] => e[1] !== undefined));

function demo(
  args: string[],
  more: { signal?: AbortSignal; onLine?: (stream: string, line: string) => void } = {},
): Promise<CommandResult> {
  return runCommand({
    command: process.execPath,
    args: [main, "demo", ...args],
    env: env(),
    killAfterMs: 60_000,
    ...more,
  });
}

const demoDirectories = async () => (await readdir(tmpdir())).filter((name) => name.startsWith("klio-demo-"));

/** Command lines of the living processes that name this directory (Linux). */
function processesIn(directory: string): string[] {
  return readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name))
    .flatMap((pid) => {
      try {
        return [readFileSync(`/proc/${pid}/cmdline`, "utf8").replaceAll("\0", " ")];
      } catch {
        return []; // it ended meanwhile
      }
    })
    .filter((commandLine) => commandLine.includes(directory));
}

test("P3: the demo loses nothing from either tier and leaves nothing behind", async () => {
  const before = await demoDirectories();
  const result = await demo(["--once", "--json"]);
  expect(result.code, result.stderr).toBe(0);
  const figures = JSON.parse(result.stdout) as DemoFigures;
  expect(figures).toMatchObject({
    ok: true,
    faults: [],
    tier1: { commitsLost: 0, pointInTimeExact: true },
    tier2: { commitsLost: 0, pointInTimeExact: true },
  });
  expect(figures.commitsAcknowledged).toBeGreaterThan(1000);
  expect(result.stderr).toMatch(/all checks held/);
  expect(await demoDirectories()).toEqual(before);
});

test("P4: S3 that dies while the backup is relayed is told of, commits go on, and both tiers lose nothing", async () => {
  await using dir = await temporaryDirectory();
  const directory = join(dir.path, "demo");
  let isKilled = false;
  const result = await demo(["--once", "--json", "--dir", directory, "--pg-version", "18"], {
    onLine: (_, line) => {
      if (isKilled || !line.includes("relay of the backup")) return;
      isKilled = true;
      const { s3 } = JSON.parse(readFileSync(join(directory, "endpoints.json"), "utf8")) as { s3: { pid: number } };
      process.kill(s3.pid, "SIGKILL");
    },
  });
  expect(result.code, result.stderr).toBe(0);
  expect(result.stderr).toMatch(/the S3 server is gone: tier 2 waits, WAL reception and commits go on/);
  const figures = JSON.parse(result.stdout) as DemoFigures;
  expect(figures).toMatchObject({ ok: true, tier1: { commitsLost: 0 }, tier2: { commitsLost: 0 } });
  const [fault = ""] = figures.faults;
  expect(Number(/(\d+) commits were acknowledged meanwhile/.exec(fault)?.[1])).toBeGreaterThan(0);
});

test("Ctrl-C in the middle of the backup ends every process, and keeps the directory that was named", async () => {
  await using dir = await temporaryDirectory();
  const directory = join(dir.path, "demo");
  const stop = new AbortController();
  let seen: string[] = [];
  const running = demo(["--once", "--dir", directory, "--pg-version", "15"], {
    signal: stop.signal,
    onLine: (_, line) => {
      if (!line.includes("base backup of the running primary")) return;
      seen = processesIn(directory);
      stop.abort();
    },
  });
  const result = await running;
  expect(result.code, result.stderr).toBe(75);
  expect(seen.length).toBeGreaterThan(5);
  expect(existsSync(join(directory, "endpoints.json"))).toBe(true);
  if (existsSync("/proc/self"))
    await eventually(() => processesIn(directory).length === 0, { what: "no process of the demo" });
});

test("KLIO-USAGE: a directory that holds an earlier demo and a version that is not there are refused", async () => {
  await using dir = await temporaryDirectory();
  mkdirSync(join(dir.path, "server"));
  const used = await demo(["--once", "--dir", dir.path]);
  expect([used.code, used.stderr]).toEqual([64, expect.stringContaining("holds an earlier demo")]);
  const version = await demo(["--pg-version", "14"]);
  expect([version.code, version.stderr]).toEqual([64, expect.stringContaining("must be one of 15, 16, 17, 18")]);
});
