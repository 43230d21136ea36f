// A Klio process of the demo (server or sidecar), as a pod would run it: output kept in a file, started again when it dies.
import type { ChildProcessWithoutNullStreams } from "node:child_process";
import { createWriteStream } from "node:fs";
import { spawnTied } from "../actors/process/run-child.actor.ts";
import { lineSplitter } from "../actors/process/run-command.ts";
import { KlioError } from "../errors.ts";
import type { RunAs } from "./run-as.ts";

export type ManagedProcess = {
  readonly name: string;
  pid(): number | undefined;
  /** Ends it with SIGTERM and does not start it again; SIGKILL after `limitMs`. Resolves with its exit status. */
  stop(limitMs?: number): Promise<number | undefined>;
  start(): Promise<void>;
};

export type ManagedOptions = {
  name: string;
  command: string;
  args: readonly string[];
  env: Readonly<Record<string, string>>;
  runAs: RunAs;
  cwd: string;
  logFile: string;
  /** Asked until true after each start. */
  isReady: () => Promise<boolean>;
  readyWithinMs: number;
  /** Told about each unexpected end and each restart. */
  tell: (text: string) => void;
};

/** Starts the process and resolves when it is ready. Rejects with KLIO-CHILD-FAILED and the end of its output. */
export async function startManaged(options: ManagedOptions): Promise<ManagedProcess> {
  let child: ChildProcessWithoutNullStreams | undefined;
  let gone: Promise<number | undefined> = Promise.resolve(undefined);
  let wanted = false;
  const tail: string[] = [];
  const isUp = () => child !== undefined && child.exitCode === null && child.signalCode === null;

  const launch = () => {
    const started = spawnTied(options.command, options.args, options.env, {
      ...options.runAs,
      cwd: options.cwd,
      detached: true,
    });
    child = started;
    const log = createWriteStream(options.logFile, { flags: "a" });
    const keep = lineSplitter((line) => {
      tail.push(line);
      if (tail.length > 8) tail.shift();
    });
    for (const stream of [started.stdout, started.stderr]) {
      stream.setEncoding("utf8").on("data", keep.push);
      stream.pipe(log, { end: false });
    }
    gone = new Promise((resolve) => {
      started.once("error", (error) => keep.push(`${error.message}\n`));
      started.once("close", (code, signal) => {
        log.end();
        resolve(code ?? undefined);
        if (child !== started || !wanted) return;
        options.tell(`${options.name} ended (${signal ?? `exit status ${code}`}); starting it again`);
        launch();
      });
    });
  };

  const start = async () => {
    if (wanted) return;
    wanted = true;
    launch();
    const first = child;
    const deadline = Date.now() + options.readyWithinMs;
    for (;;) {
      if (await options.isReady()) return;
      if (child !== first || !isUp() || Date.now() > deadline) {
        wanted = false;
        child?.kill("SIGKILL");
        await gone;
        throw new KlioError("KLIO-CHILD-FAILED", `${options.name} did not become ready:\n${tail.join("\n")}`, {
          hint: `its whole output is in ${options.logFile}`,
        });
      }
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  };
  await start();
  return {
    name: options.name,
    pid: () => (isUp() ? child?.pid : undefined),
    start,
    async stop(limitMs = 20_000) {
      wanted = false;
      child?.kill("SIGTERM");
      const killer = setTimeout(() => child?.kill("SIGKILL"), limitMs);
      const status = await gone;
      clearTimeout(killer);
      return status;
    },
  };
}
