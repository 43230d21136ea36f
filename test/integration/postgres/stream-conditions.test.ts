// What can go wrong between a source and a server that goes on without it, on real PostgreSQL: each case has a name, in the
// status and in a metric, and blocks or goes on as it should.
import { chmodSync, cpSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { openSession } from "../../../src/actors/postgres/source-session.ts";
import type { ClientConfig } from "../../../src/config/config.ts";
import { type LocalPostgres, preparePostgres, startPostgres } from "../../../src/demo/local-postgres.ts";
import { giveTo } from "../../../src/demo/run-as.ts";
import { parseLsn } from "../../../src/domain/lsn.ts";
import type { Reading } from "../../../src/telemetry/instruments.ts";
import { noTelemetry, type Telemetry } from "../../../src/telemetry/telemetry.ts";
import { encodeStatus, startReplication } from "../../../src/wire/pg-replication.ts";
import { eventually } from "../../support/eventually.ts";
import { configFile, klio } from "../../support/klio-cli.ts";
import {
  caughtUp,
  compareWithPgWal,
  replication,
  startStream,
  streamConfig,
  switchSegment,
  type TestStream,
} from "../../support/streaming.ts";
import { temporaryDirectory } from "../../support/temporary-directory.ts";
import { startWalServer } from "../../support/wal-server.ts";

const MIB = 1 << 20;
/** Little WAL is kept, so that a few segments are enough to lose some. */
const stingy = { max_wal_size: "2MB", min_wal_size: "2MB", wal_keep_size: "0" };

/** A stream whose metrics can be read. */
async function watched(config: ClientConfig): Promise<TestStream & { metric(name: string): Reading[] }> {
  const readers = new Map<string, () => Iterable<Reading>>();
  const telemetry: Telemetry = {
    ...noTelemetry(),
    observe(name, read) {
      readers.set(name, read);
      return () => void readers.delete(name);
    },
  };
  const stream = await startStream(config, { telemetry });
  return Object.assign(stream, { metric: (name: string) => [...(readers.get(name)?.() ?? [])] });
}

type Watched = Awaited<ReturnType<typeof watched>>;
const active = (stream: Watched) =>
  stream.metric("klio.stream.condition").flatMap(({ value, labels }) => (value === 1 ? [labels?.condition] : []));
const blockedBy = (stream: Watched, condition: string) =>
  eventually(
    () => {
      const status = stream.status();
      return status.state === "blocked" && status.condition === condition ? status : undefined;
    },
    { what: `the condition ${condition}` },
  );
const flowing = (stream: Watched) => eventually(() => stream.status().state === "flowing" && stream.status());

/** The server has all that the source has, and nobody streams any more. */
async function followed(config: ClientConfig, postgres: LocalPostgres): Promise<void> {
  await using stream = await watched(config);
  await flowing(stream);
  await caughtUp(postgres);
}

async function writeSegments(postgres: LocalPostgres, count: number): Promise<void> {
  for (let i = 0; i < count; i++) await switchSegment(postgres);
  await postgres.query("checkpoint");
}

/** What is written from now on stays to be compared. */
async function keepWal(postgres: LocalPostgres): Promise<void> {
  await postgres.query("select pg_create_physical_replication_slot('keep', true)");
}

async function slotPosition(postgres: LocalPostgres): Promise<string> {
  const [slot] = await postgres.query(
    "select restart_lsn::text as at from pg_replication_slots where slot_name = 'klio'",
  );
  return String(slot?.at);
}

/** A client of the slot tells `position` as flushed: the slot points there then. */
async function tellPosition(postgres: LocalPostgres, position: string): Promise<void> {
  const signal = AbortSignal.timeout(20_000);
  const session = await openSession(postgres.replicationDsn, { applicationName: "other", slot: "klio", signal });
  if (session.kind !== "ok") throw new Error(session.reason);
  const started = Promise.withResolvers<void>();
  const raw = session.value.take(() => started.resolve());
  raw.command(startReplication("klio", await slotPosition(postgres), 1));
  await started.promise;
  const told = { written: parseLsn(position), flushed: parseLsn(position), applied: parseLsn(position) };
  raw.copyData(encodeStatus({ ...told, nowMs: Date.now(), replyRequested: false }));
  await eventually(async () => (await slotPosition(postgres)) === position, {
    what: "the slot where a client told it to be",
  });
  await session.value.close();
}

/** More than `stingy4` keeps for a slot that nobody reads. */
const loseSlot = (postgres: LocalPostgres) => writeSegments(postgres, 12);
const stingy4 = { max_slot_wal_keep_size: "4MB" };

async function startSource(directory: string, settings: Record<string, string> = {}): Promise<LocalPostgres> {
  return startPostgres({ directory, version: 17, walSegmentMiB: 1, settings: { ...stingy, ...settings } });
}

test("SlotLost: beyond max_slot_wal_keep_size the stream blocks with that name; reset-lsn gets it going again", async () => {
  await using directory = await temporaryDirectory();
  await using server = await startWalServer();
  await using postgres = await startSource(join(directory.path, "pg"), stingy4);
  const config = streamConfig(postgres, server);
  const file = configFile(join(directory.path, "client.yaml"), config);
  {
    await using stream = await watched(config);
    await flowing(stream);
    await writeSegments(postgres, 2);
    await caughtUp(postgres);
    // The slot is looked at on a period: the first look may be older than the stream.
    const present = await eventually(() => stream.status().slot.active && stream.status().slot);
    // Little room, of which a stream that follows uses little.
    expect(present).toMatchObject({ name: "klio", isPresent: true, status: "reserved", level: "watching" });
    expect(present.safeBytes).toBeGreaterThan(0);
    expect(present.safeBytes).toBeLessThanOrEqual(6 * MIB);
    expect(present.freeBytes).toBeGreaterThan(0);
    expect(stream.metric("klio.slot.safe_size")).toEqual([
      { value: stream.status().slot.safeBytes, labels: { cluster_name: "alpha" } },
    ]);
    expect(stream.metric("klio.slot.volume_free_size")).toHaveLength(1);
    expect(active(stream)).toEqual([]);
    const refused = await klio("reset-lsn", "--config", file);
    expect(refused).toMatchObject({ status: 68, err: expect.stringContaining("the replication slot klio is in use") });
  }
  const before = (await server.store.list("alpha")).length;
  await loseSlot(postgres);
  await using stream = await watched(config);
  const status = await blockedBy(stream, "SlotLost");
  expect(status.reason).toContain("PostgreSQL removed WAL that the replication slot klio needed");
  expect(active(stream)).toEqual(["SlotLost"]);
  await eventually(() => stream.status().slot.level === "lost");
  expect(stream.log.events()).toContain("slot.lost");
  expect((await server.store.list("alpha")).length).toBe(before);

  const reset = JSON.parse((await klio("reset-lsn", "--config", file, "--json")).out);
  expect(reset).toMatchObject({ slot: "klio", slot_dropped: true });
  await flowing(stream);
  await keepWal(postgres);
  await writeSegments(postgres, 1);
  await caughtUp(postgres);
  expect(active(stream)).toEqual([]);
  expect(await compareWithPgWal(postgres, server)).toContain(reset.wal_name);
  const metadata = JSON.parse((await klio("get-metadata", "--config", file)).out);
  expect(metadata).toMatchObject({
    gaps: [{ end: reset.wal_name, start: expect.any(String), ts: expect.any(String) }],
  });
  const [system] = await postgres.query("select system_identifier::text as id from pg_control_system()");
  expect(metadata.systemId).toBe(system?.id);
  await eventually(() => stream.status().slot.level !== "lost");
});

test("W8: with gap_policy = record a lost slot costs the gap that the server records, and nobody's help", async () => {
  await using directory = await temporaryDirectory();
  await using server = await startWalServer();
  await using postgres = await startSource(join(directory.path, "pg"), stingy4);
  const config = streamConfig(postgres, server, { gapPolicy: "record" });
  await followed(config, postgres);
  await loseSlot(postgres);
  await using stream = await watched(config);
  await flowing(stream);
  await keepWal(postgres);
  await writeSegments(postgres, 1);
  await caughtUp(postgres);
  expect(stream.log.events()).toContain("stream.gap");
  expect(stream.log.events()).not.toContain("stream.blocked");
  const { gaps } = (await server.store.metadata("alpha")) ?? { gaps: [] };
  expect(gaps).toHaveLength(1);
  expect(await compareWithPgWal(postgres, server)).toContain(gaps[0]?.end);
});

test("W8: a lost slot whose WAL the server has already costs nothing", async () => {
  await using directory = await temporaryDirectory();
  await using server = await startWalServer();
  await using postgres = await startSource(join(directory.path, "pg"), stingy4);
  const config = streamConfig(postgres, server, { gapPolicy: "record" });
  await followed(config, postgres);
  // An older slot, as after a crash of PostgreSQL that forgot its advance: lost, though the server is past what it needed.
  await postgres.query("select pg_drop_replication_slot('klio')");
  await postgres.query("select pg_create_physical_replication_slot('klio', true)");
  {
    await using other = await watched(streamConfig(postgres, server, { slot: "other" }));
    await flowing(other);
    await loseSlot(postgres);
    await caughtUp(postgres);
  }
  const [slot] = await postgres.query("select wal_status from pg_replication_slots where slot_name = 'klio'");
  expect(slot?.wal_status).toBe("lost");
  await using stream = await watched(config);
  await flowing(stream);
  await switchSegment(postgres);
  await caughtUp(postgres);
  expect((await server.store.metadata("alpha"))?.gaps).toEqual([]);
  expect(stream.log.events()).not.toContain("stream.gap");
  expect(stream.log.events()).not.toContain("stream.blocked");
});

test("WalGap: a slot that was dropped while nobody streamed; recorded, the gap ends where the new slot begins", async () => {
  await using directory = await temporaryDirectory();
  await using server = await startWalServer();
  await using postgres = await startSource(join(directory.path, "pg"));
  const config = streamConfig(postgres, server);
  await followed(config, postgres);
  await postgres.query("select pg_drop_replication_slot('klio')");
  await writeSegments(postgres, 8);
  {
    await using stream = await watched(config);
    const { reason } = await blockedBy(stream, "WalGap");
    expect(reason).toMatch(/requested WAL segment [0-9A-F]{24} has already been removed/);
    expect(active(stream)).toEqual(["WalGap"]);
    expect((await server.store.metadata("alpha"))?.gaps).toEqual([]);
  }
  // What is written from now on is kept by the slot that the blocked stream made.
  const [slot] = await postgres.query(
    "select pg_walfile_name(restart_lsn) as first from pg_replication_slots where slot_name = 'klio'",
  );
  await keepWal(postgres);
  await writeSegments(postgres, 3);
  await using stream = await watched({ ...config, source: { ...config.source!, gapPolicy: "record" } });
  await flowing(stream);
  await caughtUp(postgres);
  expect((await server.store.metadata("alpha"))?.gaps).toMatchObject([{ end: slot?.first }]);
  expect((await compareWithPgWal(postgres, server)).length).toBeGreaterThanOrEqual(3);
});

test("WalGap: a slot that points to WAL that is gone, though PostgreSQL keeps it as if it were there, is made anew", async () => {
  await using directory = await temporaryDirectory();
  await using server = await startWalServer();
  await using postgres = await startSource(join(directory.path, "pg"));
  const config = streamConfig(postgres, server, { gapPolicy: "record" });
  await followed(config, postgres);
  const old = await slotPosition(postgres);
  await postgres.query("select pg_drop_replication_slot('klio')");
  await writeSegments(postgres, 8);
  // As a client leaves it that tells a position before WAL has come.
  await postgres.query("select pg_create_physical_replication_slot('klio', true)");
  await tellPosition(postgres, old);
  await keepWal(postgres);
  await using stream = await watched(config);
  await eventually(async () => (await server.store.metadata("alpha"))?.gaps.length === 1, { what: "a recorded gap" });
  await writeSegments(postgres, 3);
  await caughtUp(postgres);
  expect(stream.log.events()).not.toContain("stream.blocked");
  expect((await server.store.metadata("alpha"))?.gaps).toHaveLength(1);
  expect((await compareWithPgWal(postgres, server)).length).toBeGreaterThanOrEqual(3);
});

test("another system under the same name: SystemIdentifierMismatch", async () => {
  await using directory = await temporaryDirectory();
  await using server = await startWalServer();
  await using own = await startSource(join(directory.path, "own"));
  await using other = await startSource(join(directory.path, "other"));
  await followed(streamConfig(own, server), own);
  await using stream = await watched(streamConfig(other, server, { gapPolicy: "record" }));
  expect((await blockedBy(stream, "SystemIdentifierMismatch")).reason).toContain("system");
  expect(active(stream)).toEqual(["SystemIdentifierMismatch"]);
});

/** A server, not started, over a copy of a stopped one's data directory. */
async function copyOf(postgres: LocalPostgres, directory: string): Promise<LocalPostgres> {
  mkdirSync(directory);
  cpSync(postgres.dataDirectory, join(directory, "data"), { recursive: true, preserveTimestamps: true });
  chmodSync(join(directory, "data"), 0o700);
  await giveTo(directory, postgres.runAs);
  return preparePostgres({ directory, version: 17, walSegmentMiB: 1, settings: stingy, existing: true });
}

test("a primary that lacks what is stored: ServerAhead; promoted it goes on; the old primary: TimelineNotInHistory", async () => {
  await using directory = await temporaryDirectory();
  await using server = await startWalServer();
  await using postgres = await startSource(join(directory.path, "pg"), { wal_keep_size: "64MB" });
  const config = streamConfig(postgres, server, { gapPolicy: "record" });
  {
    await using stream = await watched(config);
    await flowing(stream);
    await writeSegments(postgres, 2);
    await caughtUp(postgres);
  }
  await postgres.stop();
  await using snapshot = await copyOf(postgres, join(directory.path, "snapshot"));
  await using standby = await copyOf(postgres, join(directory.path, "standby"));
  writeFileSync(join(standby.dataDirectory, "standby.signal"), "");
  await postgres.start();
  {
    await using stream = await watched(config);
    await flowing(stream);
    await writeSegments(postgres, 4);
    await caughtUp(postgres);
  }
  await postgres.stop();

  // An old state of the primary, started as it was.
  await snapshot.start();
  {
    await using stream = await watched(streamConfig(snapshot, server, { gapPolicy: "record" }));
    const { reason } = await blockedBy(stream, "ServerAhead");
    expect(reason).toMatch(/the server holds WAL up to .* of timeline 1, the source has /);
    expect(active(stream)).toEqual(["ServerAhead"]);
  }
  await snapshot.stop();

  // A standby that lags is waited for, when streaming from one is wanted at all.
  await standby.start();
  {
    await using stream = await startStream(streamConfig(standby, server), { primary: false });
    const lag = await eventually(() => stream.status().reason.includes("the standby lags") && stream.status());
    expect(lag.condition).toBe("SourceUnavailable");
  }
  await standby.query("select pg_promote()");
  {
    await using stream = await watched(streamConfig(standby, server, { gapPolicy: "record" }));
    await flowing(stream);
    await writeSegments(standby, 2);
    await caughtUp(standby);
    expect(stream.status()).toMatchObject({ timeline: 2, condition: "" });
    expect(stream.log.events()).toContain("stream.abandoned");
    expect((await server.store.list("alpha")).map(({ name }) => name)).toContain("00000002.history");
    expect((await compareWithPgWal(standby, server, { from: "00000002" })).length).toBeGreaterThan(0);
  }
  await postgres.start();
  await using stream = await watched(config);
  const { reason } = await blockedBy(stream, "TimelineNotInHistory");
  expect(reason).toContain("of timeline 2, which is not in the history of timeline 1");
  expect(active(stream)).toEqual(["TimelineNotInHistory"]);
  expect((await server.store.metadata("alpha"))?.gaps).toEqual([]);
  expect(await replication(postgres)).toBeUndefined();
});

test("while nobody takes the WAL its growth is foretold, and no more when it is taken", async () => {
  await using directory = await temporaryDirectory();
  await using server = await startWalServer();
  await using postgres = await startSource(join(directory.path, "pg"));
  await using stream = await watched(streamConfig(postgres, server));
  await flowing(stream);
  await caughtUp(postgres);
  expect(stream.metric("klio.slot.time_to_full")).toEqual([]);
  const address = server.server.address;
  await server.server.close(0);
  const reading = await eventually(async () => {
    await switchSegment(postgres);
    return stream.metric("klio.slot.time_to_full")[0];
  });
  // No max_slot_wal_keep_size here: the limit is the volume, which has room for many more segments.
  const { freeBytes, safeBytes, retainedBytes } = stream.status().slot;
  expect(safeBytes).toBeNull();
  expect(retainedBytes).toBeGreaterThan(0);
  expect(reading.value).toBeGreaterThan(1);
  expect(freeBytes).toBeGreaterThan(MIB);
  expect(active(stream)).toEqual(["ServerUnavailable"]);
  await server.restart();
  expect(server.server.address).toBe(address);
  await flowing(stream);
  await caughtUp(postgres);
  await eventually(() => stream.status().slot.retainedBytes < MIB);
});

test.each([15, 18] as const)(
  "PostgreSQL %i: a role that may only replicate is enough; the volume needs one more",
  async (version) => {
    await using directory = await temporaryDirectory();
    await using server = await startWalServer();
    const settings = { max_slot_wal_keep_size: "1GB" };
    await using postgres = await startPostgres({ directory: join(directory.path, "pg"), version, settings });
    await postgres.query("create role streamer login replication password 'secret'");
    const dsn = postgres.dsn.replace(/\/\/[^@]*@/, "//streamer:secret@");
    await using stream = await watched(
      streamConfig(postgres, server, { standardDsn: dsn, dsn: `${dsn}?replication=yes` }),
    );
    await flowing(stream);
    await caughtUp(postgres);
    const slot = await eventually(() => stream.status().slot.active && stream.status().slot);
    expect(slot).toMatchObject({ isPresent: true, status: "reserved", freeBytes: null });
    expect(slot.safeBytes).toBeGreaterThan(MIB);
    expect(stream.metric("klio.slot.volume_free_size")).toEqual([]);
    await postgres.query("grant pg_read_all_settings to streamer");
    await eventually(() => stream.status().slot.freeBytes !== null);
  },
);
