import assert from "node:assert/strict";
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, beforeEach, test } from "vitest";
import type { Certificates } from "../../../src/demo/certificates.ts";
import { freePort } from "../../../src/demo/local-postgres.ts";
import { openWalFetcher, type WalFetcherOptions, walTiers } from "../../../src/roles/wal-fetch.ts";
import { noTelemetry } from "../../../src/telemetry/telemetry.ts";
import { eventually } from "../../support/eventually.ts";
import { temporaryDirectory } from "../../support/temporary-directory.ts";
import { testLog } from "../../support/test-log.ts";
import { clientTls, createCertificates, startWalPeer, type WalPeer } from "../../support/wal-peer.ts";

const SEGMENT = 1 << 20;
const name = (n: number) => `00000001000000000000000${n}`;
const content = (n: number) => Buffer.alloc(SEGMENT, n);
let directory: Awaited<ReturnType<typeof temporaryDirectory>>;
let certificates: Certificates;
let tier1: WalPeer;
let tier2: WalPeer;
let spool: string;
let file: string;
let log: ReturnType<typeof testLog>;

beforeEach(async () => {
  directory = await temporaryDirectory();
  certificates = await createCertificates(join(directory.path, "tls"), { clusters: ["main"] });
  tier1 = await startWalPeer(certificates);
  tier2 = await startWalPeer(certificates);
  mkdirSync(join(directory.path, "pg_wal"));
  spool = join(directory.path, "pg_wal", ".klio-spool");
  file = join(directory.path, "pg_wal", "RECOVERYXLOG");
  log = testLog();
});
afterEach(async () => {
  for (const one of [tier1, tier2, directory]) await one[Symbol.asyncDispose]();
});

const fetcher = (values: Partial<WalFetcherOptions> = {}) =>
  openWalFetcher({
    clusterName: "main",
    tls: clientTls(certificates, "main"),
    tiers: [
      { tier: "tier1", address: tier1.address },
      { tier: "tier2", address: tier2.address },
    ],
    prefetch: { count: 0, maxConcurrentDownloads: 4 },
    attempts: { max: 1, firstMs: 1, limitMs: 1 },
    telemetry: noTelemetry(),
    log,
    ...values,
  });
const leftOvers = () => readdirSync(join(directory.path, "pg_wal")).filter((one) => one.endsWith(".tmp"));

test("tier 1 is asked first, tier 2 for what tier 1 lacks; a file is replaced only by a whole one", async () => {
  tier1.files.set(name(1), { bytes: content(1) });
  tier2.files.set(name(2), { bytes: content(2) });
  await using wal = await fetcher();
  assert.deepEqual(await wal.fetch({ name: name(1), file, partial: false }), {
    kind: "fetched",
    from: "tier1",
    partial: false,
    bytes: SEGMENT,
    segmentBytes: SEGMENT,
  });
  assert.ok(readFileSync(file).equals(content(1)));
  assert.equal((await wal.fetch({ name: name(2), file, partial: false })).kind, "fetched");
  assert.ok(readFileSync(file).equals(content(2)));
  assert.deepEqual(await wal.fetch({ name: name(3), file, partial: true }), { kind: "missing" });
  tier1.files.set(name(4), { bytes: content(4).subarray(0, 1000), segmentBytes: SEGMENT });
  const short = await wal.fetch({ name: name(4), file, partial: false });
  assert.equal(short.kind, "retryable");
  assert.ok(readFileSync(file).equals(content(2)));
  assert.deepEqual(leftOvers(), []);
});

test("the tier that had the last file is asked first, by the next process, too", async () => {
  tier2.files.set(name(1), { bytes: content(1) });
  mkdirSync(spool);
  await using first = await fetcher({ spool });
  await first.fetch({ name: name(1), file, partial: false });
  await first.fetch({ name: name(1), file, partial: false });
  assert.deepEqual(tier1.asked, [name(1)]);
  await using second = await fetcher({ spool });
  await second.fetch({ name: name(1), file, partial: false });
  assert.deepEqual(tier1.asked, [name(1)]);
  assert.deepEqual(log.events(), ["wal.fetch.tier"]);
});

test("a tier that is down: the other one's file is taken, but what that one lacks is not missing", async () => {
  const port = await freePort();
  tier2.files.set(name(1), { bytes: content(1) });
  await using wal = await fetcher({
    tiers: [
      { tier: "tier1", address: `127.0.0.1:${port}` },
      { tier: "tier2", address: tier2.address },
    ],
  });
  assert.equal((await wal.fetch({ name: name(1), file, partial: false })).kind, "fetched");
  const unknown = await wal.fetch({ name: name(2), file, partial: true });
  assert.equal(unknown.kind === "retryable" && unknown.code, "KLIO-SERVER-DOWN");
});

test("of unfinished files the longest is taken, padded with zeros", async () => {
  tier1.files.set(`${name(1)}.partial`, { bytes: content(1).subarray(0, 500), segmentBytes: SEGMENT });
  tier2.files.set(`${name(1)}.partial`, { bytes: content(1).subarray(0, 900), segmentBytes: SEGMENT });
  await using wal = await fetcher();
  const outcome = await wal.fetch({ name: name(1), file, partial: true });
  assert.deepEqual(outcome, { kind: "fetched", from: "tier2", partial: true, bytes: 900, segmentBytes: SEGMENT });
  assert.ok(readFileSync(file).equals(Buffer.concat([content(1).subarray(0, 900), Buffer.alloc(SEGMENT - 900)])));
  assert.deepEqual(leftOvers(), []);
  assert.deepEqual(await wal.fetch({ name: name(1), file, partial: false }), { kind: "missing" });
});

