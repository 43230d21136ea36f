// The promises of the product, as docs/architecture.md states them, and the tests that hold them.
import { readdirSync, readFileSync } from "node:fs";
import { code, table } from "./markdown.ts";
import { testTitles } from "./test-titles.ts";

const tests = new URL("../../test/", import.meta.url);

/** Ids of the promises: lines `- **P1** …` of the page. */
export function promisesIn(page: string): string[] {
  return [...page.matchAll(/^- \*\*(P\d+)\*\* /gm)].map(([, id = ""]) => id);
}

/** The titles that cite each promise, by the path of the test. */
export function promisesTable(page: string): string {
  const files = readdirSync(tests, { recursive: true, encoding: "utf8" })
    .map((name) => name.replaceAll("\\", "/"))
    .filter((name) => name.endsWith(".test.ts") && !name.startsWith("spec/"))
    .sort();
  const cited = files.flatMap((name) =>
    testTitles(readFileSync(new URL(name, tests), "utf8")).flatMap(({ title, ids }) =>
      ids.map((id) => ({ id, name, title })),
    ),
  );
  const rows = promisesIn(page).flatMap((promise) =>
    cited
      .filter(({ id }) => id === promise)
      .map(({ name, title }, index) => [index === 0 ? promise : "", title, `[${code(name)}](../test/${name})`]),
  );
  return table(["promise", "test", "in"], rows);
}
