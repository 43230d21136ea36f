// Every machine: one per file, named like it, imported by its unit test, with a total table there.
import { expect, test } from "vitest";
import { machineViolations } from "./support/machine-rules.ts";
import { sourcesIn } from "./support/sources.ts";

const machines = sourcesIn("src/machines").filter(({ path }) => path.endsWith(".machine.ts"));
const tests = sourcesIn("test/unit").filter(({ path }) => path.endsWith(".test.ts"));

test("every machine has its test and its table", () => {
  expect(machines.length).toBeGreaterThan(13);
  expect(machineViolations(machines, tests)).toEqual([]);
});

const machine = {
  path: "src/machines/a-duty.machine.ts",
  text: `export const aDuty = setup({}).createMachine({\n  id: "aDuty",\n  on: { "shutdown.requested": "done" } });`,
};
const its = {
  path: "test/unit/machines/a-duty.test.ts",
  text: `import { aDuty } from "../../../src/machines/a-duty.machine.ts";\ncheckTransitionTable(aDuty, context, table, events);`,
};

test("caught: no test, no table, the table of another machine, a name of its own, no way to stop", () => {
  expect(machineViolations([machine], [its])).toEqual([]);
  expect(machineViolations([machine], []).length).toBeGreaterThan(0);
  expect(machineViolations([machine], [{ ...its, path: "test/unit/machines/other.test.ts" }])).toHaveLength(1);
  expect(machineViolations([machine], [{ ...its, text: its.text.replace("Table(aDuty", "Table(other") }])).toHaveLength(
    1,
  );
  expect(machineViolations([machine], [{ ...its, text: its.text.replace("check", "// check") }])).toHaveLength(1);
  expect(machineViolations([machine], [{ ...its, text: its.text.replace("{ aDuty }", "type { aDuty }") }]).length).toBe(
    2,
  );
  for (const [from, to] of [
    ['id: "aDuty"', 'id: "duty"'],
    ["const aDuty", "const duty"],
    ["shutdown.requested", "stop"],
  ] as const)
    expect(machineViolations([{ ...machine, text: machine.text.replace(from, to) }], [its]), to).toHaveLength(1);
});
