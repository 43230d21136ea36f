// What a process loads: nothing of the SDK while the gate is closed, asked of a process of its own.
import { execFile } from "node:child_process";
import { promisify } from "node:util";
import { expect, test } from "vitest";

const run = promisify(execFile);
const telemetry = new URL("../../../src/telemetry/telemetry.ts", import.meta.url).href;

/** Starts telemetry in a child process and prints the packages of OpenTelemetry that it has loaded by then. */
const program = `
import { registerHooks } from "node:module";
const loaded = new Set();
registerHooks({
  load(url, context, next) {
    const match = /node_modules\\/(@opentelemetry\\/[^/]+|@grpc\\/[^/]+)\\//.exec(url);
    if (match) loaded.add(match[1]);
    return next(url, context);
  },
});
const { startTelemetry } = await import(${JSON.stringify(telemetry)});
const quiet = () => undefined;
const log = { debug: quiet, info: quiet, warn: quiet, error: quiet, with: () => log };
const before = process.getActiveResourcesInfo();
const one = await startTelemetry({ service: "klio-server", env: process.env, log });
console.log(JSON.stringify({ loaded: [...loaded].sort(), enabled: one.enabled, before, after: process.getActiveResourcesInfo() }));
await one.shutdown();
`;

async function loadedWith(env: Record<string, string>) {
  const { stdout } = await run(process.execPath, ["--input-type=module", "-e", program], {
    env: { PATH: process.env.PATH ?? "", ...env },
  });
  return JSON.parse(stdout) as { loaded: string[]; enabled: boolean; before: string[]; after: string[] };
}

test("with the gate closed only the API is loaded, and nothing is opened", async () => {
  const { loaded, enabled, before, after } = await loadedWith({ POD_NAME: "pod-0", OTEL_SERVICE_NAME: "" });
  expect({ loaded, enabled }).toEqual({ loaded: ["@opentelemetry/api"], enabled: false });
  expect(after).toEqual(before);
});

test("with the gate open the SDK is loaded (so the test above looks at the right thing)", async () => {
  const { loaded, enabled } = await loadedWith({ OTEL_TRACES_EXPORTER: "none", OTEL_METRICS_EXPORTER: "none" });
  expect(enabled).toBe(true);
  expect(loaded).toContain("@opentelemetry/sdk-trace");
  expect(loaded).toContain("@opentelemetry/sdk-metrics");
});
