// The whole scrape of a server and of a sidecar after a fixed scenario, values normalised, against the committed text.
import { expect, test } from "vitest";
import { setup } from "xstate";
import type { StateMeta } from "../../../src/telemetry/state-telemetry.ts";
import { startTelemetry, type Telemetry, type TelemetryOptions } from "../../../src/telemetry/telemetry.ts";
import { testLog } from "../../support/test-log.ts";

const env = (service: string) => ({
  OTEL_SERVICE_NAME: service,
  OTEL_RESOURCE_ATTRIBUTES: "deployment.environment=production",
  OTEL_METRICS_EXPORTER: "prometheus",
  OTEL_TRACES_EXPORTER: "none",
  OTEL_EXPORTER_PROMETHEUS_PORT: "0",
});

/** Families of `klio_*`, `target_info`, and the names of the rest; times and amounts of this machine left out. */
function normalised(page: string): string {
  const lines = page.split("\n").filter((line) => !/^(# (HELP|TYPE) )?(nodejs|v8js)_/.test(line));
  return lines
    .map((line) => (/^(process|system)_/.test(line) ? line.replace(/ \S+$/, " <n>") : line))
    .map((line) => line.replace(/^(klio_stage_duration_seconds_(?:bucket|sum)\{.*\}) \S+$/, "$1 <n>"))
    .map((line) => line.replace(/(_time_seconds\{.*\}) 1\.\d+e\+09$/, "$1 <time>"))
    .map((line) => line.replace(/(_duration_seconds\{.*\}) \S+$/, "$1 <n>"))
    .join("\n");
}

async function scrapeOf(
  service: TelemetryOptions["service"],
  scenario: (telemetry: Telemetry) => void,
): Promise<string> {
  const telemetry = await startTelemetry({ service, env: env(service), log: testLog() });
  try {
    scenario(telemetry);
    const response = await fetch(`http://127.0.0.1:${telemetry.prometheus?.port}/metrics`);
    expect(response.headers.get("content-type")).toBe("text/plain; version=0.0.4; charset=utf-8; escaping=underscores");
    const page = await response.text();
    for (const name of ["nodejs_eventloop_utilization_ratio", "v8js_memory_heap_space_size_bytes"])
      expect(page).toContain(name);
    return normalised(page);
  } finally {
    await telemetry.shutdown();
  }
}

test("the server", async () => {
  const page = await scrapeOf("klio-server", (telemetry) => {
    const cluster = "main";
    const name = "000000010000000000000003";
    telemetry.hydrate("klio.consumer.backup_verification_success", { cluster_name: cluster }, 0);
    telemetry.record({ type: "wal.received", cluster, bytes: 16_777_216 });
    telemetry.record({ type: "wal.durable", cluster, bytes: 4_000_000 });
    telemetry.record({ type: "wal.stored", cluster, name, rawBytes: 16_777_216, sendToTier2: true });
    telemetry.record({ type: "segment.offloaded", cluster, name, bytes: 4_000_000, rawBytes: 16 << 20 });
    telemetry.record({ type: "relay.verified", cluster, backup: "b" });
    telemetry.record({ type: "relay.corrupt", cluster, backup: "c", reason: "x" });
    telemetry.record({ type: "child.restarted", name: "nats-server", reason: "x" });
    const labels = { snapshot_source: "klio@main:/var/lib/postgresql/data/pgdata", tier: "tier1" };
    telemetry.observe("klio.base.snapshots", () => [{ value: 2, labels }]);
    telemetry.observe("klio.base.latest_snapshot_size", () => [{ value: 30_000_000, labels }]);
    telemetry.observe("klio.base.latest_snapshot_files", () => [{ value: 1_200, labels }]);
    telemetry.observe("klio.base.latest_snapshot_dirs", () => [{ value: 30, labels }]);
    telemetry.observe("klio.base.latest_snapshot_age", () => [{ value: 60.5, labels }]);
    telemetry.observe("klio.base.oldest_snapshot_age", () => [{ value: 3_600.5, labels }]);
    telemetry.observe("klio.base.uptime", () => [{ value: 12.5 }]);
    telemetry.observe("klio.queue.messages", () => [{ value: 0 }]);
    telemetry.observe("klio.queue.bytes", () => [{ value: 0 }]);
    telemetry.observe("klio.wal.exposure", () => [{ value: 0.25, labels: { cluster_name: cluster, tier: "tier1" } }]);
  });
  await expect(page).toMatchFileSnapshot("../../golden/scrape-server.txt");
});

const backup = setup({
  types: { events: {} as { type: "done" }, meta: {} as StateMeta },
}).createMachine({
  id: "example",
  initial: "running",
  meta: {
    telemetry: {
      span: "backup",
      tracer: "klio.backup",
      newTrace: true,
      running: "klio.backup.running",
      latestStart: "klio.backup.latest_start_time",
      duration: "klio.backup.latest_duration_seconds",
    },
  },
  states: {
    running: { on: { done: "completed" } },
    completed: {
      type: "final",
      meta: {
        telemetry: {
          outcome: "ok",
          count: ["klio.backup.successes", "klio.backup.verifications"],
          latestStart: "klio.backup.latest_completion_time",
        },
      },
    },
  },
});

test("the sidecar", async () => {
  const page = await scrapeOf("klio-plugin", (telemetry) => {
    const actor = telemetry.start(backup, { id: "backup/1", input: undefined });
    actor.send({ type: "done" });
    telemetry.hydrate("klio.backup.latest_failure_time", {}, 1_700_000_000);
  });
  await expect(page).toMatchFileSnapshot("../../golden/scrape-sidecar.txt");
});
