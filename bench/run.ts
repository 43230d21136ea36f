// `npm run bench NAME`: comparisons inside one run, as ratios, on this machine. Prints a table and writes JSON.
import { writeFileSync } from "node:fs";
import { cpus, tmpdir } from "node:os";
import { join } from "node:path";

export type Figure = { name: string; value: number; unit: string; bound?: number; atLeast?: number };
type Bench = (parts: readonly string[]) => Promise<Figure[]>;

const benches: Readonly<Record<string, () => Promise<Bench>>> = {
  telemetry: async () => (await import("./telemetry.ts")).benchTelemetry,
  wal: async () => (await import("./wal.ts")).benchWal,
  tier2: async () => (await import("./tier2.ts")).benchTier2,
};

const isMissed = ({ value, bound, atLeast }: Figure) =>
  (bound !== undefined && !(value <= bound)) || (atLeast !== undefined && !(value >= atLeast));

const name = process.argv[2] ?? "";
const load = benches[name];
if (load === undefined) {
  process.stderr.write(`Error: no bench ${JSON.stringify(name)}\nHint: one of ${Object.keys(benches).join(", ")}\n`);
  process.exitCode = 64;
} else {
  const figures = await (await load())(process.argv.slice(3));
  const width = Math.max(...figures.map((figure) => figure.name.length));
  for (const figure of figures) {
    const { name: what, value, unit, bound, atLeast } = figure;
    const wanted = bound !== undefined ? `at most ${bound}` : atLeast !== undefined ? `at least ${atLeast}` : "";
    const verdict = wanted === "" ? "" : `  (${wanted}: ${isMissed(figure) ? "MISSED" : "held"})`;
    process.stdout.write(`${what.padEnd(width)}  ${value.toFixed(3).padStart(10)} ${unit}${verdict}\n`);
  }
  const [cpu] = cpus();
  const file = join(tmpdir(), `klio-bench-${name}.json`);
  const machine = { cpu: cpu?.model ?? "unknown", cores: cpus().length, node: process.version };
  writeFileSync(file, `${JSON.stringify({ bench: name, at: new Date().toISOString(), machine, figures }, null, 2)}\n`);
  process.stdout.write(`written to ${file}\n`);
  process.exitCode = figures.some(isMissed) ? 1 : 0;
}
