// Rules, cases, scrape example and dashboard of deploy/observability, as the real promtool sees them.
import { execFile } from "node:child_process";
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { expect, test } from "vitest";
import { stringify } from "yaml";
import { findTool } from "../../../src/config/tools.ts";
import { temporaryDirectory } from "../../support/temporary-directory.ts";

const run = promisify(execFile);
const folder = fileURLToPath(new URL("../../../deploy/observability/", import.meta.url));
const promtool = findTool("promtool", process.env);
const filesIn = (name: string) => readdirSync(join(folder, name)).map((file) => `${name}/${file}`);

/** What promtool prints; its messages as the error when it is not content. */
async function check(args: readonly string[], cwd = folder): Promise<string> {
  try {
    const { stdout, stderr } = await run(promtool, args, { cwd });
    return stdout + stderr;
  } catch (error) {
    const { stdout = "", stderr = "" } = error as { stdout?: string; stderr?: string };
    throw new Error(`${stdout}${stderr}`, { cause: error });
  }
}

type Panel = { id: number; type: string; title: string; targets?: { refId: string; expr: string }[] };
type Dashboard = {
  uid: string;
  schemaVersion: number;
  templating: { list: { name: string }[] };
  panels: (Panel & { gridPos: { h: number; w: number; x: number; y: number } })[];
};
const dashboards = filesIn("grafana").map((path) => ({
  path,
  dashboard: JSON.parse(readFileSync(join(folder, path), "utf8")) as Dashboard,
}));

/** Grafana's variables as Grafana would fill them in. */
const filledIn = (expr: string) => expr.replaceAll("$__rate_interval", "1m").replaceAll("$cluster", ".*");

test("the rules are rules, and none is given twice", async () => {
  expect(await check(["check", "rules", "--lint=all", "--lint-fatal", ...filesIn("rules")])).toContain("SUCCESS");
});

test("every alert fires in its case, and none in a healthy or idle cluster", async () => {
  const cases = filesIn("tests");
  expect(cases.length).toBeGreaterThan(1);
  expect((await check(["test", "rules", ...cases])).match(/SUCCESS/g)).toHaveLength(cases.length);
});

test("the scrape example is a configuration", async () => {
  const printed = await check(["check", "config", "prometheus.yml"]);
  expect(printed).toContain("SUCCESS: 2 rule files found");
  expect(printed).toContain("prometheus.yml is valid");
});

test("promtool sees a fault: in a rule, in a case, in the configuration", async () => {
  await using dir = await temporaryDirectory();
  const write = (name: string, text: string) => {
    mkdirSync(join(dir.path, name, ".."), { recursive: true });
    writeFileSync(join(dir.path, name), text);
  };
  const textOf = (path: string) => readFileSync(join(folder, path), "utf8");
  for (const path of filesIn("rules")) write(path, textOf(path));
  const alerts = textOf("rules/klio-alerts.yaml");
  write("broken.yaml", alerts.replace("absent(", "absent(("));
  await expect(check(["check", "rules", "broken.yaml"], dir.path)).rejects.toThrow(/could not parse expression/);
  // Too low a bound: a cluster that is written now and then would raise the alert all day.
  write("rules/klio-alerts.yaml", alerts.replace(/\{tier="tier2"\} > 1800/, `{tier="tier2"} > 40`));
  write("tests/quiet.yaml", textOf("tests/quiet.yaml"));
  await expect(check(["test", "rules", "tests/quiet.yaml"], dir.path)).rejects.toThrow(/KlioExposureHigh/);
  write("prometheus.yml", textOf("prometheus.yml").replace("metric_relabel_configs", "metric_relabelling"));
  await expect(check(["check", "config", "prometheus.yml"], dir.path)).rejects.toThrow(/metric_relabelling/);
});

test("every panel of a dashboard has a place of its own, and queries that are PromQL", async () => {
  await using dir = await temporaryDirectory();
  for (const { path, dashboard } of dashboards) {
    const { panels, templating, uid, schemaVersion } = dashboard;
    expect([uid, schemaVersion]).toEqual(["klio", expect.any(Number)]);
    expect(new Set(panels.map(({ id }) => id)).size).toBe(panels.length);
    const taken = new Map<string, string>();
    for (const { title, gridPos } of panels) {
      expect(gridPos.x + gridPos.w, title).toBeLessThanOrEqual(24);
      for (let x = gridPos.x; x < gridPos.x + gridPos.w; x++)
        for (let y = gridPos.y; y < gridPos.y + gridPos.h; y++) {
          expect(taken.get(`${x},${y}`), title).toBeUndefined();
          taken.set(`${x},${y}`, title);
        }
    }
    const queries = panels.flatMap(({ title, targets = [] }) => targets.map(({ expr }) => ({ title, expr })));
    expect(queries.length).toBeGreaterThan(20);
    const known = ["__rate_interval", ...templating.list.map(({ name }) => name)];
    for (const { title, expr } of queries)
      for (const [, name = ""] of expr.matchAll(/\$\{?(\w+)/g)) expect(known, title).toContain(name);
    // Each as a recording rule of its own: the one that is none is named by promtool.
    const rules = queries.map(({ expr }, i) => ({ record: `panel:query:${i}`, expr: filledIn(expr) }));
    writeFileSync(join(dir.path, "panels.yaml"), stringify({ groups: [{ name: path, rules }] }));
    expect(await check(["check", "rules", "panels.yaml"], dir.path)).toContain(`SUCCESS: ${rules.length} rules`);
  }
});

test("PromQL of the runbooks is PromQL", async () => {
  await using dir = await temporaryDirectory();
  const runbooks = fileURLToPath(new URL("../../../docs/runbooks/", import.meta.url));
  const queries = readdirSync(runbooks).flatMap((name) =>
    [...readFileSync(join(runbooks, name), "utf8").matchAll(/```promql\n([\s\S]*?)```/g)]
      .flatMap(([, text = ""]) => text.split("\n"))
      .map((line) => line.trim())
      .filter((line) => line !== ""),
  );
  expect(queries.length).toBeGreaterThan(40);
  const rules = queries.map((expr, i) => ({ record: `runbook:query:${i}`, expr }));
  writeFileSync(join(dir.path, "runbooks.yaml"), stringify({ groups: [{ name: "runbooks", rules }] }));
  expect(await check(["check", "rules", "runbooks.yaml"], dir.path)).toContain(`SUCCESS: ${rules.length} rules`);
});
