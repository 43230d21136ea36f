// What an operator's Prometheus sees: real PostgreSQL, server, sidecar and S3 as processes, scraped by a real Prometheus that has
// the scrape example and the rules of deploy/observability loaded.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, expect, test } from "vitest";
import { parse } from "yaml";
import { klio } from "../../src/demo/klio-command.ts";
import { isRelayed, isTier2Complete } from "../../src/demo/tiers.ts";
import { type MetricName, metrics, type ServiceRole } from "../../src/telemetry/names.ts";
import { prometheusName } from "../../src/telemetry/prometheus-text.ts";
import { eventually } from "../support/eventually.ts";
import { type PrometheusServer, startPrometheus } from "../support/prometheus-server.ts";
import { normalisedScrape } from "../support/scrape-text.ts";
import { openStage, type TestStage } from "../support/stage.ts";

const folder = fileURLToPath(new URL("../../deploy/observability/", import.meta.url));
type Config = {
  global: Record<string, string>;
  rule_files?: string[];
  scrape_configs: {
    job_name: string;
    static_configs: { targets: string[]; labels?: Record<string, string> }[];
    metric_relabel_configs?: unknown;
  }[];
};
const jobs: Record<ServiceRole, string> = { server: "klio-server", plugin: "klio-sidecar" };

/** The scrape example with the targets of this test, looked at each second instead of each quarter of a minute. */
function exampleConfig({ ports }: TestStage["stage"]["surroundings"]): Config {
  const config: Config = parse(readFileSync(join(folder, "prometheus.yml"), "utf8"));
  const port = { [jobs.server]: ports.serverMetrics, [jobs.plugin]: ports.sidecarMetrics };
  for (const scrape of config.scrape_configs) {
    const [{ labels } = {}] = scrape.static_configs;
    const targets = [`127.0.0.1:${port[scrape.job_name]}`];
    scrape.static_configs = [{ targets, ...(labels !== undefined && { labels: { ...labels, cluster_name: "demo" } }) }];
  }
  config.global = { scrape_interval: "1s", evaluation_interval: "1s" };
  config.rule_files = config.rule_files?.map((file) => join(folder, file)) ?? [];
  return config;
}

const stack = new AsyncDisposableStack();
let place: TestStage;
let prometheus: PrometheusServer;

beforeAll(async () => {
  place = stack.use(await openStage({}));
  const { stage, backup } = place;
  prometheus = stack.use(
    await startPrometheus({
      directory: join(place.directory, "prometheus"),
      config: exampleConfig(stage.surroundings),
    }),
  );
  // Counters move between two looks at them.
  await eventually(async () => (await prometheus.query("klio_backup_successes_total == 0")).length === 1);
  const tier2 = ["--enable-tier2-backup"];
  expect((await backup("first", tier2)).code).toBe(0);
  expect((await backup("first", tier2)).code, "a second backup of the same name").toBe(64);
  expect((await backup("second", tier2)).code).toBe(0);
  const { signal } = new AbortController();
  for (const name of ["first", "second"])
    await eventually(() => isRelayed(stage, name, signal), { timeoutMs: 60_000, what: `backup ${name} on tier 2` });
  await stage.postgres.query("select pg_switch_wal()");
  await eventually(async () => /klio_consumer_relayed_total\{.*\} 2\n/.test(await place.page("server")));
  await eventually(() => isTier2Complete(stage, signal), { timeoutMs: 60_000, what: "all WAL on tier 2" });
}, 180_000);
afterAll(() => stack.disposeAsync(), 60_000);

/** Metrics that only trouble brings; counters of that kind begin with their first event. */
const troubles: readonly MetricName[] = [
  "klio.consumer.abandoned",
  "klio.queue.redeliveries",
  "klio.queue.undecodable",
  "klio.machine.ignored",
  "klio.slot.time_to_full",
];

type Expected = Record<string, "counter" | "gauge" | "histogram">;
const own: Record<ServiceRole, Expected> = { server: {}, plugin: {} };
for (const [name, { unit, kind, roles }] of Object.entries(metrics))
  for (const role of roles)
    if (!troubles.some((trouble) => trouble === name)) own[role][prometheusName(name, unit, kind)] = kind;
const libraries: Record<ServiceRole, Expected> = {
  server: { rpc_server_call_duration_seconds: "histogram" },
  plugin: { rpc_server_call_duration_seconds: "histogram", rpc_client_call_duration_seconds: "histogram" },
};
const ofEveryProcess: Expected = {
  process_cpu_time_seconds_total: "counter",
  system_cpu_time_seconds_total: "counter",
  system_memory_usage_bytes: "gauge",
  system_memory_utilization_ratio: "gauge",
  system_network_io_bytes_total: "counter",
  nodejs_eventloop_utilization_ratio: "gauge",
  nodejs_eventloop_time_seconds_total: "counter",
  nodejs_eventloop_delay_p99_seconds: "gauge",
  v8js_gc_duration_seconds: "histogram",
  v8js_memory_heap_used_bytes: "gauge",
  v8js_memory_heap_space_size_bytes: "gauge",
};

type Metadata = Record<string, { type: string; help: string }[]>;

