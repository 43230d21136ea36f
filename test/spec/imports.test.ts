// Who may import what, how files are named, and that nothing goes round in circles.
import { expect, test } from "vitest";
import {
  importCircles,
  importExceptions,
  importTable,
  importViolations,
  namingViolations,
} from "./support/import-rules.ts";
import { sourcesIn } from "./support/sources.ts";

const sources = sourcesIn("src");

test("the tree is scanned", () => {
  expect(sources.length).toBeGreaterThan(180);
  const folders = new Set(sources.map(({ path }) => path.split("/")[1]));
  expect(Object.keys(importTable).filter((folder) => !folders.has(folder))).toEqual([]);
});

test("imports follow the table, and every exception is needed", () => {
  expect(importViolations(sources, importExceptions)).toEqual([]);
});

test.each([
  ["src/domain/a.ts", `import { readFile } from "node:fs/promises";`],
  ["src/domain/a.ts", `import { Queue } from "../actors/jetstream/queue.ts";`],
  ["src/wire/a.ts", `import { connect } from "node:net";`],
  ["src/machines/a.machine.ts", `import { trace } from "@opentelemetry/api";`],
  ["src/machines/a.machine.ts", `import { startTelemetry } from "../telemetry/telemetry.ts";`],
  ["src/machines/a.machine.ts", `import {\n  type StateMeta,\n  bind,\n} from "../telemetry/state-telemetry.ts";`],
  ["src/machines/a.machine.ts", `import { KlioError } from "../errors.ts";`],
  ["src/actors/s3/a.ts", `import { role } from "../../machines/role.machine.ts";`],
  ["src/actors/s3/a.ts", `import type { Telemetry } from "../../telemetry/telemetry.ts";`],
  ["src/actors/s3/a.ts", `const { runServer } = await import("../../roles/server.ts");`],
  ["src/roles/a.ts", `import { table } from "../cli/table.ts";`],
  ["src/roles/a.ts", `import { NodeSDK } from "@opentelemetry/sdk-node";`],
  ["src/roles/a.ts", `import { startS3 } from "../demo/local-s3.ts";`],
  ["src/telemetry/a.ts", `import { role } from "../machines/role.machine.ts";`],
  ["src/config/a.ts", `import { readFileSync } from "node:fs";`],
  ["src/console/a.ts", `import { unwrap } from "../domain/outcome.ts";`],
  ["src/cli/a.ts", `import { Queue } from "../actors/jetstream/queue.ts";`],
  ["src/demo/a.ts", `import { runServer } from "../roles/server.ts";`],
  ["src/helpers/a.ts", ""],
])("caught in %s: %s", (path, text) => {
  expect(importViolations([{ path, text }], [])).toHaveLength(1);
});

test("types of machines may reach actors; an exception that nothing needs is told", () => {
  const fine = { path: "src/actors/s3/a.ts", text: `import type { RoleInput } from "../../machines/role.machine.ts";` };
  expect(importViolations([fine], [])).toEqual([]);
  expect(importViolations([fine], [{ path: fine.path, to: "src/machines/*", reason: "" }])).toHaveLength(1);
});

test("no file needs itself to run", () => {
  expect(importCircles(sources)).toEqual([]);
  const a = { path: "src/roles/a.ts", text: `import { b } from "./b.ts";` };
  const b = { path: "src/roles/b.ts", text: `import { a } from "./a.ts";` };
  expect(importCircles([a, b])).toEqual(["src/roles/a.ts -> src/roles/b.ts -> src/roles/a.ts"]);
  expect(importCircles([a, { ...b, text: `import type { A } from "./a.ts";` }])).toEqual([]);
});

test("no drawers, barrels, default exports", () => {
  expect(namingViolations(sourcesIn("src", "test", "scripts"))).toEqual([]);
});

test.each([
  ["src/domain/utils.ts", ""],
  ["src/helpers/lsn.ts", ""],
  ["test/support/common/a.ts", ""],
  ["src/domain/types.ts", ""],
  ["src/domain/index.ts", ""],
  ["src/domain/a.ts", "export default 1;"],
  ["src/domain/a.ts", `export { formatLsn } from "./lsn.ts";`],
  ["src/domain/a.ts", `import { formatLsn } from "./lsn";`],
])("caught: %s %s", (path, text) => {
  expect(namingViolations([{ path, text }])).toHaveLength(1);
});
