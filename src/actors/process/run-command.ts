// Runs a program to its end, or to ours. Secrets go in `env` or files, never in `args`.
import { spawn } from "node:child_process";
import { errorText, KlioError } from "../../errors.ts";
import { tied } from "./tied.ts";

export type Command = {
  command: string;
  args: readonly string[];
  /** The whole environment of the child: nothing is inherited but what is named here. */
  env: Readonly<Record<string, string>>;
  cwd?: string;
  uid?: number;
  gid?: number;
  stdin?: string | Uint8Array;
  /** On abort the child gets SIGTERM, and SIGKILL after `killAfterMs` (default 10 000). */
  signal?: AbortSignal;
  killAfterMs?: number;
  /** Each line of either stream (split at \n and \r, empty ones dropped), as it comes. */
  onLine?: (stream: "stdout" | "stderr", line: string) => void;
};

export type CommandResult = {
  /** Exit code, or undefined when a signal ended the child. */
  code: number | undefined;
  signal: string | undefined;
  /** All of stdout (at most 64 MiB; the rest is dropped). */
  stdout: string;
  /** The last 16 KiB of stderr. */
  stderr: string;
  aborted: boolean;
};

const STDOUT_LIMIT = 64 << 20;
const STDERR_TAIL = 16 << 10;
/** A line without an end is cut here, so that a child cannot fill our memory. */
const LINE_LIMIT = 1 << 20;

/** Splits a stream of text into lines at \n and \r; call `end` for the last one. */
export function lineSplitter(onLine: (line: string) => void): { push(text: string): void; end(): void } {
  let rest = "";
  const emit = (line: string) => {
    if (line.trim() !== "") onLine(line);
  };
  return {
    push(text) {
      const parts = (rest + text).split(/[\r\n]/);
      rest = (parts.pop() ?? "").slice(-LINE_LIMIT);
      for (const part of parts) emit(part);
    },
    end() {
      emit(rest);
      rest = "";
    },
  };
}

/** Resolves when the child has ended and both its streams are read to the end. Rejects with KLIO-TOOL-MISSING only. */
export function runCommand(command: Command): Promise<CommandResult> {
  return new Promise((resolve, reject) => {
    const [program, args] = tied(command.command, command.args);
    const child = spawn(program, args, {
      env: { ...command.env },
      stdio: ["pipe", "pipe", "pipe"],
      ...(command.cwd !== undefined && { cwd: command.cwd }),
      ...(command.uid !== undefined && { uid: command.uid }),
      ...(command.gid !== undefined && { gid: command.gid }),
    });
    let stdout = "";
    let stderr = "";
    const lines = {
      stdout: lineSplitter((line) => command.onLine?.("stdout", line)),
      stderr: lineSplitter((line) => command.onLine?.("stderr", line)),
    };
    child.stdout.setEncoding("utf8").on("data", (text: string) => {
      if (stdout.length < STDOUT_LIMIT) stdout += text;
      lines.stdout.push(text);
    });
    child.stderr.setEncoding("utf8").on("data", (text: string) => {
      stderr = (stderr + text).slice(-STDERR_TAIL);
      lines.stderr.push(text);
    });
    let killer: NodeJS.Timeout | undefined;
    const abort = () => {
      child.kill("SIGTERM");
      killer = setTimeout(() => child.kill("SIGKILL"), command.killAfterMs ?? 10_000);
    };
    if (command.signal?.aborted) abort();
    else command.signal?.addEventListener("abort", abort, { once: true });
    const settle = () => {
      clearTimeout(killer);
      command.signal?.removeEventListener("abort", abort);
    };
    child.once("error", (cause) => {
      settle();
      reject(new KlioError("KLIO-TOOL-MISSING", `cannot run ${command.command}: ${errorText(cause)}`, { cause }));
    });
    child.once("close", (code, signal) => {
      settle();
      lines.stdout.end();
      lines.stderr.end();
      resolve({
        code: code ?? undefined,
        signal: signal ?? undefined,
        stdout,
        stderr,
        aborted: command.signal?.aborted ?? false,
      });
    });
    // A child that ends without reading its input gives EPIPE here; its exit status tells the story.
    child.stdin.on("error", (error) => lines.stderr.push(`stdin: ${errorText(error)}\n`));
    child.stdin.end(command.stdin ?? "");
  });
}
