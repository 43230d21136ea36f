// The statecharts as the pages show them: their picture, their promises, their states and who runs them.
import { readdirSync, readFileSync } from "node:fs";
import { type AnyStateMachine, StateMachine } from "xstate";
import { type Chart, type ChartState, chartOf } from "../../src/console/chart.ts";
import type { StateTelemetry } from "../../src/telemetry/state-telemetry.ts";
import { type Header, headerOf } from "./header.ts";
import { code, table } from "./markdown.ts";

type StateDoc = { path: string; description: string; invokes: string[]; telemetry?: StateTelemetry };
export type MachineDoc = {
  id: string;
  /** Name of the file without `.machine.ts`. */
  file: string;
  header: Header;
  chart: Chart;
  states: StateDoc[];
  /** Files that start it or provide its actors. */
  users: string[];
};

const root = new URL("../../", import.meta.url);
const SUFFIX = ".machine.ts";

function statesOf(state: ChartState, path: readonly string[] = []): StateDoc[] {
  const { description, invokes, telemetry } = state;
  const own = { path: path.join("."), description, invokes, ...(telemetry !== undefined && { telemetry }) };
  const inner = state.states.flatMap((child) => statesOf(child, [...path, child.name]));
  return path.length === 0 && telemetry === undefined && invokes.length === 0 ? inner : [own, ...inner];
}

function importersOf(file: string): string[] {
  const folders = ["src/roles", "src/actors"];
  return folders
    .flatMap((folder) =>
      readdirSync(new URL(folder, root), { recursive: true, encoding: "utf8" })
        .filter((name) => name.endsWith(".ts"))
        .map((name) => `${folder}/${name.replaceAll("\\", "/")}`),
    )
    .filter((path) =>
      new RegExp(`^import \\{(?!\\s*type [^,}]*\\}).*?/machines/${file}\\.machine\\.ts"`, "m").test(
        readFileSync(new URL(path, root), "utf8").replace(/^import \{[^}]*\}/gm, (text) => text.replace(/\s+/g, " ")),
      ),
    )
    .sort();
}

/** All machines, by the name of their file. */
export async function loadMachines(): Promise<MachineDoc[]> {
  const files = readdirSync(new URL("src/machines/", root))
    .filter((name) => name.endsWith(SUFFIX))
    .sort();
  const found = await Promise.all(
    files.map(async (name): Promise<MachineDoc[]> => {
      const url = new URL(`src/machines/${name}`, root);
      const module: Record<string, unknown> = await import(url.href);
      const machines = Object.values(module).filter((value): value is AnyStateMachine => value instanceof StateMachine);
      const file = name.slice(0, -SUFFIX.length);
      return machines.map((machine) => {
        const chart = chartOf(machine);
        return {
          id: machine.id,
          file,
          header: headerOf(readFileSync(url, "utf8")),
          chart,
          states: statesOf(chart.root),
          users: importersOf(file),
        };
      });
    }),
  );
  return found.flat();
}

function telemetryText(telemetry: StateTelemetry | undefined): string {
  if (telemetry === undefined) return "";
  const { span, running, latestStart, latestEnd, duration, count, outcome, event, newTrace } = telemetry;
  const named = (what: string, name: string | undefined) => (name === undefined ? [] : [`${what} ${code(name)}`]);
  return [
    ...named(newTrace === true ? "span (a trace of its own)" : "span", span),
    ...named("1 while it lasts:", running),
    ...named("time of entry:", latestStart),
    ...named("time of exit:", latestEnd),
    ...named("seconds:", duration),
    ...[count ?? []].flat().map((name) => `counts ${code(name)}`),
    ...named("event", event),
    ...named("verdict", outcome),
  ].join("; ");
}

function section(machine: MachineDoc): string {
  const { id, file, header, states, users } = machine;
  const starts = [...new Set(users)].map((path) => `[${code(path)}](../${path})`).join(", ");
  return [
    `### ${id}`,
    `${header.purpose} Source: [${code(`src/machines/${file}${SUFFIX}`)}](../src/machines/${file}${SUFFIX})${starts === "" ? "" : `; wired by ${starts}`}.`,
    header.invariants.map((invariant) => `- **${invariant.id}** ${invariant.text}`).join("\n"),
    `![statechart of ${id}](machines/${file}.svg)`,
    table(
      ["state", "what goes on", "actors", "telemetry"],
      states.map(({ path, description, invokes, telemetry }) => [
        path === "" ? "(the whole)" : code(path),
        description,
        invokes.map(code).join(", "),
        telemetryText(telemetry),
      ]),
    ),
  ]
    .filter((part) => part !== "")
    .join("\n\n");
}

export function machinesSection(machines: readonly MachineDoc[]): string {
  return machines.map(section).join("\n\n");
}
