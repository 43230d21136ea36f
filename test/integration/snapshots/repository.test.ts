import { randomBytes } from "node:crypto";
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, utimesSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { deflateRawSync } from "node:zlib";
import { expect, test, vi } from "vitest";
import { runCommand } from "../../../src/actors/process/run-command.ts";
import { openClusterSnapshots } from "../../../src/actors/snapshots/open-cluster-snapshots.ts";
import { openSnapshotRepository, probeSnapshotRepository } from "../../../src/actors/snapshots/open-repository.ts";
import { unwrap } from "../../../src/domain/outcome.ts";
import { ORPHAN_AGE_MS } from "../../../src/domain/snapshot-catalogue.ts";
import { USER_PIN } from "../../../src/domain/snapshots.ts";
import { eventually } from "../../support/eventually.ts";
import { sampleMetadata, sampleTree, storeSample } from "../../support/sample-backup.ts";
import { kopia, repositoryOptions, type SnapshotServer, startSnapshotServer } from "../../support/snapshot-server.ts";
import { temporaryDirectory } from "../../support/temporary-directory.ts";
import { testLog } from "../../support/test-log.ts";

test("a missing repository is created once, and opened as it is afterwards", async () => {
  await using dir = await temporaryDirectory();
  const options = repositoryOptions(dir.path);
  expect(unwrap(await probeSnapshotRepository(options))).toBe("absent");
  expect(existsSync(join(dir.path, "repository"))).toBe(false);
  await unwrap(await openSnapshotRepository(options))[Symbol.asyncDispose]();
  const format = readFileSync(join(dir.path, "repository/kopia.repository.f"));
  expect(unwrap(await probeSnapshotRepository(options))).toBe("present");
  await using again = unwrap(await openSnapshotRepository(options));
  expect(readFileSync(join(dir.path, "repository/kopia.repository.f"))).toEqual(format);
  expect(unwrap(await again.list())).toEqual([]);
  for (const name of readdirSync(options.stateDirectory))
    expect(statSync(join(options.stateDirectory, name)).mode & 0o077, name).toBe(0);
});

test("KLIO-KEY-MISMATCH: a wrong pass-phrase opens nothing and changes nothing", async () => {
  await using dir = await temporaryDirectory();
  const options = repositoryOptions(dir.path);
  await unwrap(await openSnapshotRepository(options))[Symbol.asyncDispose]();
  const files = () => readdirSync(join(dir.path, "repository"), { recursive: true }).toSorted();
  const before = files();
  const refused = await openSnapshotRepository({ ...options, passPhrase: "another" });
  expect(refused).toMatchObject({ kind: "fatal", code: "KLIO-KEY-MISMATCH" });
  expect(files()).toEqual(before);
});

test("KLIO-REPOSITORY: neither a directory of other files nor a read-only start creates a repository", async () => {
  await using dir = await temporaryDirectory();
  const options = repositoryOptions(dir.path);
  expect(await openSnapshotRepository({ ...options, readOnly: true })).toMatchObject({ code: "KLIO-REPOSITORY" });
  expect(await openSnapshotRepository({ ...options, create: false })).toMatchObject({ code: "KLIO-REPOSITORY" });
  mkdirSync(join(dir.path, "repository"), { recursive: true });
  writeFileSync(join(dir.path, "repository/holiday.jpg"), "x");
  expect(await openSnapshotRepository(options)).toMatchObject({
    code: "KLIO-REPOSITORY",
    reason: expect.stringContaining("holiday.jpg"),
  });
  expect(readdirSync(join(dir.path, "repository"))).toEqual(["holiday.jpg"]);
});

test("what an interrupted creation left behind does not stand in the way", async () => {
  await using dir = await temporaryDirectory();
  mkdirSync(join(dir.path, "repository/lost+found"), { recursive: true });
  writeFileSync(join(dir.path, "repository/.shards"), "{}");
  await using repository = unwrap(await openSnapshotRepository(repositoryOptions(dir.path)));
  expect(unwrap(await repository.backups())).toEqual([]);
});

