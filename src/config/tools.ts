// Where the external programs are: named by environment, on PATH at an accepted version, or in the per-user cache that
// scripts/setup.mjs fills.
import { execFileSync } from "node:child_process";
import { accessSync, constants, readFileSync, statSync } from "node:fs";
import { homedir } from "node:os";
import { delimiter, join } from "node:path";
import { KlioError } from "../errors.ts";
import type { Environment } from "./config.ts";

export type ToolName = "kopia" | "nats-server" | "versitygw" | "promtool" | "prometheus";
type Pin = { version: string; accept: string; versionArgs: string[]; variable: string; testsOnly?: boolean };

const pins = JSON.parse(readFileSync(new URL("../../tools/tools.json", import.meta.url), "utf8")) as Record<
  ToolName,
  Pin
>;

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return statSync(path).isFile(); // a directory may be entered
  } catch {
    return false;
  }
}

function hasAcceptedVersion(path: string, pin: Pin): boolean {
  try {
    return new RegExp(pin.accept).test(execFileSync(path, pin.versionArgs, { encoding: "utf8" }));
  } catch {
    return false;
  }
}

/** Absolute path of an external program. Throws KLIO-TOOL-MISSING. */
export function findTool(name: ToolName, env: Environment): string {
  const pin = pins[name];
  const named = env[pin.variable];
  if (named !== undefined && named !== "") {
    if (isExecutable(named)) return named;
    throw new KlioError("KLIO-TOOL-MISSING", `${pin.variable}=${named} is not an executable file`);
  }
  const cached = join(
    env.XDG_CACHE_HOME || join(env.HOME || homedir(), ".cache"),
    "klio",
    "tools",
    `${name}-${pin.version}`,
    name,
  );
  if (isExecutable(cached)) return cached;
  for (const directory of (env.PATH ?? "").split(delimiter)) {
    const path = join(directory, name);
    if (directory !== "" && isExecutable(path) && hasAcceptedVersion(path, pin)) return path;
  }
  throw new KlioError("KLIO-TOOL-MISSING", `${name} ${pin.version} is neither on PATH nor in ${cached}`, {
    hint: `run '${pin.testsOnly === true ? "node scripts/setup.mjs --tests" : "npm run setup"}', install it, or name it in ${pin.variable}`,
  });
}
