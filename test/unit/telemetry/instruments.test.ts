import { diag } from "@opentelemetry/api";
import { MeterProvider } from "@opentelemetry/sdk-metrics";
import { expect, test } from "vitest";
import type { Fact } from "../../../src/domain/facts.ts";
import { Instruments } from "../../../src/telemetry/instruments.ts";
import { isMeasured, recordFact } from "../../../src/telemetry/metrics.ts";
import { metrics } from "../../../src/telemetry/names.ts";
import { AskedReader, valuesOf } from "../../support/span-tree.ts";

function make() {
  const faults: string[] = [];
  const reader = new AskedReader();
  const meter = new MeterProvider({ readers: [reader] }).getMeter("klio");
  const instruments = new Instruments(meter, (error) => faults.push(String(error)));
  return { instruments, faults, reader, values: async () => valuesOf(await reader.metrics()) };
}

test("a flag is 1 while at least one is there, and 0 afterwards", async () => {
  const { instruments, values } = make();
  instruments.flag("klio.backup.running", 1);
  instruments.flag("klio.backup.running", 1);
  expect(await values()).toEqual({ "klio.backup.running": 1 });
  instruments.flag("klio.backup.running", -1);
  expect(await values()).toEqual({ "klio.backup.running": 1 });
  instruments.flag("klio.backup.running", -1);
  expect(await values()).toEqual({ "klio.backup.running": 0 });
});

test("what a metric cannot take is dropped and told, and the series lives on", async () => {
  const { instruments, faults, values } = make();
  const labels = { cluster_name: "main" };
  instruments.add("klio.wal.written", 1, labels);
  instruments.add("klio.wal.written", Number.NaN, labels);
  instruments.add("klio.wal.written", -1, labels);
  instruments.set("klio.wal.written", 1, labels);
  instruments.add("klio.nothing", 1);
  expect(await values()).toEqual({ "klio.wal.written{cluster_name=main}": 1 });
  expect(faults).toEqual([
    "Error: klio.wal.written cannot be NaN",
    "Error: a counter cannot fall by 1",
    "Error: klio.wal.written is no gauge of Klio",
    "Error: klio.nothing is no counter of Klio",
  ]);
});

test("a gauge of whole numbers drops the fraction, without a word from the SDK", async () => {
  const said: string[] = [];
  diag.setLogger({ ...console, verbose: console.debug, warn: (text: string) => said.push(text) });
  try {
    const { instruments, values } = make();
    instruments.set("klio.backup.latest_start_time", 1_700_000_000.75);
    instruments.observe("klio.queue.bytes", () => [{ value: 7.9 }]);
    instruments.set("klio.backup.latest_duration_seconds", 1.5);
    expect(await values()).toEqual({
      "klio.backup.latest_start_time": 1_700_000_000,
      "klio.queue.bytes": 7,
      "klio.backup.latest_duration_seconds": 1.5,
    });
    expect(said).toEqual([]);
  } finally {
    diag.disable();
  }
});

test("what is held is told until the end, though its observers are taken back", async () => {
  const { instruments, values } = make();
  let messages = 3;
  const stop = instruments.observe("klio.queue.messages", () => [{ value: messages }]);
  instruments.hold();
  messages = 4;
  stop();
  instruments.flag("klio.backup.running", 1);
  expect(await values()).toEqual({ "klio.queue.messages": 3, "klio.backup.running": 1 });
  instruments.hold();
  expect(await values()).toEqual({ "klio.queue.messages": 3, "klio.backup.running": 1 });
});

test("an observed series ends with its subject; a reader that throws costs only itself", async () => {
  const { instruments, faults, values } = make();
  const sources = new Map([["a", 1]]);
  const source = (name: string) => ({ snapshot_source: name, tier: "tier1" });
  instruments.observe("klio.base.snapshots", () => {
    throw new Error("broken reader");
  });
  const stop = instruments.observe("klio.base.snapshots", () =>
    [...sources].map(([name, value]) => ({ value, labels: source(name) })),
  );
  expect(await values()).toEqual({ "klio.base.snapshots{snapshot_source=a,tier=tier1}": 1 });
  sources.clear();
  sources.set("b", 2);
  expect(await values()).toEqual({ "klio.base.snapshots{snapshot_source=b,tier=tier1}": 2 });
  stop();
  expect(await values()).toEqual({});
  expect(faults).toHaveLength(3);
});

test("hydrate states what is known of a gauge, and the zero of a counter", async () => {
  const { instruments, values } = make();
  instruments.hydrate("klio.wal.latest_written_time", { cluster_name: "main" }, 1_700_000_000);
  instruments.hydrate("klio.wal.written", { cluster_name: "main" }, 0);
  expect(await values()).toEqual({
    "klio.wal.latest_written_time{cluster_name=main}": 1_700_000_000,
    "klio.wal.written{cluster_name=main}": 0,
  });
});

