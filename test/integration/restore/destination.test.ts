import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { existsSync, mkdirSync, readdirSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, test } from "vitest";
import { processStartTime } from "../../../src/actors/process/run-child.actor.ts";
import {
  checkDestinations,
  claimDestinations,
  clearDestinations,
  contentIn,
  freeBytes,
  MARKER,
  parseTablespaces,
  unpackContent,
} from "../../../src/actors/restore/destination.ts";
import { temporaryDirectory } from "../../support/temporary-directory.ts";

const children: ChildProcess[] = [];
afterAll(() => {
  for (const child of children) child.kill("SIGKILL");
});

const reasonOf = (outcome: ReturnType<typeof checkDestinations>) =>
  outcome.kind === "ok" ? undefined : `${outcome.code}: ${outcome.reason}`;

test("absent and empty directories can be filled; what a fresh file system holds does not count", async () => {
  await using directory = await temporaryDirectory();
  const empty = join(directory.path, "empty");
  const fresh = join(directory.path, "fresh");
  mkdirSync(empty);
  mkdirSync(join(fresh, "lost+found"), { recursive: true });
  assert.deepEqual(checkDestinations([empty, fresh, join(directory.path, "a", "b")]), { kind: "ok", value: null });
  assert.equal(existsSync(join(directory.path, "a")), false);
});

test("KLIO-RESTORE-TARGET: whatever holds something else is refused, with what it is", async () => {
  await using directory = await temporaryDirectory();
  const at = (name: string) => join(directory.path, name);
  mkdirSync(at("server"));
  writeFileSync(join(at("server"), "postmaster.pid"), "1\n");
  mkdirSync(at("full"));
  for (const name of ["a", "b", "c", "d"]) writeFileSync(join(at("full"), name), "");
  writeFileSync(at("file"), "");
  mkdirSync(at("outer"));
  symlinkSync(at("outer"), at("link"));
  const cases: [string[], string][] = [
    [[at("server")], `${at("server")} is the data directory of a server`],
    [[at("full")], `${at("full")} is not empty (it holds a, b, c, …)`],
    [[at("file")], `${at("file")} is not a directory`],
    [["relative"], "relative is not an absolute path"],
    [[at("x"), at("x")], `${at("x")} is named twice`],
    [[at("x"), at("x/y")], `${at("x/y")} lies in ${at("x")}, which is restored, too`],
    [[at("outer"), at("link/inner")], `${at("link/inner")} lies in ${at("outer")}, which is restored, too`],
  ];
  for (const [directories, reason] of cases)
    assert.equal(reasonOf(checkDestinations(directories)), `KLIO-RESTORE-TARGET: ${reason}`);
});

test("what a killed restore left behind is cleared by the next one, and by nothing else", async () => {
  await using directory = await temporaryDirectory();
  const at = join(directory.path, "data");
  assert.equal((await claimDestinations([at])).kind, "ok");
  mkdirSync(join(at, "base", "1"), { recursive: true });
  writeFileSync(join(at, "base", "1", "2"), "old");
  assert.equal(checkDestinations([at]).kind, "ok");
  assert.equal((await claimDestinations([at])).kind, "ok");
  assert.deepEqual(readdirSync(at), [MARKER]);
  assert.equal((await clearDestinations([at])).kind, "ok");
  // A marker that was torn when the machine went down.
  mkdirSync(join(at, MARKER));
  writeFileSync(join(at, MARKER, "owner"), "");
  assert.equal(checkDestinations([at]).kind, "ok");
  assert.equal((await clearDestinations([at])).kind, "ok");
  assert.deepEqual(readdirSync(at), []);
  writeFileSync(join(at, "precious"), "");
  assert.equal((await clearDestinations([at])).kind, "ok");
  assert.deepEqual(readdirSync(at), ["precious"]);
});

test("a restore that still runs keeps its directory", async () => {
  await using directory = await temporaryDirectory();
  const other = spawn("sleep", ["60"], { stdio: "ignore" });
  children.push(other);
  mkdirSync(join(directory.path, MARKER));
  writeFileSync(join(directory.path, MARKER, "owner"), `${other.pid} ${processStartTime(other.pid ?? 0)}\n`);
  assert.equal(
    reasonOf(checkDestinations([directory.path])),
    `KLIO-RESTORE-TARGET: process ${other.pid} is restoring into ${directory.path}`,
  );
});

test("content is moved out of the marker when it is whole", async () => {
  await using directory = await temporaryDirectory();
  const at = join(directory.path, "data");
  await claimDestinations([at]);
  mkdirSync(join(contentIn(at), "base"), { recursive: true });
  writeFileSync(join(contentIn(at), "PG_VERSION"), "18\n");
  assert.equal((await unpackContent(at)).kind, "ok");
  assert.deepEqual(readdirSync(at).sort(), [MARKER, "PG_VERSION", "base"]);
  assert.equal((await claimDestinations([at])).kind, "ok");
  assert.equal((await unpackContent(at)).kind, "ok");
  assert.deepEqual(readdirSync(at), [MARKER]);
});

test("a directory that cannot be made is told as such", async () => {
  await using directory = await temporaryDirectory();
  writeFileSync(join(directory.path, "file"), "");
  const claim = await claimDestinations([join(directory.path, "file", "data")]);
  assert.equal(claim.kind === "fatal" && claim.code, "KLIO-RESTORE-TARGET");
});

test("free space is that of the file system the directory will be on", async () => {
  await using directory = await temporaryDirectory();
  assert.ok((await freeBytes(join(directory.path, "not", "yet"))) > 0);
});

test("tablespaces are named with absolute paths, each once", () => {
  assert.deepEqual(
    [...parseTablespaces("a:/srv/a, b:/srv/b/")],
    [
      ["a", "/srv/a"],
      ["b", "/srv/b"],
    ],
  );
  for (const text of ["", "a", "a:", ":/x", "a:/x:/y", "a:relative", "a:/x,a:/y"])
    assert.throws(() => parseTablespaces(text), { code: "KLIO-USAGE" }, text);
});
