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
