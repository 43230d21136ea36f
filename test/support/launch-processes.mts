// Starts programs as its own children, so that a tracer of this process traces them all with one clock and in one order. A line
// of JSON on stdin per program: `{ args, env, output }`; its process id goes to stdout. They end with this process.
import { spawn } from "node:child_process";
import { openSync } from "node:fs";
import { createInterface } from "node:readline";

type Order = { args: string[]; env: Record<string, string>; output: string };

for await (const line of createInterface({ input: process.stdin })) {
  const { args, env, output } = JSON.parse(line) as Order;
  const log = openSync(output, "a");
  const child = spawn(process.execPath, args, { env, stdio: ["ignore", log, log] });
  process.stdout.write(`${child.pid ?? 0}\n`);
}
