// A child that must not outlive us, however we end.
import { execFileSync } from "node:child_process";
import { accessSync, constants, existsSync } from "node:fs";
import { isAbsolute } from "node:path";

// util-linux; looked for by path, because the child's environment is not ours.
const SETPRIV = ["/usr/bin/setpriv", "/bin/setpriv"];
let setpriv: string | undefined | "unknown" = "unknown";

function parentDeathSignal(): string | undefined {
  if (setpriv !== "unknown") return setpriv;
  setpriv = SETPRIV.find((path) => existsSync(path));
  if (setpriv === undefined) return undefined;
  try {
    execFileSync(setpriv, ["--pdeathsig", "KILL", "--", setpriv, "--version"], { stdio: "ignore" });
  } catch {
    setpriv = undefined; // an older setpriv without the option
  }
  return setpriv;
}

function isExecutable(command: string): boolean {
  try {
    accessSync(command, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

/**
 * Program and arguments that start `command` so that it dies with us where the system can do that; the pid is its own. What cannot
 * be started at all is left as it is, for `spawn` to tell.
 */
export function tied(command: string, args: readonly string[]): [program: string, args: string[]] {
  const tie = isAbsolute(command) && isExecutable(command) ? parentDeathSignal() : undefined;
  return tie === undefined ? [command, [...args]] : [tie, ["--pdeathsig", "KILL", "--", command, ...args]];
}
