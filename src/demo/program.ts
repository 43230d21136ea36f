// How the demo runs Klio itself: the same program as this process, reachable by the user that PostgreSQL runs as.
import { existsSync, mkdirSync, readFileSync } from "node:fs";
import { basename, dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { isReachableByAll, linkTree, type RunAs } from "./run-as.ts";

export type Program = {
  /** Path of Node. */
  node: string;
  /** Path of main.ts (or main.js of a build). */
  main: string;
};

const root = resolve(dirname(fileURLToPath(import.meta.url)), "../..");
const here = fileURLToPath(import.meta.url);

/** Packages that Klio needs to run, from the lock file: development and optional ones are left out. */
function neededPackages(): string[] {
  const lock = JSON.parse(readFileSync(join(root, "package-lock.json"), "utf8")) as {
    packages: Record<string, { dev?: boolean; optional?: boolean; devOptional?: boolean }>;
  };
  return Object.entries(lock.packages)
    .filter(
      ([path, { dev, optional, devOptional }]) =>
        path !== "" && !dev && !optional && !devOptional && existsSync(join(root, path)),
    )
    .map(([path]) => path);
}

/**
 * The program as it is when every user can reach it; else (root started the demo from a private directory) a second name
 * for it below `directory`.
 */
export function reachableProgram(directory: string, runAs: RunAs): Program {
  const ownFolder = here.endsWith(".js") ? "dist" : "src";
  const main = join(root, ownFolder, here.endsWith(".js") ? "main.js" : "main.ts");
  if (runAs.uid === undefined || (isReachableByAll(root) && isReachableByAll(process.execPath)))
    return { node: process.execPath, main };
  const copy = join(directory, "program");
  mkdirSync(join(copy, "node_modules"), { recursive: true, mode: 0o755 });
  linkTree(join(root, ownFolder), join(copy, ownFolder));
  linkTree(join(root, "tools", "tools.json"), mkdirFor(join(copy, "tools", "tools.json")));
  linkTree(join(root, "package.json"), join(copy, "package.json"));
  for (const path of neededPackages()) linkTree(join(root, path), mkdirFor(join(copy, path)));
  const node = join(copy, "node");
  linkTree(process.execPath, node);
  return { node, main: join(copy, ownFolder, here.endsWith(".js") ? "main.js" : "main.ts") };
}

/** A tool under a path that the user PostgreSQL runs as can reach. */
export function reachableTool(directory: string, runAs: RunAs, executable: string): string {
  if (runAs.uid === undefined || isReachableByAll(executable)) return executable;
  const copy = join(directory, "program", "bin", basename(executable));
  linkTree(executable, mkdirFor(copy));
  return copy;
}

function mkdirFor(path: string): string {
  mkdirSync(dirname(path), { recursive: true, mode: 0o755 });
  return path;
}
