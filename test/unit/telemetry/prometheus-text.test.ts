import { resourceFromAttributes } from "@opentelemetry/resources";
import { MeterProvider } from "@opentelemetry/sdk-metrics";
import { expect, test } from "vitest";
import { metrics } from "../../../src/telemetry/names.ts";
import { formatFor } from "../../../src/telemetry/prometheus.ts";
import { goNumber, prometheusName, prometheusText } from "../../../src/telemetry/prometheus-text.ts";
import { AskedReader } from "../../support/span-tree.ts";

test("every metric of the contract has the name a Go exporter gives it", () => {
  const names = Object.entries(metrics)
    .filter(([, { origin }]) => origin === "contract")
    .map(([name, { unit, kind }]) => prometheusName(name, unit, kind));
  expect(names).toEqual([
    "klio_backup_running",
    "klio_backup_latest_start_time_seconds",
    "klio_backup_latest_completion_time_seconds",
    "klio_backup_latest_failure_time_seconds",
    "klio_backup_latest_duration_seconds",
    "klio_backup_successes_total",
    "klio_backup_failures_total",
    "klio_backup_verifications_total",
    "klio_backup_verification_failures_total",
    "klio_wal_written_size_bytes_total",
    "klio_wal_written_total",
    "klio_wal_latest_written_time_seconds",
    "klio_consumer_written_size_bytes_total",
    "klio_consumer_written_total",
    "klio_consumer_latest_written_time_seconds",
    "klio_consumer_backup_verification_success_total",
    "klio_consumer_backup_verification_failure_total",
    "klio_base_snapshots",
    "klio_base_latest_snapshot_size_bytes",
    "klio_base_latest_snapshot_files",
    "klio_base_latest_snapshot_dirs",
    "klio_base_latest_snapshot_age_seconds",
    "klio_base_oldest_snapshot_age_seconds",
    "klio_base_uptime_seconds",
    "klio_queue_messages",
    "klio_queue_bytes",
    "controller_runtime_reconcile_total",
    "controller_runtime_reconcile_errors_total",
    "controller_runtime_reconcile_time_seconds",
    "workqueue_depth",
    "workqueue_adds_total",
    "workqueue_retries_total",
  ]);
});

test("names: unit words, annotations, rates, totals and ratios", () => {
  const cases: [string, string, Parameters<typeof prometheusName>[2], string][] = [
    ["system.memory.utilization", "1", "gauge", "system_memory_utilization_ratio"],
    ["system.memory.usage", "By", "updown", "system_memory_usage_bytes"],
    ["rpc.server.call.duration", "s", "histogram", "rpc_server_call_duration_seconds"],
    ["klio.server.queue.messages", "{messages}", "gauge", "klio_server_queue_messages"],
    ["total.things", "", "counter", "things_total"],
    ["speed", "By/s", "gauge", "speed_bytes_per_second"],
    ["9lives", "", "gauge", "_9lives"],
    ["controller_runtime_reconcile_total", "", "counter", "controller_runtime_reconcile_total"],
  ];
  for (const [name, unit, kind, expected] of cases) expect(prometheusName(name, unit, kind)).toBe(expected);
});

test("numbers are written as Go writes them", () => {
  const cases: [number, string, string][] = [
    [0, "0", "0.0"],
    [1, "1", "1.0"],
    [847731, "847731", "847731.0"],
    [1e6, "1e+06", "1e+06"],
    [1073741824, "1.073741824e+09", "1.073741824e+09"],
    [39.36300859, "39.36300859", "39.36300859"],
    [0.0001, "0.0001", "0.0001"],
    [0.00001, "1e-05", "1e-05"],
    [-2.5, "-2.5", "-2.5"],
    [Number.POSITIVE_INFINITY, "+Inf", "+Inf"],
    [Number.NaN, "NaN", "NaN"],
  ];
  for (const [value, text, open] of cases) {
    expect(goNumber(value)).toBe(text);
    expect(goNumber(value, "openmetrics")).toBe(open);
  }
});

async function page(format: "text" | "openmetrics") {
  const reader = new AskedReader();
  const resource = resourceFromAttributes({ "service.name": "klio-server", "k8s.pod.name": 'a"b' });
  const provider = new MeterProvider({ readers: [reader], resource });
  const meter = provider.getMeter("klio");
  meter.createCounter("klio.wal.written_size", { unit: "By", description: "Bytes." }).add(5, { cluster_name: "m" });
  meter.createHistogram("h", { unit: "s", advice: { explicitBucketBoundaries: [0.5, 1e6] } }).record(2);
  const gauge = meter.createGauge("a.gauge", { description: "Two\nlines" });
  gauge.record(1e6, { b: "2", a: "z" });
  gauge.record(1, { b: "1", a: "z" });
  const { resourceMetrics } = await reader.collect();
  return prometheusText(resourceMetrics, format);
}
const scope = 'otel_scope_name="klio",otel_scope_schema_url="",otel_scope_version=""';

test("the text format", async () => {
  expect(await page("text")).toBe(`# HELP a_gauge Two\\nlines
# TYPE a_gauge gauge
a_gauge{a="z",b="1",${scope}} 1
a_gauge{a="z",b="2",${scope}} 1e+06
# HELP h_seconds 
# TYPE h_seconds histogram
h_seconds_bucket{${scope},le="0.5"} 0
h_seconds_bucket{${scope},le="1e+06"} 1
h_seconds_bucket{${scope},le="+Inf"} 1
h_seconds_sum{${scope}} 2
h_seconds_count{${scope}} 1
# HELP klio_wal_written_size_bytes_total Bytes.
# TYPE klio_wal_written_size_bytes_total counter
klio_wal_written_size_bytes_total{cluster_name="m",${scope}} 5
# HELP target_info Target metadata
# TYPE target_info gauge
target_info{k8s_pod_name="a\\"b",service_name="klio-server"} 1
`);
});

test("OpenMetrics names the family of a counter without its suffix, marks floats, and has an end", async () => {
  expect(await page("openmetrics")).toBe(`# HELP a_gauge Two\\nlines
# TYPE a_gauge gauge
a_gauge{a="z",b="1",${scope}} 1.0
a_gauge{a="z",b="2",${scope}} 1e+06
# HELP h_seconds 
# TYPE h_seconds histogram
h_seconds_bucket{${scope},le="0.5"} 0
h_seconds_bucket{${scope},le="1e+06"} 1
h_seconds_bucket{${scope},le="+Inf"} 1
h_seconds_sum{${scope}} 2.0
h_seconds_count{${scope}} 1
# HELP klio_wal_written_size_bytes Bytes.
# TYPE klio_wal_written_size_bytes counter
klio_wal_written_size_bytes_total{cluster_name="m",${scope}} 5.0
# HELP target_info Target metadata
# TYPE target_info gauge
target_info{k8s_pod_name="a\\"b",service_name="klio-server"} 1.0
# EOF
`);
});

test("the client's favourite format is served", () => {
  expect(formatFor(undefined)).toBe("text");
  expect(formatFor("*/*")).toBe("text");
  expect(formatFor("text/plain;version=0.0.4;q=0.5,*/*;q=0.1")).toBe("text");
  const prometheus =
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,text/plain;version=1.0.0;q=0.4,*/*;q=0.1";
  expect(formatFor(prometheus)).toBe("openmetrics");
  expect(formatFor("application/openmetrics-text;version=2.0.0,text/plain;q=0.5")).toBe("text");
});
