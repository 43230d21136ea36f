import assert from "node:assert/strict";
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, beforeEach, test } from "vitest";
import { type CommandResult, runCommand } from "../../../src/actors/process/run-command.ts";
import { askPrefetcher } from "../../../src/actors/wal-fetch/fetch-socket.ts";
import { freePort } from "../../../src/demo/local-postgres.ts";
import { eventually } from "../../support/eventually.ts";
import { temporaryDirectory } from "../../support/temporary-directory.ts";
import { clientTls, createCertificates, startWalPeer, type WalPeer } from "../../support/wal-peer.ts";

const SEGMENT = 1 << 20;
const name = (n: number) => `00000001000000000000000${n}`;
const content = (n: number) => Buffer.alloc(SEGMENT, n);
const main = join(import.meta.dirname, "../../../src/main.ts");
let directory: Awaited<ReturnType<typeof temporaryDirectory>>;
let tier1: WalPeer;
let config: string;
let pgWal: string;
let file: string;

beforeEach(async () => {
  directory = await temporaryDirectory();
  const certificates = await createCertificates(join(directory.path, "tls"), { clusters: ["main"] });
  tier1 = await startWalPeer(certificates);
  pgWal = join(directory.path, "pg_wal");
  mkdirSync(pgWal);
  file = join(pgWal, "RECOVERYXLOG");
  config = join(directory.path, "klio.yaml");
  writeConfig(certificates, tier1.address);
});
afterEach(async () => {
  rmSync(pgWal, { recursive: true, force: true }); // ends a prefetcher
  for (const one of [tier1, directory]) await one[Symbol.asyncDispose]();
});

function writeConfig(certificates: Awaited<ReturnType<typeof createCertificates>>, address: string, prefetch = 2) {
  const tls = clientTls(certificates, "main");
  writeFileSync(
    config,
    `client:
  cluster_name: main
  wal:
    address: ${address}
    server_cert_path: ${tls.serverCertPath}
    client_cert_path: ${tls.clientCertPath}
    client_key_path: ${tls.clientKeyPath}
wal_prefetch:
  count: ${prefetch}
`,
  );
}

/** Like PostgreSQL: in the data directory, with a relative path. */
function getWal(args: string[], values: { name?: string; file?: string } = {}): Promise<CommandResult> {
  return runCommand({
    command: process.execPath,
    args: [main, "--config", config, "get-wal", values.name ?? name(1), values.file ?? "pg_wal/RECOVERYXLOG", ...args],
    env: { PATH: process.env.PATH ?? "" },
    cwd: directory.path,
  });
}
const spooled = () => (existsSync(join(pgWal, ".klio-spool")) ? readdirSync(join(pgWal, ".klio-spool")) : []);
const socket = () => join(pgWal, ".klio-spool", ".socket");

test("exit status 0: the file is there; 4: it is stored nowhere; 1: anything else, 255 when recovery must stop", async () => {
  tier1.files.set(name(1), { bytes: content(1) });
  const found = await getWal([]);
  assert.equal(found.code, 0, found.stderr);
  assert.ok(readFileSync(file).equals(content(1)));
  const missing = await getWal(["--stop-on-error"], { name: name(9) });
  assert.deepEqual([missing.code, missing.stderr.includes(`${name(9)} is not stored`)], [4, true]);
  tier1.setDown(true);
  const down = await getWal(["--attempts", "1"], { name: name(9) });
  assert.deepEqual([down.code, down.stderr.includes("the volume is away")], [1, true]);
  assert.equal((await getWal(["--attempts", "1", "--stop-on-error"], { name: name(9) })).code, 255);
  assert.equal((await getWal(["--stop-on-error"], { name: "nonsense" })).code, 255);
  assert.equal((await getWal([], { name: "nonsense" })).code, 1);
});

test("exit status 4 for a tier that is not configured, but never when recovery must stop", async () => {
  const asked = await getWal(["--tier", "tier2"]);
  assert.deepEqual([asked.code, asked.stderr.includes("tier2")], [4, true]);
  assert.equal((await getWal(["--tier", "tier2", "--stop-on-error"])).code, 255);
});

test("the unfinished segment is given with --partial only", async () => {
  tier1.files.set(`${name(1)}.partial`, { bytes: content(1).subarray(0, 1000), segmentBytes: SEGMENT });
  assert.equal((await getWal([])).code, 4);
  assert.equal((await getWal(["--partial"])).code, 0);
  assert.equal(readFileSync(file).length, SEGMENT);
});

test("outside a pg_wal nothing stays behind", async () => {
  for (let n = 1; n <= 3; n++) tier1.files.set(name(n), { bytes: content(n) });
  assert.equal((await getWal([], { file: "wal" })).code, 0);
  assert.deepEqual(readdirSync(directory.path).sort(), ["klio.yaml", "pg_wal", "tls", "wal"]);
  assert.deepEqual(tier1.asked, [name(1)]);
});

test("a process stays behind that fetches ahead, answers the next one, follows `mv`, and goes with the spool", async () => {
  for (let n = 1; n <= 7; n++) tier1.files.set(name(n), { bytes: content(n) });
  assert.equal((await getWal([])).code, 0);
  await eventually(() => [name(2), name(3)].every((one) => spooled().includes(one)));
  assert.equal((await getWal([], { name: name(2) })).code, 0);
  assert.ok(readFileSync(file).equals(content(2)));
  await eventually(() => spooled().includes(name(4)));
  renameSync(join(pgWal, ".klio-spool", name(3)), file);
  await eventually(() => spooled().includes(name(5)));
  assert.deepEqual(tier1.asked, [1, 2, 3, 4, 5].map(name));
  // What was not fetched ahead is answered by it, over the socket, without another connection.
  tier1.files.set("00000002.history", { bytes: Buffer.from("1\t0/3000000\tx\n") });
  const reply = await askPrefetcher(socket(), {
    name: "00000002.history",
    file: join(pgWal, "RECOVERYHISTORY"),
    partial: false,
    origin: `auto ${config}`,
  });
  assert.equal(reply?.kind, "fetched");
  assert.deepEqual(await askPrefetcher(socket(), { name: name(7), file, partial: false, origin: "auto /other" }), {
    kind: "other",
  });
  // While it fetches ahead a removal may find the directory filled again; rmSync would say nothing.
  const spool = join(pgWal, ".klio-spool");
  await eventually(() => {
    rmSync(spool, { recursive: true, force: true });
    return !existsSync(spool);
  });
  await eventually(
    async () => (await askPrefetcher(socket(), { name: name(7), file, partial: false, origin: "" })) === undefined,
  );
  assert.deepEqual(spooled(), []);
});

test("count 0 leaves no process behind", async () => {
  const certificates = await createCertificates(join(directory.path, "tls0"), { clusters: ["main"] });
  await using peer = await startWalPeer(certificates);
  writeConfig(certificates, peer.address, 0);
  for (let n = 1; n <= 3; n++) peer.files.set(name(n), { bytes: content(n) });
  assert.equal((await getWal([])).code, 0);
  assert.deepEqual(peer.asked, [name(1)]);
  assert.deepEqual(spooled(), []);
});

test("a server that is not there: one line that says so, and what to do", async () => {
  const certificates = await createCertificates(join(directory.path, "tls1"), { clusters: ["main"] });
  writeConfig(certificates, `127.0.0.1:${await freePort()}`);
  const result = await getWal(["--attempts", "1"]);
  assert.equal(result.code, 1);
  assert.match(
    result.stderr,
    /^Error: cannot fetch 000000010000000000000001: .*ECONNREFUSED.*\nHint: check the address/m,
  );
});
