import { existsSync, mkdirSync, statSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { dirname, join } from "node:path";
import { expect, test } from "vitest";
import { type AdminHandlers, serveAdmin } from "../../src/actors/grpc/serve-admin.actor.ts";
import { openObjectStore } from "../../src/actors/s3/object-store.ts";
import { openTier2WalReader } from "../../src/actors/s3/tier2-wal-reader.ts";
import { walKey } from "../../src/domain/object-key.ts";
import { readOnlyAdmin } from "../../src/roles/offload-admin.ts";
import { backupOf, partOf } from "../support/backups.ts";
import { eventually } from "../support/eventually.ts";
import { klio } from "../support/klio-cli.ts";
import { ListedRepository, offloadBench, wal } from "../support/offload-bench.ts";
import { temporaryDirectory } from "../support/temporary-directory.ts";
import { testLog } from "../support/test-log.ts";

async function serving(handlers: AdminHandlers, directory: string) {
  const socketPath = join(directory, "admin.sock");
  const server = await serveAdmin({ socketPath, handlers, interceptors: [], log: testLog() });
  return { socketPath, server, [Symbol.asyncDispose]: () => server.close(1_000) };
}

const noStatus = async () => ({ clusters: [], queue: null });
const quick = { probe: { firstMs: 50, limitMs: 200 }, delaysMs: [100] };

test("the socket is its owner's only, a stale one is removed, a living one is not taken (KLIO-PORT-BUSY)", async () => {
  await using directory = await temporaryDirectory();
  const handlers = readOnlyAdmin(new ListedRepository("tier2"), noStatus);
  const first = await serving(handlers, directory.path);
  expect(statSync(first.socketPath).mode & 0o777).toBe(0o600);
  await expect(serving(handlers, directory.path)).rejects.toMatchObject({ code: "KLIO-PORT-BUSY" });
  await first.server.close(1_000);
  expect(existsSync(first.socketPath)).toBe(false);
  // What a killed process leaves: a socket file without a listener.
  const orphan = createServer();
  const moved = join(directory.path, "orphan.sock");
  await new Promise<void>((resolve) => orphan.listen(moved, resolve));
  const { renameSync } = await import("node:fs");
  renameSync(moved, first.socketPath);
  await new Promise((resolve) => orphan.close(resolve));
  expect(existsSync(first.socketPath)).toBe(true);
  await using again = await serving(handlers, directory.path);
  expect(again.socketPath).toBe(first.socketPath);
  writeFileSync(join(directory.path, "file"), "");
  const other = { socketPath: join(directory.path, "file"), handlers, interceptors: [], log: testLog() };
  await expect(serveAdmin(other)).rejects.toMatchObject({ code: "KLIO-CONFIG" });
});

test("klio admin: status, failed tasks, retry, purge and reconcile, for people and as JSON", async () => {
  await using directory = await temporaryDirectory();
  await using bench = await offloadBench(directory.path);
  const role = await bench.start({ limits: quick });
  await bench.s3.objects.put(walKey("p", "a", wal(1)), Buffer.from("not ours"));
  await bench.segment("a", wal(1));
  await eventually(async () => (await role.admin.failed("wal")).length === 1);
  await using admin = await serving(role.admin, directory.path);
  const socket = ["--socket-path", admin.socketPath];
  expect((await klio("admin", "queue", "status", ...socket)).out).toBe("Pending backups: 0\nPending WALs: 0\n");
  expect((await klio("admin", "queue", "status", "--json", ...socket)).out).toBe(
    '{"pending_backups":0,"pending_wals":0}\n',
  );
  const listed = await klio("admin", "queue", "wal", "list-failed", ...socket);
  expect(listed.out.split("\n")[0]).toMatch(/^SEQUENCE +CLUSTER +WAL NAME +LAST ATTEMPT +ATTEMPTS +ERROR$/);
  expect(listed.out.split("\n")[1]).toMatch(
    /^1 +a +000000010000000000000001 +\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ +1 +KLIO-S3-CONFLICT: /,
  );
  const document = JSON.parse((await klio("admin", "queue", "wal", "list-failed", "--json", ...socket)).out);
  expect(document.wals).toMatchObject([{ clusterName: "a", walName: wal(1), sequence: "1", attempts: 1 }]);
  expect((await klio("admin", "queue", "wal", "list-failed", "--cluster-name", "b", ...socket)).out).toBe(
    "No results\n",
  );
  expect((await klio("admin", "queue", "backup", "list-failed", "--json", ...socket)).out).toBe('{"backups":[]}\n');
  expect((await klio("admin", "queue", "retry", ...socket)).out).toBe("Sent again: 1 WALs, 0 backups\n");
  await eventually(async () => (await role.admin.failed("wal"))[0]?.sequence === 2);
  const reconciled = await klio("admin", "reconcile", "--cluster-name", "a", ...socket);
  expect(reconciled.out).toMatch(/^CLUSTER .*\na +0 +0 +0 +0 +1 +0\n$/);
  expect((await klio("admin", "queue", "purge", ...socket)).out).toBe("Removed: 1 WALs, 0 backups\n");
  expect((await klio("admin", "refresh", ...socket)).out).toBe("");
});

test("klio admin reconcile: what could not be compared is named, with the exit status and the hint of its cause", async () => {
  await using directory = await temporaryDirectory();
  await using bench = await offloadBench(directory.path);
  const settings = join(directory.path, "wal/damaged/settings.json");
  mkdirSync(dirname(settings));
  writeFileSync(settings, "{");
  await using admin = await serving((await bench.start({ limits: quick })).admin, directory.path);
  const reconcile = (...more: string[]) => klio("admin", "reconcile", ...more, "--socket-path", admin.socketPath);
  await eventually(async () => (await reconcile()).out.includes("damaged"));
  const damaged = await reconcile("--json");
  expect(damaged).toMatchObject({
    status: 75,
    err: expect.stringMatching(/compared: damaged: cannot read .*settings.json/),
  });
  expect(JSON.parse(damaged.out)).toMatchObject({
    error: "",
    code: "",
    clusters: [{ cluster: "damaged", code: "KLIO-STORE-IO" }],
  });
  await bench.role().stop();
  const objects = openObjectStore({ ...bench.s3.settings, secretAccessKey: "wrong" });
  const parts = { ...bench.parts, objects, reader: openTier2WalReader({ ...bench.parts, objects, prefix: "p" }) };
  const role = await bench.start({ limits: quick, tier2: { prefix: "p", whenOpen: Promise.resolve(parts) } });
  await admin.server.close(1_000);
  await using again = await serving(role.admin, directory.path);
  const refused = await eventually(async () => {
    const done = await klio("admin", "reconcile", "--socket-path", again.socketPath);
    return done.status === 64 ? done : undefined;
  });
  expect(refused.err).toMatch(/\nHint: check access key/);
});

test("klio admin: backups of both tiers are merged, and deleted where asked", async () => {
  await using directory = await temporaryDirectory();
  await using bench = await offloadBench(directory.path);
  const role = await bench.start({ limits: quick });
  const backup = (id: string) => ({
    metadata: backupOf({ name: "b1", clusterName: "a", startLsn: "18446744073709551615" }),
    snapshots: [partOf({ id })],
  });
  await bench.segment("a", wal(1));
  bench.tier1.stored.push(backup("1"));
  bench.tier2.stored.push(backup("2"));
  await using admin = await serving(role.admin, directory.path);
  const socket = ["--socket-path", admin.socketPath];
  await eventually(async () => {
    const { out } = await klio("admin", "list-backups", ...socket);
    return (
      out.includes('"klio.io/tier1":"present","klio.io/tier2":"present"') &&
      out.includes('"startLsn":18446744073709551615')
    );
  });
  const unclear = await klio("admin", "delete-backup", "b1", "--cluster", "a", ...socket);
  expect(unclear).toMatchObject({ status: 64, err: "Error: no tier is named\nHint: add --tier1, --tier2, or both\n" });
  const pin = (...more: string[]) => klio("admin", "pin-backup", "b1", "--cluster", "a", ...more, ...socket);
  await klio("retention", "set", "--keep-latest", "1", "--cluster", "a", ...socket);
  const pins = () => [bench.tier1.stored, bench.tier2.stored].map(([one]) => one?.snapshots.map((each) => each.pins));
  for (let i = 0; i < 2; i++) expect((await pin("--tier1")).out).toBe('Backup "b1" is kept\n');
  expect(pins()).toEqual([[["klio.io/kept"]], [[]]]);
  const kept = await klio("retention", "apply", "--dry-run", "--json", "--cluster", "a", ...socket);
  expect(JSON.parse(kept.out).kept.b1).toContain("pinned");
  expect((await pin("--tier1", "--tier2", "--remove")).out).toBe('Backup "b1" is left to the policy\n');
  expect(pins()).toEqual([[[]], [[]]]);
  expect((await pin()).status).toBe(64);
  const both = ["b1", "--cluster", "a", "--tier1", "--tier2"];
  const away = bench.tier2.stored.splice(0);
  for (const command of ["delete-backup", "pin-backup"]) {
    const half = await klio("admin", command, ...both, ...socket);
    expect(half).toMatchObject({ status: 69, err: expect.stringContaining("tier2 has no backup b1 of a") });
  }
  expect(pins()).toEqual([[[]], undefined]); // refused on one tier, nothing was done on the other
  bench.tier2.stored.push(...away);
  const done = await klio("admin", "delete-backup", "b1", "--cluster", "a", "--tier1", ...socket);
  expect(done.out).toBe('Backup "b1" deleted successfully\n');
  expect([bench.tier1.stored.length, bench.tier2.stored.length]).toEqual([0, 1]);
  const gone = await klio("admin", "delete-backup", "b1", "--cluster", "a", "--tier1", ...socket);
  expect(gone.err).toContain("Error: tier1 has no backup b1 of a");
});

test("KLIO-CLUSTER-UNKNOWN: a mistyped cluster is not compared, and gets no policy", async () => {
  await using directory = await temporaryDirectory();
  await using bench = await offloadBench(directory.path);
  const role = await bench.start({ limits: quick });
  await bench.segment("orders", wal(1));
  await eventually(async () => (await bench.names2("orders")).length === 1);
  await using admin = await serving(role.admin, directory.path);
  const socket = ["--socket-path", admin.socketPath];
  const unknown = {
    status: 69,
    out: "",
    err: expect.stringMatching(/^Error: nothing is stored of a cluster ordres\nHint: /),
  };
  expect(await klio("admin", "reconcile", "--cluster-name", "ordres", ...socket)).toMatchObject(unknown);
  const set = (cluster: string) => klio("retention", "set", "--cluster", cluster, "--keep-latest", "1", ...socket);
  expect(await set("ordres")).toMatchObject(unknown);
  expect(await bench.store.clusters()).toEqual(["orders"]);
  expect((await set("orders")).status).toBe(0);
  expect((await klio("admin", "reconcile", "--cluster-name", "orders", ...socket)).status).toBe(0);
});

test("KLIO-S3-DOWN: before tier 2 is open the backups of tier 1 are not told as all there are", async () => {
  await using directory = await temporaryDirectory();
  await using bench = await offloadBench(directory.path);
  const role = await bench.start({ tier2: { prefix: "p", whenOpen: new Promise<never>(() => undefined) } });
  await using admin = await serving(role.admin, directory.path);
  const listed = await klio("admin", "list-backups", "--socket-path", admin.socketPath);
  expect(listed).toMatchObject({ status: 69, out: "", err: expect.stringContaining("tier 2") });
});

test("klio retention: set, get, and a dry run that says what would go", async () => {
  await using directory = await temporaryDirectory();
  await using bench = await offloadBench(directory.path);
  const role = await bench.start({ limits: quick });
  await bench.segment("a", wal(1));
  await using admin = await serving(role.admin, directory.path);
  const where = ["--cluster", "a", "--socket-path", admin.socketPath];
  expect((await klio("retention", "get", ...where)).out).toBe("{}\n");
  expect((await klio("retention", "set", ...where)).status).toBe(64);
  await klio("retention", "set", "--keep-latest", "3", "--recovery-window-days", "7", ...where);
  await klio("retention", "set", "--tier", "tier2", "--keep-daily", "30", ...where);
  expect((await klio("retention", "get", ...where)).out).toBe(
    '{"tier1":{"keepLatest":3,"recoveryWindowDays":7},"tier2":{"keepDaily":30}}\n',
  );
  expect((await klio("retention", "apply", "--dry-run", ...where)).out).toBe(
    "Would delete 0 backups\nWould delete 0 snapshots of no backup\nWould delete 0 WAL files (all kept: no backup on this tier)\n",
  );
});

test("KLIO-SERVER-DOWN and KLIO-READ-ONLY: nobody there, and a server that only reads", async () => {
  await using directory = await temporaryDirectory();
  const nobody = await klio("admin", "queue", "status", "--socket-path", join(directory.path, "none.sock"));
  expect(nobody).toMatchObject({ status: 69 });
  expect(nobody.err).toContain("no answer on");
  await using admin = await serving(readOnlyAdmin(new ListedRepository("tier2"), noStatus), directory.path);
  const socket = ["--socket-path", admin.socketPath];
  expect((await klio("admin", "list-backups", ...socket)).out).toBe("[]\n");
  expect((await klio("admin", "delete-backup", "b", "--cluster", "a", "--tier2", ...socket)).err).toContain(
    "this server only reads tier 2",
  );
  expect((await klio("admin", "pin-backup", "b", "--cluster", "a", "--tier2", ...socket)).err).toContain(
    "this server only reads tier 2",
  );
  expect((await klio("admin", "queue", "status", ...socket)).err).toContain("this server has no queue");
});
