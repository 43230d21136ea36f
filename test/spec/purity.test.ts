// Clock, randomness, timers and the process stay out of the pure folders; argv and environment stay in main.ts.
import { expect, test } from "vitest";
import { impurities, machineImpurities, processUses } from "./support/purity-rules.ts";
import { sourcesIn } from "./support/sources.ts";

const sources = sourcesIn("src");

test("machines, domain and wire are pure", () => {
  expect(sources.filter(({ path }) => /^src\/(machines|domain|wire)\//.test(path)).length).toBeGreaterThan(50);
  expect(impurities(sources)).toEqual([]);
});

test.each([
  "const now = Date.now();",
  "const now = new Date();",
  "const start = performance.now();",
  "const dice = Math.random();",
  "const salt = randomBytes(32);",
  "setTimeout(() => undefined, 10);",
  "setInterval(beat, 10);",
  "const pid = process.pid;",
  'const answer = fetch("http://x");',
  "console.log(1);",
  `const text = \`\${Date.now()} ms\`;`,
])("caught in a pure folder: %s", (text) => {
  for (const folder of ["machines", "domain", "wire"])
    expect(impurities([{ path: `src/${folder}/a.ts`, text }]), folder).toHaveLength(1);
  expect(impurities([{ path: "src/actors/time/a.ts", text }])).toEqual([]);
});

test("comments, texts and times that are given do not count", () => {
  const text = `// Date.now() is a role's\nconst a = "Date.now()";\nconst b = new Date(epochMs);\nconst c = { process: 1 };`;
  expect(impurities([{ path: "src/domain/a.ts", text }])).toEqual([]);
});

test("machines hold plain data and do no IO", () => {
  expect(machineImpurities(sources)).toEqual([]);
});

test.each([
  "const bytes = Buffer.alloc(1);",
  "const sum = async () => 1;",
  "setup({}).createMachine({ entry: enqueueActions(({ enqueue }) => enqueue(x)) });",
])("caught in a machine: %s", (text) => {
  expect(machineImpurities([{ path: "src/machines/a.machine.ts", text }])).toHaveLength(1);
});

test("argv, environment and exit are main.ts's", () => {
  expect(processUses(sources)).toEqual([]);
});

test.each([
  "const env = process.env;",
  "process.exit(1);",
  'process.on("SIGTERM", stop);',
  "const [, , a] = process.argv;",
])("caught outside main.ts: %s", (text) => {
  expect(processUses([{ path: "src/cli/a.ts", text }])).toHaveLength(1);
  expect(processUses([{ path: "src/main.ts", text }])).toEqual([]);
});