test("a backup is stored, listed, verified and restored; nothing of the running server is in it", async () => {
  await using dir = await temporaryDirectory();
  await using server = await startSnapshotServer(dir.path);
  await using alpha = await server.open("alpha");
  const data = sampleTree(dir.path);
  const stored = await storeSample(alpha, data, sampleMetadata("b1"));
  expect(stored.metadata).toEqual(sampleMetadata("b1"));
  expect(stored.snapshots.map(({ content }) => content)).toEqual(["pgdata", "controldata", "metadata"]);
  expect(unwrap(await server.repository.backups("alpha"))).toEqual([stored]);
  expect(unwrap(await alpha.verify(stored.snapshots, { percent: 100 }))).toEqual({ corrupt: [] });
  const to = join(dir.path, "restored");
  const [pgdata, control] = stored.snapshots;
  expect(unwrap(await alpha.restore(pgdata!, to))).toMatchObject({ files: 2 });
  expect(readdirSync(to, { recursive: true }).toSorted()).toEqual([
    "PG_VERSION",
    "base",
    "base/1",
    "base/1/1000",
    "global",
    "log",
    "pg_replslot",
  ]);
  expect(readFileSync(join(to, "base/1/1000"))).toEqual(readFileSync(join(data, "base/1/1000")));
  unwrap(await alpha.restore(control!, join(to, "global/pg_control")));
  expect(readFileSync(join(to, "global/pg_control"))).toEqual(readFileSync(join(data, "global/pg_control")));
});

test("a change that keeps size and time of a file is not missed by the next backup", async () => {
  await using dir = await temporaryDirectory();
  await using server = await startSnapshotServer(dir.path);
  const data = sampleTree(dir.path);
  const file = join(data, "base/1/1000");
  const { atime, mtime, size } = statSync(file);
  for (const [name, letter] of [
    ["b1", "a"],
    ["b2", "b"],
  ] as const) {
    writeFileSync(file, letter.repeat(size));
    utimesSync(file, atime, mtime);
    await using alpha = await server.open("alpha");
    const stored = await storeSample(alpha, data, sampleMetadata(name));
    unwrap(await alpha.restore(stored.snapshots[0]!, join(dir.path, name)));
    expect(readFileSync(join(dir.path, name, "base/1/1000"), "utf8").at(-1)).toBe(letter);
  }
});

test("metadata too long for a description are read from their snapshot", async () => {
  await using dir = await temporaryDirectory();
  await using server = await startSnapshotServer(dir.path);
  await using alpha = await server.open("alpha");
  const data = sampleTree(dir.path);
  const metadata = sampleMetadata("long", "alpha", { annotations: { note: randomBytes(3000).toString("hex") } });
  const stored = await storeSample(alpha, data, metadata);
  expect(stored.metadata.annotations).toEqual(metadata.annotations);
  expect(unwrap(await server.repository.backups())).toEqual([stored]);
});

test("verification finds one flipped byte of a stored pack, and a pack that is gone", async () => {
  await using dir = await temporaryDirectory();
  await using server = await startSnapshotServer(dir.path);
  await using alpha = await server.open("alpha");
  const stored = await storeSample(alpha, sampleTree(dir.path), sampleMetadata("b1"));
  const repository = join(dir.path, "repository");
  const packs = readdirSync(repository, { recursive: true, encoding: "utf8" })
    .filter((name) => /(^|\/)p/.test(name) && name.endsWith(".f") && statSync(join(repository, name)).size > 1 << 20)
    .map((name) => join(repository, name));
  expect(packs.length).toBeGreaterThan(0);
  const bytes = readFileSync(packs[0]!);
  const damaged = Buffer.from(bytes);
  damaged[damaged.length >> 1]! ^= 1;
  writeFileSync(packs[0]!, damaged);
  for (const verifier of [alpha, server.repository]) {
    const { corrupt } = unwrap(await verifier.verify(stored.snapshots, { percent: 100 }));
    expect(corrupt.length).toBeGreaterThan(0);
  }
  writeFileSync(packs[0]!, bytes);
  expect(unwrap(await alpha.verify(stored.snapshots, { percent: 100 }))).toEqual({ corrupt: [] });
  rmSync(packs[0]!);
  for (const verifier of [alpha, server.repository])
    expect(unwrap(await verifier.verify(stored.snapshots, { percent: 100 })).corrupt.length).toBeGreaterThan(0);
});

