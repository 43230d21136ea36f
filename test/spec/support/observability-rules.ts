// What operators get shipped (rules, dashboard, runbooks) against what Klio really has: metrics, labels, statecharts, commands.
import { type MetricRow, metrics, type ServiceRole } from "../../../src/telemetry/names.ts";
import { prometheusName } from "../../../src/telemetry/prometheus-text.ts";
import { lineAt, type Source } from "./sources.ts";

/** A piece of PromQL and where it stands. */
export type Expression = { place: string; text: string };
/** Labels of each series that Prometheus has of Klio, by its name. */
export type SeriesLabels = ReadonlyMap<string, ReadonlySet<string>>;
export type Alert = {
  alert: string;
  expr: string;
  labels?: Record<string, string>;
  annotations?: Record<string, string>;
};
export type RuleFile = { groups: { name: string; rules: (Alert | { record: string; expr: string })[] }[] };
/** What is read of a file of `promtool test rules`. */
export type RuleTests = {
  tests: {
    name: string;
    input_series: { series: string }[];
    alert_rule_test?: { alertname: string; exp_alerts: unknown[] }[];
  }[];
};

/** `targetLabels`: what the scrape example gives to all series of a role. */
export function scrapedLabels(targetLabels: Readonly<Record<ServiceRole, readonly string[]>>): SeriesLabels {
  const series = new Map<string, Set<string>>();
  for (const [name, row] of Object.entries<MetricRow>(metrics)) {
    const { kind, unit, attributes, roles } = row;
    const labels = [...attributes, "job", "instance", ...roles.flatMap((role) => targetLabels[role])];
    const scraped = prometheusName(name, unit, kind);
    if (kind === "histogram")
      for (const [suffix, more] of [
        ["_bucket", ["le"]],
        ["_sum", []],
        ["_count", []],
      ] as const)
        series.set(scraped + suffix, new Set([...labels, ...more]));
    else series.set(scraped, new Set(labels));
  }
  return series;
}

const LEVELS: Readonly<Record<string, readonly string[]>> = {
  cluster: ["cluster_name"],
  cluster_tier: ["cluster_name", "tier"],
  stage: ["stage"],
};

/** Names of recording rules that are no level:metric:operation, or have a level that is none. */
export function badRecordNames(records: readonly string[]): string[] {
  return records
    .filter((record) => {
      const [level = "", metric = "", operation = "", ...more] = record.split(":");
      return (
        more.length > 0 ||
        !Object.hasOwn(LEVELS, level) ||
        !/^klio_\w+$/.test(metric) ||
        !/^[a-z0-9_]+$/.test(operation)
      );
    })
    .map((record) => `${record}: name it level:metric:operation, with a level of ${Object.keys(LEVELS).join(", ")}`);
}

/** Series in PromQL that Prometheus does not have: a histogram, say, has only its three parts. */
export function unknownSeries(
  expressions: readonly Expression[],
  scraped: SeriesLabels,
  records: readonly string[],
): string[] {
  return expressions.flatMap(({ place, text }) =>
    [...text.matchAll(/\b(?:\w+:)?klio_\w+(?::\w+)?/g)]
      .filter(([name]) => !(name.includes(":") ? records.includes(name) : scraped.has(name)))
      .map(([name]) => `${place}: ${name} is neither scraped nor recorded`),
  );
}

type Matcher = { label: string; isPattern: boolean; value: string };
const SELECTOR = /\b((?:\w+:)?klio_\w+(?::\w+)?|up)\s*\{([^}]*)\}/g;

function matchersOf(braces: string): Matcher[] {
  return [...braces.matchAll(/(\w+)\s*(=~|!~|!=|=)\s*"((?:[^"\\]|\\.)*)"/g)].map(
    ([, label = "", operator = "", value = ""]) => ({ label, isPattern: operator.endsWith("~"), value }),
  );
}

function labelsOf(name: string, scraped: SeriesLabels): ReadonlySet<string> | undefined {
  if (name === "up") return new Set(["job", "instance", "cluster_name"]);
  const [level, , operation] = name.split(":");
  return operation === undefined ? scraped.get(name) : new Set(LEVELS[level ?? ""]);
}

/** Matchers on labels that the series does not have: they never match, or always. Unknown series are told elsewhere. */
export function unknownLabels(expressions: readonly Expression[], scraped: SeriesLabels): string[] {
  return expressions.flatMap(({ place, text }) =>
    [...text.matchAll(SELECTOR)].flatMap(([, name = "", braces = ""]) => {
      const known = labelsOf(name, scraped);
      return matchersOf(braces)
        .filter(({ label }) => known !== undefined && !known.has(label))
        .map(({ label }) => `${place}: ${name} has no label ${label}`);
    }),
  );
}

/** Jobs in matchers that the scrape example does not have. Grafana's variables are nobody's job. */
export function unknownJobs(expressions: readonly Expression[], jobs: readonly string[]): string[] {
  return expressions.flatMap(({ place, text }) =>
    [...text.matchAll(SELECTOR)].flatMap(([, , braces = ""]) =>
      matchersOf(braces)
        .filter(({ label, value }) => label === "job" && !value.startsWith("$"))
        .flatMap(({ value }) => value.split("|"))
        .filter((job) => !jobs.includes(job))
        .map((job) => `${place}: the scrape example has no job ${job}`),
    ),
  );
}

