// Starts a child that is tied to this process, prints its pid and waits: a long-lived one, or (`command`) a command that runs.
import { spawnTied } from "../../src/actors/process/run-child.actor.ts";
import { runCommand } from "../../src/actors/process/run-command.ts";

const waiting = "console.log(process.pid); setInterval(() => {}, 1000)";
if (process.argv[2] === "command")
  await runCommand({
    command: process.execPath,
    args: ["-e", waiting],
    env: {},
    onLine: (_, line) => process.stdout.write(`${line}\n`),
  });
else spawnTied(process.execPath, ["-e", waiting], {}).stdout.pipe(process.stdout);