test("a snapshot that is gone counts as damage; a server that is gone does not", async () => {
  await using dir = await temporaryDirectory();
  await using server = await startSnapshotServer(dir.path);
  await using alpha = await server.open("alpha");
  const stored = await storeSample(alpha, sampleTree(dir.path), sampleMetadata("b1"));
  unwrap(await server.repository.delete(stored.snapshots.slice(0, 1)));
  expect(unwrap(await alpha.verify(stored.snapshots, { percent: 100 })).corrupt.length).toBeGreaterThan(0);
  await server.stop();
  expect(await alpha.verify(stored.snapshots, { percent: 100 })).toMatchObject({
    kind: "retryable",
    code: "KLIO-REPOSITORY-DOWN",
  });
});

/** The program with beta's password, as somebody who does not play by our rules. */
async function rawProgram(server: SnapshotServer, directory: string) {
  const access = unwrap(await server.repository.clusterAccess("klio", "beta"));
  const raw = (args: string[]) =>
    runCommand({
      command: kopia,
      args: [...args, `--config-file=${directory}/raw.config`, "--disable-file-logging"],
      env: { HOME: directory, KOPIA_PASSWORD: access.password, KOPIA_CHECK_FOR_UPDATES: "false" },
    });
  const connect = (user: string, host: string) =>
    raw([
      "repository",
      "connect",
      "server",
      `--url=${server.url}`,
      `--server-cert-fingerprint=${access.fingerprint}`,
      `--override-username=${user}`,
      `--override-hostname=${host}`,
      "--no-persist-credentials",
    ]);
  return { raw, connect };
}

test("P6: a cluster's user sees, reads and removes nothing of another cluster", async () => {
  await using dir = await temporaryDirectory();
  await using server = await startSnapshotServer(dir.path, { clusters: ["alpha", "beta"] });
  await using alpha = await server.open("alpha");
  await using beta = await server.open("beta");
  const stored = await storeSample(alpha, sampleTree(dir.path), sampleMetadata("b1"));
  expect(unwrap(await beta.list())).toEqual([]);
  expect(unwrap(await beta.backups())).toEqual([]);
  expect((await beta.restore(stored.snapshots[0]!, join(dir.path, "stolen"))).kind).not.toBe("ok");
  expect(existsSync(join(dir.path, "stolen/PG_VERSION"))).toBe(false);
  expect(unwrap(await beta.abandon("b1"))).toBeUndefined();
  expect(unwrap(await alpha.backups())).toEqual([stored]);
  const { raw, connect } = await rawProgram(server, dir.path);
  expect((await connect("klio", "beta")).code).toBe(0);
  for (const { id } of stored.snapshots) {
    expect((await raw(["snapshot", "delete", "--delete", id])).code).not.toBe(0);
    expect((await raw(["snapshot", "pin", "--add=x", id])).code).not.toBe(0);
    expect((await raw(["show", id])).code).not.toBe(0);
  }
  expect((await raw(["policy", "set", "--global", "--keep-latest=1"])).code).not.toBe(0);
  expect((await connect("klio", "alpha")).code).not.toBe(0);
  expect(unwrap(await alpha.backups())).toEqual([stored]);
});

test("P11: whatever a cluster's user writes into a description, the other clusters' backups are listed", async () => {
  await using dir = await temporaryDirectory();
  await using server = await startSnapshotServer(dir.path, { clusters: ["alpha", "beta"] });
  await using alpha = await server.open("alpha");
  const stored = await storeSample(alpha, sampleTree(dir.path), sampleMetadata("b1"));
  const { raw, connect } = await rawProgram(server, dir.path);
  await connect("klio", "beta");
  const packed = (value: unknown) => deflateRawSync(JSON.stringify(value)).toString("base64url");
  const some = { name: "x", clusterName: "beta", startWal: "1", endWal: "1", startLsn: "1", endLsn: "1" };
  for (const metadata of ["garbage", packed("{"), packed([]), packed(some)]) {
    const description = JSON.stringify({ klio: 1, backup: "x", content: "metadata", metadata });
    const made = await raw(["snapshot", "create", `--description=${description}`, join(dir.path, "data/global")]);
    expect(made.code, made.stderr).toBe(0);
    expect(unwrap(await server.repository.backups("alpha")), description).toEqual([stored]);
    expect(unwrap(await server.repository.orphans("alpha")), description).toEqual([]);
    expect(unwrap(await server.repository.backups()), description).toEqual([stored]);
    expect((await server.repository.backups("beta")).kind, description).not.toBe("ok");
  }
});

