// What a repository says before anybody uses it, and how often the program is asked for it.
import { mkdirSync, readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { expect, test } from "vitest";
import { createRepository } from "../../../src/actors/snapshots/connection.ts";
import { runKopia } from "../../../src/actors/snapshots/kopia.ts";
import { openSnapshotRepository, type RepositoryOptions } from "../../../src/actors/snapshots/open-repository.ts";
import { accessDifference, policyIsRight } from "../../../src/actors/snapshots/repository-rules.ts";
import { unwrap } from "../../../src/domain/outcome.ts";
import { kopia, repositoryOptions } from "../../support/snapshot-server.ts";
import { temporaryDirectory } from "../../support/temporary-directory.ts";
import { type TestLog, testLog } from "../../support/test-log.ts";

const programOf = ({ stateDirectory }: RepositoryOptions) => ({
  executable: kopia,
  home: stateDirectory,
  environment: {},
  log: testLog(),
});

/** One command on an open repository. */
const ask = (options: RepositoryOptions, name: "direct" | "cold" | "served", ...args: string[]) =>
  runKopia(programOf(options), {
    args,
    configFile: join(options.stateDirectory, `${name}.config`),
    password: options.passPhrase,
  });

async function rulesOf(options: RepositoryOptions) {
  const read = async (...args: string[]) => JSON.parse((await ask(options, "direct", ...args, "--json")).stdout);
  const isRight = policyIsRight(await read("policy", "show", "--global"), options.tier);
  const access = accessDifference(await read("server", "acl", "list"), options.tier);
  const { owner } = await read("maintenance", "info");
  return { isRight, access, owner };
}
const rules = { isRight: true, access: { missing: [], wrong: [] }, owner: "klio@klio-server" };

/** What the program was asked since the last time. */
const commandsIn = ({ lines }: TestLog) =>
  lines
    .splice(0)
    .filter(({ event }) => event === "repository.command")
    .map(({ message }) => message.replace(/ ended$/, ""));

test("a new repository has all its rules, and the program is asked nothing twice and nothing that is known", async () => {
  await using dir = await temporaryDirectory();
  const log = testLog();
  const options = repositoryOptions(dir.path, { log });
  await unwrap(await openSnapshotRepository(options))[Symbol.asyncDispose]();
  const allow = Array.from({ length: 4 }, () => "server acl");
  const created = ["repository create", "repository connect", "policy set", ...allow, "maintenance set"];
  expect(commandsIn(log)).toEqual(created);
  await using repository = unwrap(await openSnapshotRepository(options));
  const opened = ["repository connect", "repository connect", "policy show", "server acl", "maintenance info"];
  expect(commandsIn(log)).toEqual(opened);
  expect(await rulesOf(options)).toEqual(rules);
  await Promise.all([repository.list(), repository.backups(), repository.orphans("alpha")]);
  expect(commandsIn(log)).toEqual(["snapshot list"]);
});

test("a repository whose creation ended before its rules were made gets them when it is opened", async () => {
  await using dir = await temporaryDirectory();
  const options = repositoryOptions(dir.path);
  for (const name of ["state", "repository"]) mkdirSync(join(dir.path, name));
  const config = join(options.stateDirectory, "create.config");
  expect(await createRepository(programOf(options), options.storage, options.passPhrase, config)).toBeUndefined();
  await using _ = unwrap(await openSnapshotRepository(options));
  expect(await rulesOf(options)).toEqual(rules);
});

test("what verifies has no caches and cannot write; the server has the same as we", async () => {
  await using dir = await temporaryDirectory();
  const options = repositoryOptions(dir.path, { tier: "tier2" });
  await using _ = unwrap(await openSnapshotRepository(options));
  const [direct, cold, served] = ["direct", "cold", "served"].map((name) =>
    JSON.parse(readFileSync(join(options.stateDirectory, `${name}.config`), "utf8")),
  );
  expect(cold).toEqual({ ...direct, caching: {}, readonly: true });
  expect(served).toEqual(direct);
  expect(await rulesOf(options)).toEqual(rules);
  expect(resolve(options.stateDirectory, direct.caching.cacheDirectory)).toBe(options.cacheDirectory);
  expect((await ask(options, "cold", "policy", "set", "--global", "--keep-latest=1")).code).not.toBe(0);
  expect((await ask(options, "served", "policy", "set", "--global", "--keep-latest=1")).code).toBe(0);
});
