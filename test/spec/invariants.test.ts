// Every promise and invariant is cited by a test's title, and every cited one exists.
import { expect, test } from "vitest";
import { headerOf } from "../../scripts/docs/header.ts";
import { promisesIn } from "../../scripts/docs/promises.ts";
import { testTitles } from "../../scripts/docs/test-titles.ts";
import {
  citationViolations,
  definitionsIn,
  definitionViolations,
  remarkViolations,
} from "./support/invariant-rules.ts";
import { sourcesIn, textOf } from "./support/sources.ts";

const sources = sourcesIn("src");
const definitions = definitionsIn(sources);
const promises = promisesIn(textOf("docs/architecture.md"));
const tests = sourcesIn("test").filter(({ path }) => path.endsWith(".test.ts") && !path.startsWith("test/spec/"));

test("headers and titles are read", () => {
  expect(definitions.length).toBeGreaterThan(90);
  expect(promises).toHaveLength(11);
  expect(tests.length).toBeGreaterThan(70);
  expect(tests.flatMap(({ text }) => testTitles(text)).length).toBeGreaterThan(450);
  expect(
    headerOf("// What it is,\n// and why.\n//   O1. One\n//       promise.\n//   O2. Two.\n// Also:\n//   O3. no"),
  ).toEqual({
    purpose: "What it is, and why.",
    invariants: [
      { id: "O1", text: "One promise." },
      { id: "O2", text: "Two." },
    ],
  });
});

test("titles are found wherever vitest takes them", () => {
  const text = `
    test("O1, O2: plain", () => {});
    test.each([["(", 1], [\`)\`, 2]])("O3: each %s", () => {});
    describe.each<[string]>([["a"]])("PostgreSQL %s", () => {});
    test.runIf(process.platform === "linux")("with \\"quotes\\" (O4)", () => {});
    const fails = () => expect(S3).toBe("S3: no title");`;
  expect(testTitles(text)).toEqual([
    { title: "O1, O2: plain", ids: ["O1", "O2"] },
    { title: "O3: each %s", ids: ["O3"] },
    { title: "PostgreSQL %s", ids: [] },
    { title: 'with "quotes" (O4)', ids: ["O4"] },
  ]);
});

test("no id is given twice", () => {
  expect(definitionViolations(definitions)).toEqual([]);
});

test("every invariant is cited, every citation is of one", () => {
  expect(citationViolations(definitions, promises, tests)).toEqual([]);
});

test("comments cite invariants and promises that are there", () => {
  expect(sources.filter(({ text }) => /\/\/ [A-Z]\d$/m.test(text)).length).toBeGreaterThan(5);
  expect(remarkViolations(definitions, promises, sources)).toEqual([]);
  const remark = (text: string) =>
    remarkViolations([{ id: "O1", path: "src/wire/a.ts" }], ["P1"], [{ path: "src/wire/b.ts", text }]);
  for (const text of ["x(); // O1", "/** Waits (O1). */", "  // nobody waits (P1)", "/** P1 */"])
    expect(remark(text), text).toEqual([]);
  for (const text of ["x(); // O2", "/** Waits (O2). */", "  // nobody waits (P2)", "/** O1, O3 */"])
    expect(remark(text), text).toHaveLength(1);
});

const invariant = (path: string, id: string) => ({ path, text: `// A file.\n//   ${id}. It holds.\n` });
const a = invariant("src/machines/a.machine.ts", "O1");

test("caught: an id given twice, a letter of two machines, a promise in a file", () => {
  const caught = (...sources: { path: string; text: string }[]) => definitionViolations(definitionsIn(sources));
  expect(caught(invariant("src/wire/a.ts", "D1"), invariant("src/wire/b.ts", "D1"))).toHaveLength(1);
  expect(caught(a, invariant("src/machines/b.machine.ts", "O2"))).toHaveLength(1);
  expect(caught(invariant("src/wire/a.ts", "P1"))).toHaveLength(1);
  expect(caught(a, invariant("src/wire/a.ts", "O1"), invariant("src/wire/b.ts", "O2"))).toEqual([]);
});

test("caught: what no test cites, what nothing defines, what could be two things", () => {
  const caught = (title: string, path = "test/integration/a.test.ts") =>
    citationViolations(
      definitionsIn([a, invariant("src/wire/a.ts", "O1")]),
      ["P1"],
      [{ path, text: `test("P1: promise", f);\ntest("${title}", f);` }],
    );
  expect(caught("O1: both", "test/unit/machines/a.test.ts")).toEqual([expect.stringContaining("src/wire/a.ts")]);
  expect(caught("O1: both")).toEqual([
    expect.stringContaining("nothing defines"),
    expect.anything(),
    expect.anything(),
  ]);
  expect(caught("O7: none").filter((text) => text.includes("O7"))).toHaveLength(1);
  expect(caught("P7: none").filter((text) => text.includes("P7"))).toHaveLength(1);
  expect(citationViolations([], ["P1"], [])).toEqual(["docs/architecture.md: no test cites P1"]);
});