test("KLIO-REPOSITORY-REFUSED and KLIO-SERVER-REFUSED: a wrong password, a certificate that is not the pinned one", async () => {
  await using dir = await temporaryDirectory();
  await using server = await startSnapshotServer(dir.path);
  const access = unwrap(await server.repository.clusterAccess("klio", "alpha"));
  const open = (more: Partial<typeof access>) =>
    openClusterSnapshots({
      tier: "tier1",
      kopia,
      url: server.url,
      access: { ...access, ...more },
      temporaryDirectory: dir.path,
      log: testLog(),
    });
  expect(await open({ password: "guess" })).toMatchObject({ kind: "fatal", code: "KLIO-REPOSITORY-REFUSED" });
  expect(await open({ fingerprint: "0".repeat(64) })).toMatchObject({ kind: "fatal", code: "KLIO-SERVER-REFUSED" });
  expect(unwrap(await server.repository.clusterAccess("klio", "alpha"))).toEqual(access);
  expect(await server.repository.clusterAccess("kl:io", "alpha")).toMatchObject({ code: "KLIO-NAME-INVALID" });
  await server.stop();
  expect(await open({})).toMatchObject({ kind: "retryable", code: "KLIO-REPOSITORY-DOWN" });
  expect(readdirSync(dir.path).filter((name) => name.startsWith("klio-repository-"))).toEqual([]);
});

test("P9: no password is ever on a command line", async () => {
  await using dir = await temporaryDirectory();
  await using server = await startSnapshotServer(dir.path);
  await server.open("alpha").then((one) => one[Symbol.asyncDispose]());
  const argv = readFileSync(`/proc/${server.pid()}/cmdline`, "utf8");
  const { password } = unwrap(await server.repository.clusterAccess("klio", "alpha"));
  expect(argv).not.toContain(password);
  expect(argv).not.toContain("a pass-phrase of the tests");
});

test("an abandoned backup is no longer listed, and its snapshots and the tombstone are orphans until they are deleted", async () => {
  await using dir = await temporaryDirectory();
  await using server = await startSnapshotServer(dir.path);
  await using alpha = await server.open("alpha");
  const data = sampleTree(dir.path);
  const kept = await storeSample(alpha, data, sampleMetadata("kept"));
  await storeSample(alpha, data, sampleMetadata("dropped"));
  expect(unwrap(await server.repository.orphans("alpha"))).toEqual([]);
  unwrap(await alpha.abandon("dropped"));
  unwrap(await alpha.abandon("dropped"));
  expect(unwrap(await alpha.backups())).toEqual([kept]);
  expect(unwrap(await server.repository.backups())).toEqual([kept]);
  const orphans = unwrap(await server.repository.orphans());
  expect(orphans.map(({ content }) => content).toSorted()).toEqual(["controldata", "metadata", "pgdata", "tombstone"]);
  expect(unwrap(await server.repository.orphans("beta"))).toEqual([]);
  unwrap(await server.repository.delete(orphans));
  expect(unwrap(await server.repository.orphans())).toEqual([]);
  expect(unwrap(await alpha.list())).toEqual(kept.snapshots);
  // The name is free again.
  expect((await storeSample(alpha, data, sampleMetadata("dropped"))).snapshots).toHaveLength(3);
});

test("P5: what a copy has made so far is no orphan, however old the backup is; what a broken one left is", async () => {
  await using dir = await temporaryDirectory();
  await using server = await startSnapshotServer(join(dir.path, "tier1"));
  await using alpha = await server.open("alpha");
  const stored = await storeSample(alpha, sampleTree(dir.path), sampleMetadata("b1"));
  const options = repositoryOptions(join(dir.path, "tier2"), { tier: "tier2" });
  await using tier2 = unwrap(await openSnapshotRepository(options));
  vi.useFakeTimers({ toFake: ["Date"], now: Date.now() + 2 * ORPHAN_AGE_MS });
  try {
    let isCopying = true;
    const copied = server.repository.copyBackupTo(tier2, stored).finally(() => {
      isCopying = false;
    });
    while (isCopying) expect(unwrap(await tier2.orphans("alpha"))).toEqual([]);
    unwrap(await copied);
    unwrap(await tier2.delete(stored.snapshots.filter(({ content }) => content === "metadata")));
    expect(unwrap(await tier2.orphans("alpha")).map(({ content }) => content)).toEqual(["pgdata", "controldata"]);
  } finally {
    vi.useRealTimers();
  }
});

