// Sizes, sleeps, left-overs, versions.
import { expect, test } from "vitest";
import {
  leftOvers,
  longFiles,
  looseVersions,
  type Overlong,
  type Patience,
  skippedTests,
  sleeps,
} from "./support/hygiene-rules.ts";
import { sourcesIn, textOf } from "./support/sources.ts";

const sources = sourcesIn("src", "scripts");
const tests = sourcesIn("test");

/** Files of tests that wait for time, and why. */
const patience: Patience = {
  "test/support/eventually.ts": "asks for a fact again and again, a short while apart",
  "test/support/kill-sweep.ts": "a seed chooses the instant of a kill; nothing depends on it",
  "test/support/faulty-s3.ts": "plays a slow store; nothing waits for it",
  "test/spec/hygiene.test.ts": "holds what must be caught",
};
/** Files that are too long already. */
const overlong: Overlong = {};

test("sources and tests are scanned", () => {
  expect(sources.length).toBeGreaterThan(180);
  expect(tests.length).toBeGreaterThan(90);
});

test("files stay short", () => {
  expect(longFiles([...sources, ...tests], overlong)).toEqual([]);
  const a = { path: "src/domain/a.ts", text: "x\n".repeat(401) };
  expect(longFiles([a], {})).toHaveLength(1);
  expect(longFiles([a], { [a.path]: 401 })).toEqual([]);
  expect(longFiles([{ ...a, text: "x" }], { [a.path]: 401 })).toHaveLength(1);
});

test("every test runs", () => {
  expect(skippedTests(tests)).toEqual([]);
  for (const text of [`test.only("x", f)`, `describe.skip("x", f)`, `it.todo("x")`, `test.each.skip([1])("x", f)`])
    expect(skippedTests([{ path: "test/unit/a.test.ts", text }]), text).toHaveLength(1);
  expect(skippedTests([{ path: "test/unit/a.test.ts", text: `test.runIf(x)("skip", f); // test.only(` }])).toEqual([]);
});

test("tests wait for facts", () => {
  expect(sleeps(tests, patience)).toEqual([]);
});

test.each([
  "await new Promise((resolve) => setTimeout(resolve, 100));",
  "await new Promise<void>((done) => {\n  setTimeout(done, 10);\n});",
  "await sleep(100);",
  "await setTimeout(1_000);",
  `import { setTimeout as sleep } from "node:timers/promises";`,
])("caught: %s", (text) => {
  const found = { path: "test/unit/a.test.ts", text };
  expect(sleeps([found], {}).length).toBeGreaterThan(0);
  expect(sleeps([found], { [found.path]: "why" })).toEqual([]);
  expect(sleeps([{ ...found, text: "" }], { [found.path]: "why" })).toHaveLength(1);
});

test("nothing is left over", () => {
  expect(leftOvers([...sources, ...tests.filter(({ path }) => !path.startsWith("test/spec/"))])).toEqual([]);
});

test.each([
  "// TODO: later",
  "// FIXME",
  "try { a(); } catch {}",
  "try { a(); } catch (error) {\n}",
  "debugger;",
  "// @ts-ignore",
])("caught: %s", (text) => {
  expect(leftOvers([{ path: "src/domain/a.ts", text }])).toHaveLength(1);
});

test("a catch that says why it may be empty is none of those", () => {
  expect(leftOvers([{ path: "src/domain/a.ts", text: "try { a(); } catch {\n  // gone already\n}" }])).toEqual([]);
});

test("dependencies have one version", () => {
  expect(looseVersions(textOf("package.json"))).toEqual([]);
  for (const version of ["^1.2.3", "~1.2.3", "1.x", "latest", "npm:pg@^1.0.0", ">=1.0.0"])
    expect(looseVersions(JSON.stringify({ dependencies: { pg: version } })), version).toHaveLength(1);
});
