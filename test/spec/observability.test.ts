// deploy/observability and docs/runbooks against the metrics, labels, statecharts and commands that Klio really has. That no
// page names a metric that is none is in telemetry.test.ts; whether the rules are PromQL and do what they say is for promtool:
// test/integration/observability/promtool.test.ts.
import { readdirSync } from "node:fs";
import { expect, test } from "vitest";
import { parse } from "yaml";
import { loadMachines } from "../../scripts/docs/machines.ts";
import type { ChartState } from "../../src/console/chart.ts";
import { metrics } from "../../src/telemetry/names.ts";
import {
  type Alert,
  badRecordNames,
  commandsOf,
  type Expression,
  incompleteAlerts,
  incompleteRunbooks,
  type RuleFile,
  type RuleTests,
  scrapedLabels,
  unknownCommands,
  unknownJobs,
  unknownLabels,
  unknownSeries,
  unknownStates,
  unpairedRunbooks,
  untestedAlerts,
} from "./support/observability-rules.ts";
import { type Source, textOf } from "./support/sources.ts";

const filesIn = (folder: string): Source[] =>
  readdirSync(new URL(`../../${folder}/`, import.meta.url))
    .map((name) => `${folder}/${name}`)
    .map((path) => ({ path, text: textOf(path) }));

const ruleFiles = filesIn("deploy/observability/rules");
const testFiles = filesIn("deploy/observability/tests");
const runbooks = filesIn("docs/runbooks");
const dashboards = filesIn("deploy/observability/grafana");
const pages = [
  ...runbooks,
  ...["deploy/observability/README.md", "docs/operations.md"].map((path) => ({ path, text: textOf(path) })),
];

const rules = ruleFiles.flatMap(({ path, text }) =>
  (parse(text) as RuleFile).groups.flatMap(({ rules }) => rules.map((rule) => ({ path, rule }))),
);
const alerts = rules.flatMap(({ rule }): Alert[] => ("alert" in rule ? [rule] : []));
const names = alerts.map(({ alert }) => alert);
const records = rules.flatMap(({ rule }) => ("record" in rule ? [rule.record] : []));

const scrape: { scrape_configs: { job_name: string; static_configs: { labels?: Record<string, string> }[] }[] } = parse(
  textOf("deploy/observability/prometheus.yml"),
);
const jobs = scrape.scrape_configs.map(({ job_name }) => job_name);
const targetLabelsOf = (job: string) =>
  scrape.scrape_configs
    .filter(({ job_name }) => job_name === job)
    .flatMap(({ static_configs }) => static_configs.flatMap(({ labels = {} }) => Object.keys(labels)));
const scraped = scrapedLabels({ server: targetLabelsOf("klio-server"), plugin: targetLabelsOf("klio-sidecar") });

type Panel = { title: string; targets?: { expr: string }[]; panels?: Panel[] };
type Dashboard = { panels: Panel[]; templating: { list: { name: string; query: string | { query: string } }[] } };
const panelsOf = (panels: readonly Panel[]): Panel[] =>
  panels.flatMap((panel) => [panel, ...panelsOf(panel.panels ?? [])]);
const expressions: Expression[] = [
  ...rules.map(({ path, rule }) => ({
    place: `${path}: ${"alert" in rule ? rule.alert : rule.record}`,
    text: rule.expr,
  })),
  ...dashboards.flatMap(({ path, text }) => {
    const { panels, templating }: Dashboard = JSON.parse(text);
    return [
      ...panelsOf(panels).flatMap(({ title, targets = [] }) =>
        targets.map(({ expr }) => ({ place: `${path}: ${title}`, text: expr })),
      ),
      ...templating.list.map(({ name, query }) => ({
        place: `${path}: variable ${name}`,
        text: typeof query === "string" ? query : query.query,
      })),
    ];
  }),
  ...testFiles.flatMap(({ path, text }) =>
    (parse(text) as RuleTests).tests.flatMap(({ name, input_series }) =>
      input_series.map(({ series }) => ({ place: `${path}: ${name}`, text: series })),
    ),
  ),
  ...pages.flatMap(({ path, text }) =>
    [...text.matchAll(/```promql\n([\s\S]*?)```/g)].map(([, query = ""]) => ({ place: path, text: query })),
  ),
];

const leaves = ({ states }: ChartState, path: readonly string[] = []): string[] =>
  states.flatMap((state) => {
    const own = [...path, state.name];
    return state.states.length === 0 ? [own.join(".")] : leaves(state, own);
  });
const machines = new Map((await loadMachines()).map(({ id, chart }) => [id, leaves(chart.root)]));

test("rules, dashboard, runbooks and cases of the rules are read", () => {
  expect(alerts.length).toBeGreaterThan(14);
  expect(records.length).toBeGreaterThan(10);
  expect(expressions.length).toBeGreaterThan(150);
  expect(scraped.size).toBeGreaterThan(Object.keys(metrics).length);
});

test("every series is scraped or recorded", () => {
  expect(unknownSeries(expressions, scraped, records)).toEqual([]);
  expect(badRecordNames(records)).toEqual([]);
});

test("matchers name labels that the series have, and jobs of the scrape example", () => {
  expect(unknownLabels(expressions, scraped)).toEqual([]);
  expect(unknownJobs(expressions, jobs)).toEqual([]);
});

test("matchers of klio_machine_state name statecharts and states of them", () => {
  expect(unknownStates(expressions, machines)).toEqual([]);
});

