// One life of a supervised child process, as events for the childProcess machine.
// The child never outlives us: on Linux it dies with its parent (setpriv --pdeathsig), elsewhere its stdin closes; and a
// left-over of a killed run is found by its lock file (process id and start time) and ended before the next start.
import { type ChildProcessWithoutNullStreams, spawn } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { dirname } from "node:path";
import { fromCallback } from "xstate";
import { errorText, KlioError } from "../../errors.ts";
import type { ChildEvent } from "../../machines/child-process.machine.ts";
import { lineSplitter } from "./run-command.ts";
import { tied } from "./tied.ts";

export type ChildSpec = {
  command: string;
  args: readonly string[];
  /** The whole environment of the child. */
  env: Readonly<Record<string, string>>;
  /** File that names the running child; its directory is made. */
  lockFile: string;
  /** Ready when a line of output matches, or when the probe resolves true (asked every `probeEveryMs`). */
  ready: { line: RegExp } | { probe: (signal: AbortSignal) => Promise<boolean>; probeEveryMs: number };
  /** Not ready within this time: the child is killed and counts as ended. */
  readyWithinMs: number;
  /** A line that means "do not try again" (busy port, wrong key): the machine ends in `failed` with this reason. */
  refusal?: (line: string) => string | undefined;
  onLine: (stream: "stdout" | "stderr", line: string) => void;
  /** SIGTERM, then SIGKILL after this time. */
  stopWithinMs: number;
};

/** Start time of a process in clock ticks since boot, undefined when it does not exist or the system does not tell. */
export function processStartTime(pid: number): string | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
    return stat.slice(stat.lastIndexOf(")") + 2).split(" ")[19];
  } catch {
    return undefined;
  }
}

/** Ends the process that a lock file of an earlier run names, if it is still that process. Returns its pid, if any. */
export function endLeftOver(lockFile: string): number | undefined {
  if (!existsSync(lockFile)) return undefined;
  const [pidText = "", started = ""] = readFileSync(lockFile, "utf8").trim().split(" ");
  const pid = Number(pidText);
  rmSync(lockFile, { force: true });
  if (!Number.isInteger(pid) || pid <= 1 || started === "" || processStartTime(pid) !== started) return undefined;
  try {
    process.kill(pid, "SIGKILL");
    return pid;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ESRCH") return undefined;
    throw error;
  }
}

/**
 * Starts the program (absolute path) so that it dies with us where the system can do that. The pid is the program's.
 * `detached` gives it a session of its own, so that a Ctrl-C at the terminal reaches only us.
 */
export function spawnTied(
  command: string,
  args: readonly string[],
  env: Readonly<Record<string, string>>,
  options: { uid?: number; gid?: number; cwd?: string; detached?: boolean } = {},
): ChildProcessWithoutNullStreams {
  const [program, argv] = tied(command, args);
  return spawn(program, argv, { ...options, env: { ...env }, stdio: "pipe" });
}

/** An expected failure, or a system call that was refused; anything else is a bug. */
function isPassing(error: unknown): boolean {
  if (error instanceof KlioError) return error.kind !== "bug";
  return error instanceof Error && "syscall" in error;
}

/** Actor logic for `childProcess.runChild`. Stopping the actor ends the child; `stopped` resolves when it is gone. */
export function runChild(spec: (name: string) => ChildSpec, onGone: (name: string) => void) {
  return fromCallback<{ type: "shutdown.requested" }, { name: string }>(({ input, sendBack }) => {
    const send = (event: ChildEvent) => sendBack(event);
    let made: ChildSpec;
    try {
      made = spec(input.name);
      mkdirSync(dirname(made.lockFile), { recursive: true });
      endLeftOver(made.lockFile);
    } catch (error) {
      // A file that it is made from cannot be used now (a certificate being replaced, a full volume): that may pass.
      if (!isPassing(error)) throw error;
      queueMicrotask(() => {
        send({ type: "child.ended", reason: errorText(error) });
        onGone(input.name);
      });
      return;
    }
    const child = spawnTied(made.command, made.args, made.env);
    const abort = new AbortController();
    let refused: string | undefined;
    let isReady = false;
    let last = "";
    const ready = () => {
      if (isReady || child.pid === undefined) return;
      isReady = true;
      clearTimeout(deadline);
      send({ type: "child.ready", pid: child.pid });
    };
    const line = (stream: "stdout" | "stderr") =>
      lineSplitter((text) => {
        last = text;
        made.onLine(stream, text);
        refused ??= isReady ? undefined : made.refusal?.(text);
        if ("line" in made.ready && made.ready.line.test(text)) ready();
      });
    const streams = { stdout: line("stdout"), stderr: line("stderr") };
    child.stdout.setEncoding("utf8").on("data", streams.stdout.push).on("end", streams.stdout.end);
    child.stderr.setEncoding("utf8").on("data", streams.stderr.push).on("end", streams.stderr.end);
    child.stdin.on("error", (error) => made.onLine("stderr", `stdin: ${errorText(error)}`));
    const deadline = setTimeout(() => {
      last = `not ready within ${made.readyWithinMs} ms`;
      child.kill("SIGKILL");
    }, made.readyWithinMs);
    child.once("spawn", () => {
      if (child.pid !== undefined) lock(child.pid);
      if ("probe" in made.ready) void probe(made.ready.probe, made.ready.probeEveryMs);
    });
    const lock = (pid: number) => {
      try {
        writeFileSync(made.lockFile, `${pid} ${processStartTime(pid) ?? ""}\n`);
      } catch (error) {
        // On a full volume it goes without: where the system can, the child dies with us all the same.
        made.onLine("stderr", `cannot write ${made.lockFile}: ${errorText(error)}`);
      }
    };
    const probe = async (ask: (signal: AbortSignal) => Promise<boolean>, everyMs: number) => {
      while (!abort.signal.aborted && !isReady) {
        if (await ask(abort.signal)) return ready();
        await new Promise((resolve) => setTimeout(resolve, everyMs));
      }
    };
    let stopping = false;
    child.once("error", (error) => {
      clearTimeout(deadline);
      abort.abort();
      if (!stopping) send({ type: "child.refused", reason: `cannot run ${made.command}: ${errorText(error)}` });
      onGone(input.name);
    });
    child.once("close", (code, signal) => {
      clearTimeout(deadline);
      abort.abort();
      rmSync(made.lockFile, { force: true });
      const how = signal === null ? `exit status ${code}` : `signal ${signal}`;
      if (!stopping && refused !== undefined) send({ type: "child.refused", reason: refused });
      else if (!stopping) send({ type: "child.ended", reason: last === "" ? how : `${how}: ${last}` });
      onGone(input.name);
    });
    return () => {
      stopping = true;
      clearTimeout(deadline);
      abort.abort();
      if (child.exitCode !== null || child.signalCode !== null) return;
      child.kill("SIGTERM");
      const killer = setTimeout(() => child.kill("SIGKILL"), made.stopWithinMs);
      child.once("close", () => clearTimeout(killer));
    };
  });
}
