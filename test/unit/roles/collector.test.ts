import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { expect, test } from "vitest";

test("the flags that the collector is given are flags of this Node's V8, which says nothing about unknown ones", () => {
  const source = readFileSync(new URL("../../../src/roles/collector.ts", import.meta.url), "utf8");
  const given = [...source.matchAll(/setFlagsFromString\("(--[a-z-]+)=/g)].map(([, flag]) => flag);
  const known = execFileSync(process.execPath, ["--v8-options"], { encoding: "utf8" });
  expect(given).toHaveLength(2);
  for (const flag of given) expect(known).toMatch(new RegExp(`^ +${flag} `, "m"));
});
