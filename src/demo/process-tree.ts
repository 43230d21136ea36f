// Who runs below a process.
import { execFileSync } from "node:child_process";
import { existsSync, readdirSync, readFileSync } from "node:fs";

export type Descendant = { pid: number; command: string };
type Row = Descendant & { parent: number };

/** `pid (command) state parent …`; a command may hold spaces and brackets. */
function parseStat(text: string): Row {
  const [open, close] = [text.indexOf("("), text.lastIndexOf(")")];
  const [, parent] = text.slice(close + 2).split(" ");
  return { pid: Number(text.slice(0, open)), command: text.slice(open + 1, close), parent: Number(parent) };
}

function processes(): Row[] {
  if (existsSync("/proc/self/stat"))
    return readdirSync("/proc")
      .filter((name) => /^\d+$/.test(name))
      .flatMap((pid) => {
        try {
          return [parseStat(readFileSync(`/proc/${pid}/stat`, "utf8"))];
        } catch {
          return []; // it ended meanwhile
        }
      });
  const table = execFileSync("ps", ["-A", "-o", "pid=,ppid=,comm="], { encoding: "utf8" });
  return table
    .trim()
    .split("\n")
    .map((line) => {
      const [pid, parent, command = ""] = line.trim().split(/\s+/);
      return { pid: Number(pid), parent: Number(parent), command };
    });
}

/** Is there such a process, and not only its exit status that nobody has asked for? */
export function isRunning(pid: number): boolean {
  try {
    process.kill(pid, 0);
    if (!existsSync("/proc/self/stat")) return true;
    const text = readFileSync(`/proc/${pid}/stat`, "utf8");
    return text[text.lastIndexOf(")") + 2] !== "Z";
  } catch (error) {
    const { code = "" } = error as NodeJS.ErrnoException;
    if (code === "ESRCH" || code === "ENOENT") return false;
    throw error;
  }
}

/** SIGKILL, if it still runs. */
export function killHard(pid: number): void {
  if (isRunning(pid)) process.kill(pid, "SIGKILL");
}

/** The living descendants of a process, nearest first. */
export function descendantsOf(root: number): Descendant[] {
  const rows = processes();
  const found: Descendant[] = [];
  const parents = [root];
  for (let at = parents.shift(); at !== undefined; at = parents.shift())
    for (const { pid, parent, command } of rows)
      if (parent === at && pid !== root) {
        found.push({ pid, command });
        parents.push(pid);
      }
  return found;
}