test("every alert has severity, texts, a runbook, and cases in which it fires and does not", () => {
  expect(new Set(names).size).toBe(names.length);
  expect(incompleteAlerts(alerts)).toEqual([]);
  expect(
    unpairedRunbooks(
      names,
      runbooks.map(({ path }) => path),
    ),
  ).toEqual([]);
  expect(incompleteRunbooks(runbooks)).toEqual([]);
  expect(
    untestedAlerts(
      names,
      testFiles.map(({ text }) => parse(text) as RuleTests),
    ),
  ).toEqual([]);
});

test("runbooks call commands with options that they have, and link to pages that are there", () => {
  expect(unknownCommands(pages, commandsOf(textOf("docs/reference/cli.md")))).toEqual([]);
  const links = pages.flatMap(({ path, text }) =>
    [...text.matchAll(/\]\((?!https?:)([^)#\s]+)[^)]*\)/g)].map(([, link = ""]) =>
      new URL(link, `file:///${path}`).pathname.slice(1),
    ),
  );
  expect(links.length).toBeGreaterThan(20);
  for (const link of links) expect(() => textOf(link), link).not.toThrow();
});

const written = (text: string): Expression[] => [{ place: "a.yaml: a", text }];
const page = (text: string): Source[] => [{ path: "docs/runbooks/KlioA.md", text }];

test("caught: metrics and recorded series that are none", () => {
  for (const bad of [
    "rate(klio_wal_written_bytes_total[5m])",
    "klio_stage_duration_seconds",
    "cluster:klio_wal_written_total:max",
  ])
    expect(unknownSeries(written(bad), scraped, records), bad).toHaveLength(1);
  expect(unknownSeries(written("klio_stage_duration_seconds_bucket"), scraped, records)).toEqual([]);
  for (const name of ["klio_wal_written_total", "pod:klio_wal_written_total:max", "cluster:wal:max", "cluster:klio_a:"])
    expect(badRecordNames([name]), name).toHaveLength(1);
});

test("caught: labels that the series do not have", () => {
  for (const bad of [
    `klio_wal_written_total{cluster="a"}`,
    `klio_queue_messages{stream="a"}`,
    `klio_queue_messages{cluster_name="a"}`,
    `cluster:klio_wal_latest_written_time_seconds:max{tier="tier1"}`,
    `up{tier="tier1"}`,
  ])
    expect(unknownLabels(written(bad), scraped), bad).toHaveLength(1);
  for (const good of [
    `klio_backup_running{cluster_name="a",job=~"b"}`,
    `klio_stage_duration_seconds_bucket{le="1",stage!="a"}`,
    `cluster_tier:klio_wal_exposure_seconds:max{cluster_name="a",tier="b"}`,
  ])
    expect(unknownLabels(written(good), scraped), good).toEqual([]);
});

test("caught: jobs, statecharts and states that are none", () => {
  expect(unknownJobs(written(`up{job=~"klio-server|klio-plugin"}`), jobs)).toEqual([
    "a.yaml: a: the scrape example has no job klio-plugin",
  ]);
  const state = (matchers: string) => unknownStates(written(`klio_machine_state{${matchers}}`), machines);
  expect(state(`machine="slotGuard",state=~"endangered|lost"`)).toEqual([]);
  expect(state(`machine="walStream",state="attached.streaming"`)).toHaveLength(1);
  expect(state(`machine="slotGuard",state=~"endangered|gone"`)).toHaveLength(1);
  expect(state(`machine="slotGuards"`)).toHaveLength(1);
  expect(state(`state="lost"`)).toHaveLength(1);
});

test("caught: alerts that lack a part, pages that lack an alert", () => {
  const labels = { severity: "critical" };
  const annotations = { summary: "a", description: "b", runbook_url: "docs/runbooks/KlioA.md" };
  const whole: Alert = { alert: "KlioA", expr: "up", labels, annotations };
  expect(incompleteAlerts([whole])).toEqual([]);
  expect(incompleteAlerts([{ ...whole, labels: { severity: "page" } }])).toHaveLength(1);
  expect(incompleteAlerts([{ ...whole, annotations: { ...annotations, summary: "" } }])).toHaveLength(1);
  expect(incompleteAlerts([{ ...whole, alert: "KlioB" }])).toHaveLength(1);
  expect(unpairedRunbooks(["KlioA"], ["docs/runbooks/KlioB.md"])).toHaveLength(2);
  expect(incompleteRunbooks(page("## Meaning\n## Impact\n## Diagnosis\n"))).toHaveLength(1);
  expect(incompleteRunbooks(page("## Meaning\n## Impact\n## Diagnosis\n## Cure\n"))).toEqual([]);
  const empty = { name: "a", input_series: [] };
  const fires = { alertname: "KlioA", exp_alerts: [{}] };
  expect(untestedAlerts(["KlioA"], [{ tests: [{ ...empty, alert_rule_test: [fires] }] }])).toHaveLength(1);
  expect(untestedAlerts(["KlioA"], [{ tests: [empty] }])).toHaveLength(2);
  expect(
    untestedAlerts(["KlioA"], [{ tests: [{ ...empty, alert_rule_test: [fires, { ...fires, exp_alerts: [] }] }] }]),
  ).toEqual([]);
});

test("caught: commands and options that are none", () => {
  const commands = commandsOf("`--config <file>`\n\n## klio admin\n\n### klio admin queue status\n\n`--json`\n");
  expect(unknownCommands(page("run `klio admin queue status --json --config a`"), commands)).toEqual([]);
  for (const bad of [
    "`klio queue status`",
    "```sh\nklio admin queue status --all\n```",
    "`klio admin queue status --jso`",
  ])
    expect(unknownCommands(page(bad), commands), bad).toHaveLength(1);
});
