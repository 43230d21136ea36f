import { expect, test } from "vitest";
import { setup } from "xstate";
import type { StateMeta } from "../../../src/telemetry/state-telemetry.ts";
import { noTelemetry, startTelemetry } from "../../../src/telemetry/telemetry.ts";
import { testLog } from "../../support/test-log.ts";

const light = setup({
  types: { input: {} as { name: string }, events: {} as { type: "go" } | { type: "late" }, meta: {} as StateMeta },
}).createMachine({
  id: "light",
  initial: "red",
  states: {
    red: { on: { go: "green" } },
    green: { meta: { telemetry: { running: "klio.backup.running", count: "klio.backup.successes" } } },
  },
});
const prometheus = {
  OTEL_METRICS_EXPORTER: "prometheus",
  OTEL_TRACES_EXPORTER: "none",
  OTEL_EXPORTER_PROMETHEUS_PORT: "0",
  OTEL_SERVICE_NAME: "klio-plugin",
};

test("the closed gate starts actors all the same", () => {
  const actor = noTelemetry().start(light, { id: "light/1", input: { name: "a" } });
  actor.send({ type: "go" });
  expect(actor.getSnapshot().value).toBe("green");
});

test("an environment without OTEL_ variables leaves telemetry off; OTEL_SDK_DISABLED turns it off", async () => {
  const log = testLog();
  for (const env of [
    { PATH: "/bin", OTEL_SERVICE_NAME: "" },
    { ...prometheus, OTEL_SDK_DISABLED: "true" },
  ]) {
    const telemetry = await startTelemetry({ service: "klio-plugin", env, log });
    expect(telemetry.enabled).toBe(false);
    expect(telemetry.prometheus).toBeUndefined();
  }
  expect(log.lines).toEqual([]);
});

test("a console that throws does not stop the actors it looks at", () => {
  const inspect = () => {
    throw new Error("broken console");
  };
  const actor = noTelemetry({ inspect }).start(light, { id: "light/1", input: { name: "a" } });
  actor.send({ type: "go" });
  expect(actor.getSnapshot().status).toBe("active");
});
