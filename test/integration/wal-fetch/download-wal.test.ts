import assert from "node:assert/strict";
import { existsSync, readFileSync, statSync } from "node:fs";
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, test } from "vitest";
import { connectWal, type WalClient } from "../../../src/actors/grpc/wal-client.ts";
import { downloadWal } from "../../../src/actors/wal-fetch/download-wal.ts";
import { eventually } from "../../support/eventually.ts";
import { temporaryDirectory } from "../../support/temporary-directory.ts";
import { testLog } from "../../support/test-log.ts";
import { clientTls, createCertificates, startWalPeer, status, type WalPeer } from "../../support/wal-peer.ts";

const SEGMENT = 1 << 20;
const NAME = "000000010000000000000001";
const bytes = Buffer.alloc(SEGMENT, 7);
let directory: Awaited<ReturnType<typeof temporaryDirectory>>;
let peer: WalPeer;
let client: WalClient;

beforeAll(async () => {
  directory = await temporaryDirectory();
  const certificates = await createCertificates(join(directory.path, "tls"), { clusters: ["main"] });
  peer = await startWalPeer(certificates);
  client = await connectWal({
    address: peer.address,
    tls: clientTls(certificates, "main"),
    clusterName: "main",
    telemetry: { clientInterceptors: () => [] },
    log: testLog(),
  });
});
afterAll(async () => {
  client.close();
  await peer[Symbol.asyncDispose]();
  await directory[Symbol.asyncDispose]();
});

const into = () => join(directory.path, "file.tmp");
const get = (name: string, more: { signal?: AbortSignal; stallMs?: number; into?: string } = {}) =>
  downloadWal({ client, tier: "tier1", name, into: into(), ...more });

test("a whole segment comes as it is stored, readable by its owner only", async () => {
  peer.files.set(NAME, { bytes });
  assert.deepEqual(await get(NAME), { kind: "stored", tier: "tier1", bytes: SEGMENT, segmentBytes: SEGMENT });
  assert.ok(readFileSync(into()).equals(bytes));
  assert.equal(statSync(into()).mode & 0o777, 0o600);
});

test("a second download of the same file replaces what the first one left", async () => {
  peer.files.set(NAME, { bytes });
  await get(NAME);
  peer.files.set("00000002.history", { bytes: Buffer.from("1\t0/3000000\tx\n") });
  assert.deepEqual(await get("00000002.history"), { kind: "stored", tier: "tier1", bytes: 14, segmentBytes: 0 });
  assert.equal(readFileSync(into(), "utf8"), "1\t0/3000000\tx\n");
});

test("an unfinished segment is padded with zeros to its size", async () => {
  peer.files.set(`${NAME}.partial`, { bytes: bytes.subarray(0, 100_000), segmentBytes: SEGMENT });
  assert.deepEqual(await get(`${NAME}.partial`), {
    kind: "stored",
    tier: "tier1",
    bytes: 100_000,
    segmentBytes: SEGMENT,
  });
  const padded = readFileSync(into());
  assert.equal(padded.length, SEGMENT);
  assert.ok(padded.subarray(0, 100_000).equals(bytes.subarray(0, 100_000)));
  assert.ok(padded.subarray(100_000).equals(Buffer.alloc(SEGMENT - 100_000)));
});

test("what is not stored is missing, and leaves nothing behind", async () => {
  assert.deepEqual(await get("000000010000000000000009"), { kind: "missing" });
  assert.equal(existsSync(into()), false);
});

test.each([
  ["a whole segment that ends early", { bytes: bytes.subarray(0, 900_000), segmentBytes: SEGMENT }, "KLIO-SERVER-DOWN"],
  ["more bytes than the segment has", { bytes: Buffer.alloc(2 * SEGMENT), segmentBytes: SEGMENT }, "KLIO-SERVER-DOWN"],
  ["a size that no segment has", { bytes: bytes.subarray(0, 1000) }, "KLIO-WAL-DAMAGED"],
  ["a call that breaks", { bytes, cut: { after: 300_000, how: status.UNAVAILABLE } }, "KLIO-SERVER-DOWN"],
  ["a file the server finds damaged", { bytes, cut: { after: 300_000, how: status.DATA_LOSS } }, "KLIO-WAL-DAMAGED"],
] as const)("%s is a failure and leaves nothing behind", async (_, file, code) => {
  peer.files.set("000000010000000000000002", file);
  const outcome = await get("000000010000000000000002");
  assert.equal(outcome.kind === "retryable" || outcome.kind === "fatal" ? outcome.code : outcome.kind, code);
  assert.equal(existsSync(into()), false);
});

test("a server that says nothing more is given up", async () => {
  peer.files.set("000000010000000000000003", { bytes, cut: { after: 300_000, how: "stall" } });
  const outcome = await get("000000010000000000000003", { stallMs: 200 });
  assert.deepEqual(outcome, {
    kind: "retryable",
    code: "KLIO-SERVER-DOWN",
    reason: `${peer.address} sent nothing of 000000010000000000000003 for 0.2 s`,
  });
  await eventually(() => peer.active() === 0);
  assert.equal(existsSync(into()), false);
});

test("an abort ends the call and leaves nothing behind", async () => {
  peer.files.set("000000010000000000000003", { bytes, cut: { after: 300_000, how: "stall" } });
  const abort = new AbortController();
  const outcome = get("000000010000000000000003", { signal: abort.signal });
  await eventually(() => peer.active() === 1);
  abort.abort();
  assert.equal((await outcome).kind, "retryable");
  await eventually(() => peer.active() === 0);
  assert.equal(existsSync(into()), false);
});

test("a directory that is not there is told as such, with what to do", async () => {
  const outcome = await get(NAME, { into: join(directory.path, "none", "file") });
  assert.equal(outcome.kind === "fatal" && outcome.code, "KLIO-RESTORE-TARGET");
  assert.deepEqual(
    (await readdir(directory.path)).filter((name) => name === "none"),
    [],
  );
});

test("a listing tells names, sizes, completeness and times", async () => {
  peer.files.clear();
  peer.files.set(`${NAME}.partial`, { bytes: bytes.subarray(0, 10) });
  peer.files.set("00000002.history", { bytes: Buffer.from("x") });
  assert.deepEqual(await client.list(), {
    kind: "ok",
    value: [
      { name: `${NAME}.partial`, storedBytes: 10, complete: false, storedAtMs: 1_700_000_000_000 },
      { name: "00000002.history", storedBytes: 1, complete: true, storedAtMs: 1_700_000_000_000 },
    ],
  });
  peer.setDown(true);
  const failed = await client.list();
  peer.setDown(false);
  assert.equal(failed.kind === "retryable" && failed.code, "KLIO-STORE-IO");
});