test("a history is fetched as it is and never looked for unfinished", async () => {
  tier1.files.set("00000002.history", { bytes: Buffer.from("1\t0/3000000\tx\n") });
  await using wal = await fetcher();
  assert.equal((await wal.fetch({ name: "00000002.history", file, partial: true })).kind, "fetched");
  assert.equal(readFileSync(file, "utf8"), "1\t0/3000000\tx\n");
  assert.deepEqual(await wal.fetch({ name: "00000003.history", file, partial: true }), { kind: "missing" });
  assert.ok(!tier1.asked.includes("00000003.history.partial"));
});

test("what follows is fetched ahead and given from the spool; the next ones follow", async () => {
  for (let n = 1; n <= 6; n++) tier1.files.set(name(n), { bytes: content(n) });
  await using wal = await fetcher({ spool, prefetch: { count: 2, maxConcurrentDownloads: 4 } });
  await wal.fetch({ name: name(1), file, partial: false });
  await eventually(() => existsSync(join(spool, name(3))));
  tier1.files.delete(name(2));
  const second = await wal.fetch({ name: name(2), file, partial: false });
  assert.equal(second.kind === "fetched" && second.from, "spool");
  assert.ok(readFileSync(file).equals(content(2)));
  await eventually(() => existsSync(join(spool, name(4))));
  // Taken by `mv`, as the restore_command does.
  rmSync(join(spool, name(3)));
  rmSync(join(spool, name(4)));
  assert.equal(await wal.noticeTaken(), true);
  await eventually(() => existsSync(join(spool, name(6))));
  assert.deepEqual(
    readdirSync(spool)
      .filter((one) => !one.startsWith("."))
      .sort(),
    [name(5), name(6)],
  );
});

test("a request for a segment that is being fetched ahead waits for it instead of asking twice", async () => {
  const gate = Promise.withResolvers<void>();
  tier1.files.set(name(1), { bytes: content(1) });
  tier1.files.set(name(2), { bytes: content(2), gate: gate.promise });
  await using wal = await fetcher({ spool, prefetch: { count: 1, maxConcurrentDownloads: 1 } });
  await wal.fetch({ name: name(1), file, partial: false });
  await eventually(() => tier1.asked.includes(name(2)));
  const second = wal.fetch({ name: name(2), file, partial: false });
  gate.resolve();
  assert.equal((await second).kind, "fetched");
  assert.equal(tier1.asked.filter((one) => one === name(2)).length, 1);
});

test("count 0 fetches nothing ahead", async () => {
  tier1.files.set(name(1), { bytes: content(1) });
  tier1.files.set(name(2), { bytes: content(2) });
  await using wal = await fetcher({ spool });
  await wal.fetch({ name: name(1), file, partial: false });
  assert.deepEqual(tier1.asked, [name(1)]);
  assert.equal(existsSync(spool), false);
});

test("what a killed process left behind is removed, what a living one writes is not", async () => {
  mkdirSync(spool);
  writeFileSync(join(spool, name(1)), content(1));
  writeFileSync(join(spool, `.${name(9)}.999999999.abcdef01.tmp`), "torn");
  await using wal = await fetcher({ spool, prefetch: { count: 1, maxConcurrentDownloads: 1 } });
  assert.deepEqual(readdirSync(spool), []);
  const living = `.${name(8)}.${process.pid}.abcdef01.tmp`;
  const wals = [name(7), living, `.${name(9)}.999999999.abcdef01.tmp`];
  for (const one of wals) writeFileSync(join(directory.path, "pg_wal", one), "");
  await wal.fetch({ name: name(2), file, partial: false });
  assert.deepEqual(readdirSync(join(directory.path, "pg_wal")).sort(), [living, ".klio-spool", name(7)].sort());
});

test("an abort withdraws a request and leaves nothing behind", async () => {
  tier1.files.set(name(1), { bytes: content(1), gate: new Promise(() => undefined) });
  await using wal = await fetcher();
  const abort = new AbortController();
  const waiting = wal.fetch({ name: name(1), file, partial: false, signal: abort.signal });
  await eventually(() => tier1.asked.length === 1);
  abort.abort();
  assert.equal((await waiting).kind, "retryable");
  await eventually(() => leftOvers().length === 0);
  assert.equal(existsSync(file), false);
});

test("names that are none are refused", async () => {
  await using wal = await fetcher();
  await assert.rejects(wal.fetch({ name: "../etc/passwd", file, partial: false }), { code: "KLIO-NAME-INVALID" });
});

test("KLIO-TIER-MISSING: tier 2 is read only when recovery from it is enabled", () => {
  const base = {
    clusterName: "main",
    wal: { ...clientTls(certificates, "main"), address: "a:1", tier2Address: "b:2" },
    tier1Retention: {},
    tier2Retention: {},
    tier1Enabled: true,
    tier2BackupEnabled: true,
    walPrefetch: { count: 2, maxConcurrentDownloads: 4 },
  };
  const off = { ...base, tier2RecoveryEnabled: false };
  const on = { ...base, tier2RecoveryEnabled: true };
  assert.deepEqual(
    walTiers(on, "auto").map(({ tier }) => tier),
    ["tier1", "tier2"],
  );
  assert.deepEqual(
    walTiers(on, "tier2").map(({ tier }) => tier),
    ["tier2"],
  );
  assert.deepEqual(
    walTiers(off, "auto").map(({ tier }) => tier),
    ["tier1"],
  );
  assert.throws(() => walTiers(off, "tier2"), { code: "KLIO-TIER-MISSING", hint: /tier2_recovery_enabled/ });
});