test.each(["server", "plugin"] as const)(
  "every metric of the %s is queried by its name, with its type",
  async (role) => {
    const wanted: Expected = { ...own[role], ...libraries[role], ...ofEveryProcess };
    expect(Object.keys(own[role]).length).toBeGreaterThan(10);
    const job = jobs[role];
    for (const [name, type] of Object.entries(wanted)) {
      const series = type === "histogram" ? `${name}_bucket` : name;
      await eventually(async () => (await prometheus.query(`${series}{job="${job}"}`)).length > 0, {
        what: `${series} of ${job}`,
      });
    }
    const known = await prometheus.api<Metadata>("metadata");
    // In OpenMetrics a counter's family has the name without _total.
    const told = Object.keys(wanted).map((name) => [
      name,
      known[name]?.[0]?.type ?? known[name.replace(/_total$/, "")]?.[0]?.type,
    ]);
    expect(Object.fromEntries(told)).toEqual(wanted);
  },
);

const golden = (process: string) => `../golden/scrape-${process}.txt`;

test.each(["server", "sidecar"] as const)(
  "the whole page of the %s, normalised, is the committed one",
  async (process) => {
    // Right after another look at it the runtime has no delays of its event loop to tell.
    const page = await eventually(async () => {
      const text = await place.page(process);
      return text.includes("nodejs_eventloop_delay_p99_seconds{") && text;
    });
    await expect(normalisedScrape(page, place.directory)).toMatchFileSnapshot(golden(process));
  },
);

test("target_info names each service, and every series its scope, where the scrape does not drop it", async () => {
  const { global, scrape_configs } = exampleConfig(place.stage.surroundings);
  const whole = scrape_configs.map(({ metric_relabel_configs: _, ...scrape }) => scrape);
  await using second = await startPrometheus({
    directory: join(place.directory, "prometheus-whole"),
    config: { global, scrape_configs: whole },
  });
  for (const [role, job] of Object.entries(jobs)) {
    const [info] = await eventually(async () => {
      const found = await second.query(`target_info{job="${job}"}`);
      return found.length > 0 && found;
    });
    expect(info).toMatchObject({ labels: { service_name: `klio-${role}` }, value: 1 });
    const scopes = await second.query(
      `count by (otel_scope_name) ({__name__=~"(klio|rpc|system|process|nodejs|v8js)_.+",job="${job}"})`,
    );
    expect(scopes.map(({ labels }) => labels.otel_scope_name).sort()).toEqual([
      "@opentelemetry/instrumentation-runtime-node",
      "klio",
      "klio.grpc",
      "klio.host",
    ]);
    expect(await second.query(`{__name__=~"klio_.+",otel_scope_name!="klio",job="${job}"}`)).toEqual([]);
  }
  // The scrape example drops them: the rules add up and join without.
  expect(await prometheus.query('{otel_scope_name!=""}')).toEqual([]);
});

test("a restore beside the sidecar, in its environment, does not want its port", async () => {
  const { stage } = place;
  const port = String(stage.surroundings.ports.sidecarMetrics);
  await klio({
    program: stage.program,
    env: { ...stage.clientEnv, OTEL_METRICS_EXPORTER: "prometheus", OTEL_EXPORTER_PROMETHEUS_PORT: port },
    runAs: stage.runAs,
    args: ["restore", join(stage.clientEnv.HOME ?? "", "restored"), "--config", stage.surroundings.sidecarConfig],
  });
});

type Rule = { name: string; type: "recording" | "alerting"; health: string; lastError?: string; state?: string };
const rulesOf = async () =>
  (await prometheus.api<{ groups: { rules: Rule[] }[] }>("rules")).groups.flatMap(({ rules }) => rules);
const inFiles = ["klio-recording.yaml", "klio-alerts.yaml"].flatMap((name) =>
  (
    parse(readFileSync(join(folder, "rules", name), "utf8")) as {
      groups: { rules: { record?: string; alert?: string }[] }[];
    }
  ).groups.flatMap(({ rules }) => rules.map(({ record, alert }) => record ?? alert)),
);

test("every rule is evaluated without an error, and every recording rule has a value", async () => {
  const rules = await eventually(async () => {
    const found = await rulesOf();
    return found.every(({ health }) => health !== "unknown") && found;
  });
  expect(rules.map(({ name }) => name).sort()).toEqual(inFiles.sort());
  expect(rules.filter(({ health, lastError }) => health !== "ok" || lastError !== undefined)).toEqual([]);
  for (const { name } of rules.filter(({ type }) => type === "recording"))
    await eventually(async () => (await prometheus.query(name)).length > 0, { what: `a value of ${name}` });
  for (const tier of ["tier1", "tier2"])
    expect(await prometheus.query(`cluster_tier:klio_wal_exposure_seconds:max{tier="${tier}"}`), tier).toHaveLength(1);
});

test("no alert waits or fires in a good state; one does when the sidecar is gone", async () => {
  // Pending ones count: what lasts for minutes is told at the first evaluation.
  const alerts = async () =>
    (await prometheus.api<{ alerts: { labels: { alertname: string } }[] }>("alerts")).alerts.map(
      ({ labels }) => labels.alertname,
    );
  await eventually(async () => {
    const found = (await alerts()).filter((name) => name !== "KlioVolumeFilling"); // of the machine that runs this
    if (found.length > 0) throw new Error(found.join(", "));
    return true;
  });
  await place.stage.sidecar.stop();
  await eventually(async () => (await alerts()).includes("KlioSidecarDown"), { what: "KlioSidecarDown" });
});
