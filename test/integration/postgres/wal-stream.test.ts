// The stream on real PostgreSQL and a real server: bytes, positions, commits that wait.
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type LocalPostgres, startPostgres } from "../../../src/demo/local-postgres.ts";
import { eventually } from "../../support/eventually.ts";
import {
  caughtUp,
  compareWithPgWal,
  replication,
  startStream,
  streamConfig,
  switchSegment,
} from "../../support/streaming.ts";
import { temporaryDirectory } from "../../support/temporary-directory.ts";
import { startWalServer } from "../../support/wal-server.ts";

describe.each([
  { version: 15, walSegmentMiB: 16 },
  { version: 16, walSegmentMiB: 1 },
  { version: 17, walSegmentMiB: 64 },
  { version: 18, walSegmentMiB: 16 },
] as const)("PostgreSQL $version, segments of $walSegmentMiB MiB", ({ version, walSegmentMiB }) => {
  let directory: Awaited<ReturnType<typeof temporaryDirectory>>;
  let postgres: LocalPostgres;
  beforeAll(async () => {
    directory = await temporaryDirectory();
    postgres = await startPostgres({
      directory: join(directory.path, "pg"),
      version,
      walSegmentMiB,
      settings: { max_wal_size: "2GB", wal_keep_size: "1GB" },
    });
  });
  afterAll(async () => {
    await postgres[Symbol.asyncDispose]();
    await directory[Symbol.asyncDispose]();
  });

  test("stored segments equal pg_wal byte for byte; positions are exact; a restart goes on", async () => {
    await using server = await startWalServer();
    const config = streamConfig(postgres, server, { slot: `s${walSegmentMiB}` });
    {
      await using stream = await startStream(config);
      await eventually(() => replication(postgres));
      await postgres.query(
        "create table load as select i, md5(i::text) || repeat(md5((i * 3)::text), 3) as t from generate_series(1, 60000) i",
      );
      for (let i = 0; i < 2; i++) await switchSegment(postgres);
      await postgres.query("insert into load values (0, 'after the switch')");
      const row = await caughtUp(postgres);
      expect({ write: row.write, flush: row.flush, replay: row.replay }).toEqual({
        write: row.own,
        flush: row.own,
        replay: row.own,
      });
      const status = stream.status();
      expect(status).toMatchObject({ state: "flowing", condition: "", flushedLsn: row.own, timeline: 1 });
    }
    expect(await replication(postgres)).toBeUndefined();
    const [slot] = await postgres.query("select restart_lsn::text, active from pg_replication_slots");
    expect(slot?.active).toBe(false);
    const whole = await compareWithPgWal(postgres, server);
    expect(whole.length).toBeGreaterThanOrEqual(2);
    // What comes after a restart continues the unfinished segment.
    await using stream = await startStream(config);
    await postgres.query("create table more as select i, md5(i::text) from generate_series(1, 20000) i");
    await switchSegment(postgres);
    await caughtUp(postgres);
    expect((await compareWithPgWal(postgres, server)).length).toBeGreaterThan(whole.length);
    expect(stream.log.events().filter((event) => event === "stream.interrupted")).toEqual([]);
    await stream.stop();
    await postgres.query(`select pg_drop_replication_slot('s${walSegmentMiB}')`);
  });
});
