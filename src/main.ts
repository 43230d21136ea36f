// The program: gives the command line its surroundings, and turns an error into a line and an exit status.
import { runProgram } from "./cli/program.ts";

const abort = new AbortController();
let signals = 0;
for (const name of ["SIGINT", "SIGTERM"] as const) {
  process.on(name, () => {
    signals += 1;
    abort.abort();
    if (signals > 2) process.exit(130); // asked three times: leave at once
  });
}

await runProgram({
  env: process.env,
  argv: process.argv.slice(2),
  stdout: process.stdout,
  stderr: process.stderr,
  signal: abort.signal,
  exit: (status) => {
    process.exitCode = status;
  },
});

// The work is done. A last export to a collector that does not answer was given up, but its connection and timers would keep the
// process for as long as its timeouts are; what was printed goes out first.
const printed = (stream: NodeJS.WriteStream) => new Promise((resolve) => stream.write("", resolve));
await Promise.all([process.stdout, process.stderr].map(printed));
process.exit();