test("a snapshot that is cancelled is not listed", async () => {
  await using dir = await temporaryDirectory();
  await using server = await startSnapshotServer(dir.path);
  await using alpha = await server.open("alpha");
  const data = sampleTree(dir.path);
  for (let i = 0; i < 60; i++) writeFileSync(join(data, `base/1/2${i}`), randomBytes(4 << 20));
  const abort = new AbortController();
  const running = alpha.create("b1", [{ content: "pgdata", path: data }], { signal: abort.signal });
  await eventually(() =>
    readdirSync(join(dir.path, "repository"), { recursive: true, encoding: "utf8" }).some(
      (name) => /(^|\/)p/.test(name) && statSync(join(dir.path, "repository", name)).size > 1 << 20,
    ),
  );
  abort.abort();
  expect(await running).toMatchObject({ code: "KLIO-CANCELLED" });
  expect(unwrap(await alpha.list())).toEqual([]);
  unwrap(await alpha.abandon("b1"));
  const orphans = unwrap(await server.repository.orphans());
  expect(orphans.map(({ content }) => content)).toContain("tombstone");
  unwrap(await server.repository.delete(orphans));
  expect(unwrap(await server.repository.orphans())).toEqual([]);
});

test("pins are put on and taken off, and the server tells its clients", async () => {
  await using dir = await temporaryDirectory();
  await using server = await startSnapshotServer(dir.path);
  await using alpha = await server.open("alpha");
  const stored = await storeSample(alpha, sampleTree(dir.path), sampleMetadata("b1"), "klio.io/tier2");
  expect(stored.snapshots.map(({ pins }) => pins)).toEqual([["klio.io/tier2"], ["klio.io/tier2"], ["klio.io/tier2"]]);
  unwrap(await server.repository.unpin(stored.snapshots, "klio.io/tier2"));
  const [now] = unwrap(await alpha.backups());
  expect(now?.snapshots.map(({ pins }) => pins)).toEqual([[], [], []]);
  unwrap(await server.repository.pin(stored.snapshots, USER_PIN));
  const [kept] = unwrap(await alpha.backups());
  expect(kept?.snapshots.map(({ pins }) => pins)).toEqual([[USER_PIN], [USER_PIN], [USER_PIN]]);
  unwrap(await server.repository.unpin(stored.snapshots, USER_PIN));
  // The ids have changed; what is asked under the old ones still finds its snapshots: a restore and a verification that
  // began before are neither refused nor told of damage.
  expect(now?.snapshots.some(({ id }) => stored.snapshots.some((one) => one.id === id))).toBe(false);
  for (const one of stored.snapshots) unwrap(await alpha.restore(one, join(dir.path, "restored", one.content)));
  expect(readdirSync(join(dir.path, "restored")).sort()).toEqual(["controldata", "metadata", "pgdata"]);
  for (const verifier of [alpha, server.repository])
    expect(unwrap(await verifier.verify(stored.snapshots, { percent: 100 }))).toEqual({ corrupt: [] });
  unwrap(await server.repository.delete(stored.snapshots));
  unwrap(await server.repository.delete(stored.snapshots));
  expect(unwrap(await alpha.list())).toEqual([]);
});

test("KLIO-BACKUP-FAILED: a file that cannot be read fails the snapshot", async () => {
  if (process.getuid?.() === 0) return; // root reads everything
  await using dir = await temporaryDirectory();
  await using server = await startSnapshotServer(dir.path);
  await using alpha = await server.open("alpha");
  const data = sampleTree(dir.path);
  writeFileSync(join(data, "base/1/secret"), "x", { mode: 0 });
  expect(await alpha.create("b1", [{ content: "pgdata", path: data }])).toMatchObject({ code: "KLIO-BACKUP-FAILED" });
});

test("a second server of the same port is refused for good", async () => {
  await using dir = await temporaryDirectory();
  await using other = await temporaryDirectory();
  await using server = await startSnapshotServer(dir.path);
  await expect(startSnapshotServer(other.path, { port: server.port })).rejects.toThrow(/address already in use/);
});
