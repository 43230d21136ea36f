// klio wal-player: what it makes passes every check, and what it sends is stored as it is.
import { cpSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { deflateRawSync } from "node:zlib";
import { expect, test } from "vitest";
import type { ClientConfig } from "../../src/config/config.ts";
import { startPostgres } from "../../src/demo/local-postgres.ts";
import { systemIdIn, WalPageCheck } from "../../src/domain/wal-page.ts";
import { configFile, klio, klioWith } from "../support/klio-cli.ts";
import { switchSegment } from "../support/streaming.ts";
import { temporaryDirectory } from "../support/temporary-directory.ts";
import { startWalServer, type TestWalServer } from "../support/wal-server.ts";
import { read } from "../support/wal-store.ts";

function configOf({ server, certificates }: TestWalServer, path: string): string {
  const { cert, key } = certificates.client("alpha");
  const config: ClientConfig = {
    clusterName: "alpha",
    wal: {
      address: server.address,
      serverCertPath: certificates.server.cert,
      clientCertPath: cert,
      clientKeyPath: key,
    },
    tier1Retention: {},
    tier2Retention: {},
    tier1Enabled: true,
    tier2BackupEnabled: false,
    tier2RecoveryEnabled: false,
    walPrefetch: { count: 0, maxConcurrentDownloads: 1 },
  };
  return configFile(path, config);
}

test.each([1, 16, 64])("generate: segments of %i MiB have the headers of their place", async (mebibytes) => {
  await using directory = await temporaryDirectory();
  const to = join(directory.path, "wal");
  const first = mebibytes === 16 ? "0000000300000004000000FF" : "000000030000000400000001";
  const made = await klio(
    "wal-player",
    "generate",
    to,
    ...["--segments", "2", "--segment-size", String(mebibytes), "--first", first, "--system-id", "42", "--json"],
  );
  const second = mebibytes === 16 ? "000000030000000500000000" : "000000030000000400000002";
  expect(JSON.parse(made.out)).toEqual({
    directory: to,
    files: 2,
    bytes: 2 * mebibytes * 1024 * 1024,
    first,
    last: second,
    system_id: "42",
  });
  for (const name of [first, second]) {
    const bytes = readFileSync(join(to, name));
    expect(bytes.length).toBe(mebibytes << 20);
    expect(systemIdIn(bytes)).toBe("42");
    new WalPageCheck({ name, segmentBytes: bytes.length, systemId: "42" }).check(bytes, 0);
  }
});

test("generate: one kind of content compresses, the other does not; a directory with something in it is refused", async () => {
  await using directory = await temporaryDirectory();
  const share = async (kind: string) => {
    const to = join(directory.path, kind);
    const made = await klio("wal-player", "generate", to, "-n", "1", "--segment-size", "1", "--fill", kind);
    expect(made.out).toBe(`1 segments in ${to}, 000000010000000000000001 to 000000010000000000000001: 1.0 MB\n`);
    return deflateRawSync(readFileSync(join(to, "000000010000000000000001"))).length / (1 << 20);
  };
  expect(await share("random")).toBeGreaterThan(0.99);
  expect(await share("compressible")).toBeLessThan(0.4);
  const again = await klio("wal-player", "generate", join(directory.path, "random"));
  expect(again.status).toBe(64);
  expect(again.err).toContain("is not empty (it holds 000000010000000000000001)");
  const wrong = await klio("wal-player", "generate", join(directory.path, "x"), "--segment-size", "3");
  expect(wrong).toMatchObject({ status: 64, out: "" });
  expect(wrong.err).toContain("not a size of a WAL segment: 3145728 bytes");
});

test.each(["put", "stream"])(
  "play over %s: everything arrives, and the figures are those of what was sent",
  async (method) => {
    await using directory = await temporaryDirectory();
    await using server = await startWalServer();
    const config = configOf(server, join(directory.path, "client.yaml"));
    const wal = join(directory.path, "wal");
    await klio("wal-player", "generate", wal, "--segments", "5", "--segment-size", "1");
    const history = "1\t0/3000000\tno recovery target specified\n";
    writeFileSync(join(wal, "00000002.history"), history);
    writeFileSync(join(wal, "README"), "not WAL");
    const played = await klio(
      ...["wal-player", "play", wal, "--config", config, "--method", method, "--json"],
      ...["--concurrency", "3", "--repeat", "2", "--block-size", "64kB"],
    );
    expect(played.err).toContain("README is not sent: it is neither a WAL segment nor a timeline history");
    const report = JSON.parse(played.out);
    expect(report).toMatchObject({
      files: 12,
      bytes: 2 * (5 * (1 << 20) + history.length),
      method,
      block_size: 65536,
      concurrency: 3,
      repeat: 2,
      skipped: [{ name: "README" }],
    });
    expect(report.seconds).toBeGreaterThan(0);
    expect(report.latency_ms.p50).toBeGreaterThan(0);
    expect(report.latency_ms.max).toBeGreaterThanOrEqual(report.latency_ms.p99);
    const names = readdirSync(wal).filter((name) => name !== "README");
    expect((await server.store.list("alpha")).map(({ name }) => name)).toEqual(names.toSorted());
    for (const name of names)
      expect((await read(server.store, "alpha", name))?.equals(readFileSync(join(wal, name)))).toBe(true);
  },
);

test("play keeps to a rate: 3 MB at 4 MB/s take more than half a second", async () => {
  await using directory = await temporaryDirectory();
  await using server = await startWalServer();
  const config = configOf(server, join(directory.path, "client.yaml"));
  const wal = join(directory.path, "wal");
  await klio("wal-player", "generate", wal, "--segments", "3", "--segment-size", "1");
  const rated = ["--rate", "4", "--block-size", "256kB", "--json"];
  const played = await klio("wal-player", "play", wal, "--config", config, ...rated);
  // The last block goes when its turn has come: its own share of the time is not waited for.
  expect(JSON.parse(played.out).seconds).toBeGreaterThan(0.7);
  expect(JSON.parse(played.out).mb_per_second).toBeLessThan(4.5);
});

test("play sends what a pg_wal holds of WAL, and passes over what PostgreSQL keeps for later", async () => {
  await using directory = await temporaryDirectory();
  await using server = await startWalServer();
  const config = configOf(server, join(directory.path, "client.yaml"));
  await using postgres = await startPostgres({
    directory: join(directory.path, "pg"),
    version: 17,
    walSegmentMiB: 1,
    settings: { max_wal_size: "32MB", wal_keep_size: "4MB" },
  });
  for (let i = 0; i < 12; i++) await switchSegment(postgres);
  await postgres.query("checkpoint");
  const [row] = await postgres.query("select pg_walfile_name(pg_current_wal_lsn()) as current");
  await postgres.stop();
  const wal = join(directory.path, "copy");
  cpSync(join(postgres.dataDirectory, "pg_wal"), wal, { recursive: true });
  const segments = readdirSync(wal).filter((name) => /^[0-9A-F]{24}$/.test(name));
  const old = segments.filter((name) => name < String(row?.current));
  const recycled = segments.filter((name) => name > String(row?.current));
  expect(old.length).toBeGreaterThan(2);
  expect(recycled.length).toBeGreaterThan(0);
  const played = await klio("wal-player", "play", wal, "--config", config, "--json");
  expect(played.err).not.toContain("Error");
  const skipped = JSON.parse(played.out).skipped.map(({ name }: { name: string }) => name);
  expect(skipped).toEqual(expect.arrayContaining(recycled));
  const stored = (await server.store.list("alpha")).map(({ name }) => name);
  expect(stored).toEqual(expect.arrayContaining(old));
  for (const name of stored)
    expect((await read(server.store, "alpha", name))?.equals(readFileSync(join(wal, name)))).toBe(true);
});

test("play tells what went wrong: no server, no WAL, a foreign cluster, a file of no size, a wish to stop", async () => {
  await using directory = await temporaryDirectory();
  await using server = await startWalServer();
  const config = configOf(server, join(directory.path, "client.yaml"));
  const play = (wal: string, ...more: string[]) => klio("wal-player", "play", wal, "--config", config, ...more);
  const wal = join(directory.path, "wal");
  await klio("wal-player", "generate", wal, "--segments", "2", "--segment-size", "1");
  expect((await play(wal)).out).toMatch(/^2 files, 2\.1 MB in [\d.]+ s: [\d.]+ MB\/s\nper file: p50 [\d.]+ ms, p90 /);

  const foreign = join(directory.path, "foreign");
  await klio(
    "wal-player",
    "generate",
    foreign,
    "--segments",
    "1",
    "--segment-size",
    "1",
    "--system-id",
    "7",
    "--timeline",
    "2",
  );
  const refused = await play(foreign);
  expect(refused).toMatchObject({ status: 69, out: "" });
  expect(refused.err).toContain("the page is of system 7, the cluster is 7300000000000000001");

  const odd = join(directory.path, "odd");
  mkdirSync(odd);
  renameSync(join(foreign, "000000020000000000000001"), join(odd, "000000010000000000000001"));
  truncateSync(join(odd, "000000010000000000000001"), 1000);
  const short = await play(odd);
  expect(short.status).toBe(64);
  expect(short.err).toContain("holds no WAL segment (000000010000000000000001: has 1000 bytes, no size of a WAL");
  rmSync(odd, { recursive: true });
  expect(await play(odd)).toMatchObject({ status: 64, err: expect.stringContaining("cannot read the directory") });

  const stop = new AbortController();
  const slow = klioWith({ signal: stop.signal }, "wal-player", "play", wal, "--config", config, "--rate", "0.001");
  stop.abort();
  expect(await slow).toMatchObject({
    status: 75,
    err: expect.stringContaining("000000010000000000000001 was cancelled"),
  });

  await server.server.close(0);
  const nobody = await play(wal);
  expect(nobody.status).toBe(69);
  expect(nobody.err).toContain("Hint: check the address and that the Klio server runs");
  expect((await play(wal, "--block-size", "9MB")).status).toBe(64);
});
