// Who runs below a process.
import { execFileSync } from "node:child_process";

export type Descendant = { pid: number; command: string };

/** The living descendants of a process, nearest first; empty when `ps` is not there. */
export function descendantsOf(root: number): Descendant[] {
  let table: string;
  try {
    table = execFileSync("ps", ["-A", "-o", "pid=,ppid=,comm="], { encoding: "utf8" });
  } catch {
    return []; // no ps on this system: the list is for information only
  }
  const rows = table
    .trim()
    .split("\n")
    .map((line) => line.trim().split(/\s+/));
  const found: Descendant[] = [];
  const parents = [root];
  for (let parent = parents.shift(); parent !== undefined; parent = parents.shift())
    for (const [pid = "", ppid, command = ""] of rows)
      if (Number(ppid) === parent && Number(pid) !== root) {
        found.push({ pid: Number(pid), command });
        parents.push(Number(pid));
      }
  return found;
}