test("unit, type and description are those of the table; '-' is no unit at all", async () => {
  const { instruments, reader } = make();
  for (const [name, { kind }] of Object.entries(metrics)) {
    if (kind === "counter") instruments.add(name, 1);
    else if (kind === "gauge") instruments.set(name, 1);
    else instruments.record(name, 1);
  }
  const seen = await reader.metrics();
  expect(seen).toHaveLength(Object.keys(metrics).length);
  for (const { descriptor } of seen) {
    const { unit, description, int } = metrics[descriptor.name as keyof typeof metrics];
    expect(descriptor).toMatchObject({ unit, description, valueType: int ? 0 : 1 });
    expect(description).toMatch(/^[A-Z]/);
  }
  const units = Object.entries(metrics)
    .filter(([, row]) => row.origin === "contract")
    .map(([, { unit }]) => unit);
  expect(new Set(units)).toEqual(new Set(["", "s", "By"]));
});

const now = 1_700_000_000;
const facts: [Fact, Record<string, number>][] = [
  [{ type: "wal.received", cluster: "c", bytes: 5 }, { "klio.wal.received_size{cluster_name=c}": 5 }],
  [{ type: "wal.durable", cluster: "c", bytes: 5 }, { "klio.wal.written_size{cluster_name=c}": 5 }],
  [
    { type: "wal.stored", cluster: "c", name: "000000020000000000000003", rawBytes: 16 << 20, sendToTier2: true },
    {
      "klio.wal.written{cluster_name=c}": 1,
      "klio.wal.latest_written_time{cluster_name=c}": now,
      "klio.wal.latest_written_lsn{cluster_name=c,tier=tier1}": 0x4000000,
      "klio.wal.latest_written_timeline{cluster_name=c,tier=tier1}": 2,
    },
  ],
  [
    { type: "wal.stored", cluster: "c", name: "00000002.history", rawBytes: 41, sendToTier2: true },
    { "klio.wal.written{cluster_name=c}": 1, "klio.wal.latest_written_time{cluster_name=c}": now },
  ],
  [
    { type: "segment.offloaded", cluster: "c", name: "000000020000000000000003", bytes: 9, rawBytes: 1 << 24 },
    {
      "klio.consumer.written{cluster_name=c}": 1,
      "klio.consumer.written_size{cluster_name=c}": 9,
      "klio.consumer.latest_written_time{cluster_name=c}": now,
      "klio.wal.latest_written_lsn{cluster_name=c,tier=tier2}": 0x4000000,
      "klio.wal.latest_written_timeline{cluster_name=c,tier=tier2}": 2,
    },
  ],
  [
    { type: "segment.abandoned", cluster: "c", name: "x", reason: "y" },
    { "klio.consumer.abandoned{cluster_name=c}": 1 },
  ],
  [
    { type: "relay.verified", cluster: "c", backup: "b" },
    { "klio.consumer.backup_verification_success{cluster_name=c}": 1 },
  ],
  [
    { type: "relay.corrupt", cluster: "c", backup: "b", reason: "y" },
    { "klio.consumer.backup_verification_failure{cluster_name=c}": 1 },
  ],
  [{ type: "relay.finished", cluster: "c", backup: "b" }, { "klio.consumer.relayed{cluster_name=c}": 1 }],
  [{ type: "child.restarted", name: "nats", reason: "y" }, { "klio.child.restarts{child=nats}": 1 }],
];

test.each(facts)("$type moves its instruments and no other", async (fact, expected) => {
  const { instruments, values, faults } = make();
  expect(isMeasured(fact)).toBe(true);
  recordFact(instruments, fact, now);
  expect(await values()).toEqual(expected);
  expect(faults).toEqual([]);
});

test("a round of a reconcile loop moves the names that dashboards of controllers know", async () => {
  const { instruments, values, reader } = make();
  const controller = "tiers";
  recordFact(instruments, { type: "reconcile.begun", controller, retried: false }, now);
  recordFact(instruments, { type: "reconcile.waiting", controller }, now + 1);
  recordFact(instruments, { type: "reconcile.ended", controller, failed: true }, now + 4);
  const counts = {
    "controller_runtime_reconcile_total{controller=tiers,result=error}": 1,
    "controller_runtime_reconcile_total{controller=tiers,result=success}": 0,
    "controller_runtime_reconcile_errors_total{controller=tiers}": 1,
    "workqueue_adds_total{name=tiers}": 1,
    "workqueue_retries_total{name=tiers}": 0,
    "workqueue_depth{name=tiers}": 1,
  };
  expect(await values()).toMatchObject(counts);
  const time = (await reader.metrics()).find(({ descriptor }) => descriptor.name.endsWith("time_seconds"));
  expect(time?.dataPoints).toMatchObject([{ attributes: { controller }, value: { count: 1, sum: 4 } }]);
  recordFact(instruments, { type: "reconcile.begun", controller, retried: true }, now + 4);
  recordFact(instruments, { type: "reconcile.ended", controller, failed: false }, now + 5);
  expect(await values()).toMatchObject({
    ...counts,
    "controller_runtime_reconcile_total{controller=tiers,result=success}": 1,
    "workqueue_adds_total{name=tiers}": 2,
    "workqueue_retries_total{name=tiers}": 1,
    "workqueue_depth{name=tiers}": 0,
  });
});

test("every attribute that a fact brings is one of the metric's row", async () => {
  const { instruments, reader } = make();
  for (const [fact] of facts) recordFact(instruments, fact, now);
  for (const { descriptor, dataPoints } of await reader.metrics())
    for (const { attributes } of dataPoints)
      expect(Object.keys(attributes).sort()).toEqual(
        [...metrics[descriptor.name as keyof typeof metrics].attributes].sort(),
      );
});