/** Matchers of klio_machine_state that name no statechart, or no state of it. `machines`: paths of the states, by machine. */
export function unknownStates(
  expressions: readonly Expression[],
  machines: ReadonlyMap<string, readonly string[]>,
): string[] {
  const valuesOf = (matchers: readonly Matcher[], wanted: string) =>
    matchers
      .filter(({ label, value }) => label === wanted && !value.startsWith("$"))
      .flatMap(({ isPattern, value }) => (isPattern ? value.replaceAll("\\\\.", ".").split("|") : [value]));
  return expressions.flatMap(({ place, text }) =>
    [...text.matchAll(SELECTOR)].flatMap(([, name = "", braces = ""]) => {
      if (name !== "klio_machine_state") return [];
      const matchers = matchersOf(braces);
      const named = valuesOf(matchers, "machine");
      const states = named.flatMap((machine) => machines.get(machine) ?? []);
      return [
        ...named.filter((machine) => !machines.has(machine)).map((machine) => `${place}: no statechart is ${machine}`),
        ...valuesOf(matchers, "state")
          .filter((state) => !states.includes(state))
          .map((state) => `${place}: ${named.join(" and ") || "no machine"} has no state ${state}`),
      ];
    }),
  );
}

const SEVERITIES = ["critical", "warning"];
const ANNOTATIONS = ["summary", "description", "runbook_url"];
const runbookOf = (alert: string) => `docs/runbooks/${alert}.md`;

/** Alerts without severity, texts or runbook. */
export function incompleteAlerts(alerts: readonly Alert[]): string[] {
  return alerts.flatMap(({ alert, labels = {}, annotations = {} }) => [
    ...(SEVERITIES.includes(labels.severity ?? "") ? [] : [`${alert}: severity is one of ${SEVERITIES.join(", ")}`]),
    ...ANNOTATIONS.filter((name) => !annotations[name]).map((name) => `${alert}: has no ${name}`),
    ...(annotations.runbook_url === runbookOf(alert) ? [] : [`${alert}: runbook_url is ${runbookOf(alert)}`]),
  ]);
}

/** Alerts without a page, and pages without an alert. */
export function unpairedRunbooks(alerts: readonly string[], pages: readonly string[]): string[] {
  const wanted = alerts.map(runbookOf);
  return [
    ...wanted.filter((page) => !pages.includes(page)).map((page) => `${page} is missing`),
    ...pages.filter((page) => !wanted.includes(page)).map((page) => `${page} belongs to no alert`),
  ];
}

/** Alerts that no case lets fire, or that no case keeps quiet a moment before. */
export function untestedAlerts(alerts: readonly string[], files: readonly RuleTests[]): string[] {
  const cases = files.flatMap(({ tests }) => tests.flatMap(({ alert_rule_test = [] }) => alert_rule_test));
  return alerts.flatMap((alert) => {
    const own = cases.filter(({ alertname }) => alertname === alert);
    return [
      ...(own.some(({ exp_alerts }) => exp_alerts.length > 0) ? [] : [`${alert}: no case lets it fire`]),
      ...(own.some(({ exp_alerts }) => exp_alerts.length === 0) ? [] : [`${alert}: no case keeps it quiet`]),
    ];
  });
}

const SECTIONS = ["Meaning", "Impact", "Diagnosis", "Cure"];

/** Runbooks whose sections are not the four, in order. */
export function incompleteRunbooks(pages: readonly Source[]): string[] {
  return pages
    .filter(({ text }) => [...text.matchAll(/^## (.+)$/gm)].map(([, title]) => title).join() !== SECTIONS.join())
    .map(({ path }) => `${path}: its sections are ${SECTIONS.join(", ")}`);
}

/** Options of each command, by its words, as docs/reference/cli.md has them. Global options are under "klio". */
export function commandsOf(page: string): Map<string, ReadonlySet<string>> {
  const optionsIn = (text: string) => new Set([...text.matchAll(/--[a-z][a-z0-9-]*/g)].map(([option]) => option));
  const [head = "", ...sections] = page.split(/^##+ (?=klio )/m);
  return new Map([
    ["klio", optionsIn(head)],
    ...sections.map((text) => [text.slice(0, text.indexOf("\n")), optionsIn(text)] as const),
  ]);
}

/** Calls of klio in code of pages that name no command, or an option it does not have. */
export function unknownCommands(
  pages: readonly Source[],
  commands: ReadonlyMap<string, ReadonlySet<string>>,
): string[] {
  return pages.flatMap(({ path, text }) =>
    [...text.matchAll(/(?:^|`)(?:sudo -u \w+ )?(klio(?: [a-z][a-z-]*)+)([^`\n|#]*)/gm)].flatMap(
      ({ 1: words = "", 2: rest = "", index }) => {
        const place = `${path}:${lineAt(text, index)}`;
        const parts = words.split(" ");
        const known = parts.map((_, i) => parts.slice(0, i + 1).join(" ")).filter((words) => commands.has(words));
        const command = known.at(-1) ?? "klio";
        if (command === "klio") return [`${place}: ${words} is no command`];
        const options = [...rest.matchAll(/--[a-z][a-z0-9-]*/g)].map(([option]) => option);
        return options
          .filter((option) => !commands.get(command)?.has(option) && !commands.get("klio")?.has(option))
          .map((option) => `${place}: ${command} has no ${option}`);
      },
    ),
  );
}
