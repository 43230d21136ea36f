// klio slot drop: PostgreSQL keeps no more WAL for us, when that is wanted and only then.
import { join } from "node:path";
import { expect, test } from "vitest";
import { serveSidecar } from "../../../src/actors/grpc/serve-sidecar.actor.ts";
import { startPostgres } from "../../../src/demo/local-postgres.ts";
import { sidecarControl } from "../../../src/roles/sidecar-control.ts";
import { eventually } from "../../support/eventually.ts";
import { configFile, klio } from "../../support/klio-cli.ts";
import { caughtUp, startStream, streamConfig, switchSegment } from "../../support/streaming.ts";
import { temporaryDirectory } from "../../support/temporary-directory.ts";
import { testLog } from "../../support/test-log.ts";
import { startWalServer } from "../../support/wal-server.ts";

test("it is dropped once confirmed, not while in use unless the sidecar ends its stream, and a second time is no failure", async () => {
  await using directory = await temporaryDirectory();
  await using server = await startWalServer();
  await using postgres = await startPostgres({ directory: join(directory.path, "pg"), version: 17, walSegmentMiB: 1 });
  const config = streamConfig(postgres, server);
  const file = configFile(join(directory.path, "client.yaml"), config);
  const socket = join(directory.path, "control.sock");
  const drop = (...more: string[]) => klio("slot", "drop", "--config", file, "--socket", socket, ...more);
  const slots = () => postgres.query("select slot_name, active from pg_replication_slots");

  await using stream = await startStream(config);
  await eventually(() => stream.status().state === "flowing");
  const log = testLog();
  const runBackup = async () => "";
  const handlers = sidecarControl({ cluster: "alpha", stream, runBackup, log });
  const control = await serveSidecar({ socketPath: socket, handlers, interceptors: [], log });
  await using _ = { [Symbol.asyncDispose]: () => control.close(0) };

  const asked = await drop();
  expect(asked).toMatchObject({ status: 64, out: "" });
  expect(asked.err).toMatch(
    /^Error: PostgreSQL keeps \d+ bytes of WAL for the replication slot klio, which is in use; nothing was dropped\nHint: add --yes/,
  );
  const used = await drop("--yes");
  expect(used).toMatchObject({ status: 68, out: "" });
  expect(used.err).toContain("the replication slot klio is in use; nothing was dropped\nHint: stop the sidecar");
  expect(await slots()).toEqual([{ slot_name: "klio", active: true }]);
  expect(stream.status().state).toBe("flowing");

  await switchSegment(postgres);
  await caughtUp(postgres);
  const done = await drop("--yes", "--stop-sidecar", "--json");
  expect(JSON.parse(done.out)).toEqual({ slot: "klio", dropped: true, freed_bytes: expect.any(Number) });
  expect(await slots()).toEqual([]);
  expect(stream.status()).toMatchObject({ state: "stopped", condition: "" });
  expect(log.events()).toContain("sidecar.stream.stopped");

  const again = await drop("--yes", "--stop-sidecar");
  expect(again).toEqual({ status: 0, err: "", out: "There is no replication slot klio\n" });
  // What is kept for a slot that nobody uses is told before and after.
  await postgres.query("select pg_create_physical_replication_slot('klio', true)");
  for (let i = 0; i < 3; i++) await switchSegment(postgres);
  expect((await drop()).err).toMatch(/keeps [2-5]\d{6} bytes of WAL for the replication slot klio; nothing/);
  const idle = await drop("--yes");
  expect(idle.out).toMatch(
    /^The replication slot klio is dropped: PostgreSQL may remove [2-5]\.\d MB of WAL\nA sidecar/,
  );
  expect(await slots()).toEqual([]);
});

test("KLIO-SOURCE-REFUSED and KLIO-SERVER-DOWN: a slot of another kind stays, and a sidecar that does not answer is told", async () => {
  await using directory = await temporaryDirectory();
  await using server = await startWalServer();
  await using postgres = await startPostgres({
    directory: join(directory.path, "pg"),
    version: 17,
    settings: { wal_level: "logical" },
  });
  const file = configFile(join(directory.path, "client.yaml"), streamConfig(postgres, server));
  await postgres.query("select pg_create_logical_replication_slot('klio', 'test_decoding')").catch(() => undefined);
  await postgres.query("select pg_create_logical_replication_slot('klio', 'pgoutput')").catch(() => undefined);
  const other = await klio("slot", "drop", "--config", file, "--yes");
  expect(other).toMatchObject({ status: 68, err: expect.stringContaining("is a logical one, none of Klio's") });
  await postgres.query("select pg_drop_replication_slot('klio')");
  const nobody = join(directory.path, "nobody.sock");
  const silent = await klio("slot", "drop", "--config", file, "--yes", "--stop-sidecar", "--socket", nobody);
  expect(silent).toMatchObject({ status: 69, err: expect.stringContaining(`no answer on ${nobody}`) });
});
