// Every name that a statechart gives to telemetry is a row of names.ts, with its tracer, attributes and labels.
import { readdirSync, readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { type AnyStateMachine, StateMachine } from "xstate";
import { nodesOf } from "../../../src/telemetry/machine-plan.ts";
import { isMetricName, isSpanName, logEvents, metrics, spans } from "../../../src/telemetry/names.ts";
import type { StateMeta } from "../../../src/telemetry/state-telemetry.ts";

const root = new URL("../../../src/", import.meta.url);
const files = readdirSync(new URL("machines/", root)).filter((name) => name.endsWith(".machine.ts"));

async function machinesIn(file: string): Promise<AnyStateMachine[]> {
  const module: Record<string, unknown> = await import(new URL(`machines/${file}`, root).href);
  return Object.values(module).filter((value): value is AnyStateMachine => value instanceof StateMachine);
}

test.each(files)("%s uses names of the tables", async (file) => {
  for (const machine of await machinesIn(file))
    for (const node of nodesOf(machine.root)) {
      const meta: StateMeta | undefined = node.meta;
      const { span, tracer, attributes = {}, labels = {}, ...rest } = meta?.telemetry ?? {};
      if (span !== undefined) {
        expect(isSpanName(span), `${node.id}: span ${span}`).toBe(true);
        if (!isSpanName(span)) continue;
        expect(tracer, `${node.id}: tracer`).toBe(spans[span].tracer);
        for (const name of Object.keys(attributes)) expect(spans[span].attributes, node.id).toContain(name);
      }
      const { running, latestStart, latestEnd, duration, count = [] } = rest;
      for (const name of [running, latestStart, latestEnd, duration, ...[count].flat()]) {
        if (name === undefined) continue;
        expect(isMetricName(name), `${node.id}: metric ${name}`).toBe(true);
        if (!isMetricName(name)) continue;
        expect(metrics[name].attributes, `${node.id}: labels of ${name}`).toEqual(Object.keys(labels).sort());
      }
    }
});

test("every log event begins with a word of the table", () => {
  const known = new Set(Object.keys(logEvents));
  const unknown: string[] = [];
  for (const entry of readdirSync(root, { recursive: true, withFileTypes: true })) {
    if (!entry.isFile() || !entry.name.endsWith(".ts")) continue;
    const text = readFileSync(`${entry.parentPath}/${entry.name}`, "utf8");
    for (const [, event = ""] of text.matchAll(/\blog\.(?:debug|info|warn|error)\(\s*"([^"]+)"/g))
      if (!known.has(event.split(".")[0] ?? "") || !/^[a-z0-9]+(\.[a-zA-Z0-9]+)+$/.test(event))
        unknown.push(`${entry.name}: ${event}`);
  }
  expect(unknown).toEqual([]);
});
