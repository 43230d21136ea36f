import { chmodSync, mkdirSync } from "node:fs";
import { join } from "node:path";
import { defineConfig } from "vitest/config";

// Hundreds of processes are started from the sources: their code is compiled once, also for the user that PostgreSQL runs as.
const compileCache = join(import.meta.dirname, "node_modules/.klio-compile-cache");
mkdirSync(compileCache, { recursive: true });
chmodSync(compileCache, 0o1777);

// One project per layer, so that `unit` and `spec` run alone in seconds. The layers below them use real servers.
const layer = (name: string, testTimeout: number) => ({
  test: {
    name,
    include: [`test/${name}/**/*.test.ts`],
    testTimeout,
    hookTimeout: Math.max(testTimeout, 10_000),
    pool: "forks" as const,
  },
});

export default defineConfig({
  test: {
    maxWorkers: 2,
    env: { NODE_COMPILE_CACHE: compileCache },
    reporters: ["default", "json"],
    outputFile: { json: "node_modules/.klio-tests.json" },
    projects: [layer("unit", 10_000), layer("spec", 60_000), layer("integration", 120_000), layer("e2e", 300_000)],
  },
});
