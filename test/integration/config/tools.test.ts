// Where external programs are found: named, in the cache, on PATH at an accepted version, or not at all.
import { chmodSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { expect, test } from "vitest";
import { findTool } from "../../../src/config/tools.ts";
import { temporaryDirectory } from "../../support/temporary-directory.ts";

const pins = JSON.parse(readFileSync(new URL("../../../tools/tools.json", import.meta.url), "utf8"));
const { version } = pins["nats-server"];

/** A program that answers `answer` when asked for its version. */
function program(path: string, answer: string): string {
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, `#!/bin/sh\necho "${answer}"\n`);
  chmodSync(path, 0o755);
  return path;
}

test("the named program comes first, then the cache, then PATH", async () => {
  await using dir = await temporaryDirectory();
  const onPath = program(join(dir.path, "bin", "nats-server"), `nats-server: v${version}`);
  const env = { HOME: dir.path, PATH: dirname(onPath) };
  expect(findTool("nats-server", env)).toBe(onPath);
  const cached = program(join(dir.path, ".cache/klio/tools", `nats-server-${version}`, "nats-server"), "");
  expect(findTool("nats-server", env)).toBe(cached);
  const named = program(join(dir.path, "mine"), "");
  expect(findTool("nats-server", { ...env, KLIO_NATS_SERVER: named })).toBe(named);
});

test("KLIO-TOOL-MISSING: nothing there, a version that is not accepted, a name that is no program", async () => {
  await using dir = await temporaryDirectory();
  const missing = (env: Record<string, string>) => {
    try {
      return findTool("nats-server", { HOME: dir.path, PATH: "", ...env });
    } catch (error) {
      return error;
    }
  };
  expect(missing({})).toMatchObject({ code: "KLIO-TOOL-MISSING", hint: expect.stringContaining("KLIO_NATS_SERVER") });
  const old = program(join(dir.path, "bin", "nats-server"), "nats-server: v1.4.1");
  expect(missing({ PATH: dirname(old) })).toMatchObject({
    code: "KLIO-TOOL-MISSING",
    message: expect.stringContaining(version),
  });
  const text = join(dir.path, "text");
  writeFileSync(text, "");
  expect(missing({ KLIO_NATS_SERVER: text })).toMatchObject({
    code: "KLIO-TOOL-MISSING",
    message: `KLIO_NATS_SERVER=${text} is not an executable file`,
  });
  expect(missing({ KLIO_NATS_SERVER: dir.path })).toMatchObject({
    message: `KLIO_NATS_SERVER=${dir.path} is not an executable file`,
  });
});
