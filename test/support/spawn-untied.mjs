// Starts a process that outlives this one, and writes its lock file as a supervisor would.
import { spawn } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";

const child = spawn(process.execPath, ["-e", "setInterval(() => {}, 1000)"], { detached: true, stdio: "ignore" });
const stat = readFileSync(`/proc/${child.pid}/stat`, "utf8");
writeFileSync(process.argv[2], `${child.pid} ${stat.slice(stat.lastIndexOf(")") + 2).split(" ")[19]}\n`);
child.unref();
