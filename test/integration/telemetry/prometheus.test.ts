import { createServer } from "node:http";
import { expect, test } from "vitest";
import { setup } from "xstate";
import type { StateMeta } from "../../../src/telemetry/state-telemetry.ts";
import { startTelemetry } from "../../../src/telemetry/telemetry.ts";
import { settle } from "../../support/eventually.ts";
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

test("transitions move the metrics of the Prometheus endpoint", async () => {
  const log = testLog();
  const telemetry = await startTelemetry({ service: "klio-plugin", env: prometheus, log });
  try {
    const url = `http://127.0.0.1:${telemetry.prometheus?.port}/metrics`;
    const scrape = async () => (await (await fetch(url)).text()).split("\n").filter((line) => line.startsWith("klio_"));
    const scope = 'otel_scope_name="klio",otel_scope_schema_url="",otel_scope_version=""';
    expect(await scrape()).toEqual([
      `klio_backup_failures_total{${scope}} 0`,
      `klio_backup_running{${scope}} 0`,
      `klio_backup_successes_total{${scope}} 0`,
      `klio_backup_unverified{${scope}} 0`,
      `klio_backup_verification_failures_total{${scope}} 0`,
      `klio_backup_verifications_total{${scope}} 0`,
    ]);
    const actor = telemetry.start(light, { id: "light/1", input: { name: "a" } });
    actor.send({ type: "late" });
    actor.send({ type: "go" });
    telemetry.record({ type: "wal.received", cluster: "main", bytes: 8192 });
    telemetry.hydrate("klio.backup.latest_completion_time", {}, 1_700_000_000);
    const lines = await scrape();
    expect(lines).toContain(`klio_backup_running{${scope}} 1`);
    expect(lines).toContain(`klio_backup_successes_total{${scope}} 1`);
    expect(lines).toContain(`klio_machine_state{machine="light",${scope},state="green"} 1`);
    expect(lines).toContain(`klio_machine_state{machine="light",${scope},state="red"} 0`);
    expect(lines).toContain(`klio_machine_ignored_total{event="late",machine="light",${scope}} 1`);
    expect(lines).toContain(`klio_wal_received_size_bytes_total{cluster_name="main",${scope}} 8192`);
    expect(lines).toContain(`klio_backup_latest_completion_time_seconds{${scope}} 1.7e+09`);
    actor.stop();
    await settle();
    expect(await scrape()).toContain(`klio_backup_running{${scope}} 0`);
  } finally {
    await telemetry.shutdown();
  }
  expect(log.lines).toEqual([]);
});

test("a busy port ends the start with KLIO-PORT-BUSY", async () => {
  const other = createServer();
  await new Promise<void>((resolve) => other.listen(0, "127.0.0.1", resolve));
  const address = other.address();
  const port = typeof address === "object" ? String(address?.port) : "";
  const env = { ...prometheus, OTEL_EXPORTER_PROMETHEUS_PORT: port };
  await expect(startTelemetry({ service: "klio-plugin", env, log: testLog() })).rejects.toMatchObject({
    code: "KLIO-PORT-BUSY",
    message: expect.stringContaining(`OTEL_EXPORTER_PROMETHEUS_PORT=${port}`),
  });
  other.close();
});
