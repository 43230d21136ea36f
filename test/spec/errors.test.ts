// The error table against the sources, the tests and the pages.
import { expect, test } from "vitest";
import { errorTable } from "../../src/errors.ts";
import { codesIn, codeViolations } from "./support/error-rules.ts";
import { sourcesIn, textOf } from "./support/sources.ts";

const rows = Object.keys(errorTable);
const tests = sourcesIn("test").filter(({ path }) => !path.startsWith("test/spec/"));
const pages = ["README.md", "docs/operations.md", "docs/architecture.md", "deploy/README.md"].map((path) => ({
  path,
  text: textOf(path),
}));

test("every code is used, provoked by a test, and has a row", () => {
  expect(rows.length).toBeGreaterThan(45);
  expect(codeViolations(rows, sourcesIn("src"), tests, pages)).toEqual([]);
});

test("messages and cures read as they should", () => {
  for (const [code, { cure, reason }] of Object.entries(errorTable)) {
    expect(cure, code).toMatch(/^[a-z0-9'].*[^.]$/);
    expect(reason, code).toMatch(/^[A-Z][A-Za-z0-9]+$/);
  }
  expect(new Set(Object.values(errorTable).map(({ reason }) => reason)).size).toBe(rows.length);
});

test("caught: a code without a row, a row that nothing uses, a row that no test provokes", () => {
  const source = (path: string, text: string) => [{ path, text }];
  const used = source("src/roles/a.ts", `throw new KlioError("KLIO-BUG", "x"); // KLIO-NOTE`);
  const provoked = source("test/unit/a.test.ts", `toThrow("KLIO-BUG")`);
  expect(codeViolations(["KLIO-BUG"], used, provoked, [])).toEqual([]);
  expect(codeViolations([], used, provoked, [])).toHaveLength(1);
  expect(codeViolations(["KLIO-BUG"], [], provoked, [])).toHaveLength(1);
  expect(codeViolations(["KLIO-BUG"], used, [], [])).toHaveLength(1);
  expect(codeViolations(["KLIO-BUG"], used, provoked, source("README.md", "see KLIO-WRONG"))).toHaveLength(1);
  expect(codeViolations(["KLIO-BUG"], used, provoked, source("README.md", "see KLIO-S3-* and KLIO-…"))).toEqual([]);
  expect([...codesIn(used).keys()]).toEqual(["KLIO-BUG"]);
});
