// The tables of src/telemetry/names.ts against what the sources really use.
import { readdirSync } from "node:fs";
import { expect, test } from "vitest";
import { loadMachines } from "../../scripts/docs/machines.ts";
import { logEvents, metrics, spans } from "../../src/telemetry/names.ts";
import { prometheusName } from "../../src/telemetry/prometheus-text.ts";
import { sourcesIn, textOf } from "./support/sources.ts";
import {
  type Gaps,
  literalsIn,
  logViolations,
  logWords,
  unknownInstruments,
  unknownScraped,
  unusedRows,
} from "./support/telemetry-rules.ts";

const sources = sourcesIn("src").filter(({ path }) => path !== "src/telemetry/names.ts");
const metricNames = Object.keys(metrics);
const words = new Set(Object.keys(logEvents));

/** Spans that no state has. */
const spanGaps: Gaps = {};
/** Metrics that nothing moves. */
const metricGaps: Gaps = {};
/** First words of log events that no line begins with. */
const wordGaps: Gaps = {};

test("every span is a state's", async () => {
  const machines = await loadMachines();
  expect(machines.length).toBeGreaterThan(13);
  const telemetry = machines.flatMap(({ states }) => states.map((state) => state.telemetry ?? {}));
  const used = new Set(telemetry.flatMap(({ span }) => span ?? []));
  expect(unusedRows("span", Object.keys(spans), used, spanGaps)).toEqual([]);
  const events = telemetry.flatMap(({ event }) => event ?? []);
  expect(events.length).toBeGreaterThan(2);
  expect(events.filter((event) => !/^[a-z]+(\.[a-z]+)*$/.test(event))).toEqual([]);
});

test("every metric is moved somewhere", () => {
  const used = literalsIn(sources, /^(klio\.|controller_runtime_|workqueue_)/);
  expect(unusedRows("metric", metricNames, used, metricGaps)).toEqual([]);
});

test("every instrument that is moved is a metric", () => {
  expect(unknownInstruments(sources, new Set(metricNames))).toEqual([]);
});

test("every log line has an event of the table, and every word of it is used", () => {
  expect(logViolations(sources, words)).toEqual([]);
  expect(unusedRows("log event", [...words], logWords(sources), wordGaps)).toEqual([]);
});

test("manifests, dashboards and pages name metrics that are scraped", () => {
  const scraped = new Set(Object.entries(metrics).map(([name, { unit, kind }]) => prometheusName(name, unit, kind)));
  const files = ["deploy", "docs"].flatMap((folder) =>
    readdirSync(new URL(`../../${folder}/`, import.meta.url), { recursive: true, encoding: "utf8" })
      .filter((name) => /\.(md|ya?ml|json)$/.test(name))
      .map((name) => ({ path: `${folder}/${name}`, text: textOf(`${folder}/${name}`) })),
  );
  expect(files.length).toBeGreaterThan(4);
  expect(unknownScraped(files, scraped)).toEqual([]);
});

const bad = (text: string) => [{ path: "src/roles/a.ts", text }];

test("caught: rows that nothing uses, gaps that are closed", () => {
  expect(unusedRows("metric", ["a", "b"], new Set(["a"]), {})).toEqual([expect.stringContaining("metric b")]);
  expect(unusedRows("metric", ["a"], new Set(["a"]), { a: "late" })).toHaveLength(1);
  expect(unusedRows("metric", ["a"], new Set(["a"]), { gone: "late" })).toHaveLength(1);
  expect(literalsIn(bad(`// "klio.a.b"\nto.add("klio.c.d", 1);`), /^klio\./)).toEqual(new Set(["klio.c.d"]));
});

test("caught: an instrument that is no row, a log event that is none, a metric that is not scraped", () => {
  expect(unknownInstruments(bad(`to.add(\n  "klio.wal.wrong", 1);`), new Set(metricNames))).toHaveLength(1);
  for (const line of [`log.info("walked.away", "x")`, `this.#log.warn("wal", "x")`, `log.info(\`wal.\${x}\`, 1)`])
    expect(logViolations(bad(line), words), line).toHaveLength(1);
  expect(logViolations(bad(`log.info("wal.stored", "x")`), words)).toEqual([]);
  expect(unknownScraped(bad("rate(klio_wal_written_total[1m])"), new Set(["klio_wal_written_total"]))).toEqual([]);
  expect(unknownScraped(bad("rate(klio_wal_write_total[1m])"), new Set(["klio_wal_written_total"]))).toHaveLength(1);
});
