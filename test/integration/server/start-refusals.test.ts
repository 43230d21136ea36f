// P11: everything that can be wrong when a server starts: one line that names it, a hint, an exit status, nothing written.
import { chmodSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { createKeyFiles } from "../../../src/demo/age-keys.ts";
import { type Certificates, createCertificates } from "../../../src/demo/certificates.ts";
import { freePort } from "../../../src/demo/local-postgres.ts";
import { unwrap } from "../../../src/domain/outcome.ts";
import { withAdmin } from "../../../src/roles/admin.ts";
import { faultyS3, firstTimes, isList } from "../../support/faulty-s3.ts";
import { type TestS3, testS3 } from "../../support/s3.ts";
import { isUntouched, type ServerPlace, s3Of, serve, serverPlaces, start } from "../../support/server-place.ts";
import { temporaryDirectory } from "../../support/temporary-directory.ts";

const stack = new AsyncDisposableStack();
let root: string;
let certificates: Certificates;
let storage: TestS3;

beforeAll(async () => {
  root = stack.use(await temporaryDirectory()).path;
  certificates = await createCertificates(join(root, "tls"), { clusters: ["alpha"] });
  storage = stack.use(await testS3(join(root, "s3")));
  place = serverPlaces(root, certificates, storage.settings);
}, 60_000);
afterAll(() => stack.disposeAsync(), 60_000);

let place: () => Promise<ServerPlace>;

async function objectsBelow(prefix: string): Promise<number> {
  const found = await storage.objects.list(`${prefix}/`);
  return found.kind === "ok" ? found.value.length : -1;
}

test("KLIO-CONFIG: every fault of the file is told at once, with key and value", async () => {
  const where = await place();
  Object.assign(where.document, { console_listen_address: "nowhere" });
  Object.assign(where.document.tier1, { identity_file: "" });
  (where.document as Record<string, unknown>).tls = { cert: "a", client_ca_cert: "b" };
  Object.assign(where.document, { surprise: 1 });
  const { code, stderr } = await start(where);
  expect(code).toBe(64);
  for (const text of ["console_listen_address", "nowhere", "tier1.identity_file", "tls.key"])
    expect(stderr).toContain(text);
  expect(isUntouched(where)).toBe(true);
});

test("KLIO-KEY-FILE: a key file that is missing, unreadable, or for another identity", async () => {
  const missing = await place();
  Object.assign(missing.document.tier1, { encryption_key_file: join(missing.directory, "nothing.age") });
  const gone = await start(missing);
  expect([gone.code, gone.error]).toEqual([64, expect.stringMatching(/^Error: .*nothing\.age.*\nHint: /)]);
  expect(isUntouched(missing)).toBe(true);

  const foreign = await place();
  const other = await createKeyFiles(join(foreign.directory, "other"), "other");
  Object.assign(foreign.document.tier1, { identity_file: other.identityFile });
  const wrong = await start(foreign);
  expect([wrong.code, wrong.error]).toEqual([64, expect.stringMatching(/^Error: .*tier1\.age.*\nHint: /)]);
  expect(isUntouched(foreign)).toBe(true);

  const open = await place();
  chmodSync(String(open.document.tier1.identity_file), 0o644);
  const readable = await start(open);
  expect([readable.code, readable.error]).toEqual([64, expect.stringMatching(/^Error: .*tier1\.identity.*\nHint: /)]);
});

test("KLIO-CERTIFICATE: a certificate that is missing, or a key that is not its own", async () => {
  const missing = await place();
  missing.document.tls.cert = join(missing.directory, "nothing.crt");
  const gone = await start(missing);
  expect([gone.code, gone.error]).toEqual([64, expect.stringMatching(/^Error: .*nothing\.crt.*\nHint: /)]);
  const crossed = await place();
  crossed.document.tls.key = certificates.client("alpha").key;
  const wrong = await start(crossed);
  expect([wrong.code, wrong.error]).toEqual([64, expect.stringMatching(/^Error: .*\nHint: /)]);
});

test("KLIO-PORT-BUSY: any port that is taken is named", async () => {
  const taken = createServer().listen(0, "127.0.0.1");
  await new Promise((resolve) => taken.once("listening", resolve));
  const address = taken.address();
  const port = typeof address === "object" && address !== null ? address.port : 0;
  try {
    const busy = `127.0.0.1:${port}`;
    const wal = await place();
    (wal.document.tier1.wal as Record<string, string>).listen_address = busy;
    const base = await place();
    (base.document.tier1.base as Record<string, string>).listen_address = busy;
    const console = await place();
    console.document.console_listen_address = busy;
    for (const where of [wal, base, console]) {
      const { code, error } = await start(where);
      expect([code, error]).toEqual([69, expect.stringMatching(new RegExp(`^Error: .*${port}.*\\nHint: `))]);
    }
    expect(isUntouched(console)).toBe(true);
  } finally {
    taken.close();
  }
}, 60_000);

test("wrong S3 credentials, a missing bucket: the start ends, and neither tier was written", async () => {
  const denied = await place();
  s3Of(denied).secret_access_key = "wrong";
  const refused = await start(denied, ["--tier2"]);
  expect([refused.code, refused.error]).toEqual([64, expect.stringMatching(/^Error: .*\nHint: check access key/)]);
  expect(refused.error).not.toContain(String(storage.settings.secretAccessKey));

  const missing = await place();
  s3Of(missing).bucket_name = "no-such-bucket";
  const absent = await start(missing, ["--tier2"]);
  expect([absent.code, absent.error]).toEqual([64, expect.stringMatching(/^Error: .*no-such-bucket.*\nHint: /)]);
  for (const where of [denied, missing]) {
    expect(isUntouched(where)).toBe(true);
    expect(await objectsBelow(String(s3Of(where).prefix))).toBe(0);
  }
}, 60_000);

test("KLIO-READ-ONLY: a server that only reads tier 2 serves it, refuses writes, and leaves every object as it was", async () => {
  const where = await place();
  const writer = await serve(where, ["--tier2"]);
  expect(await writer.stop()).toBe(0);
  const objects = async () =>
    unwrap(await storage.objects.list(`${s3Of(where).prefix}/`)).map(({ key, etag }) => `${key} ${etag}`);
  const before = await objects();
  expect(before.some((line) => line.includes("/wals/repository.config"))).toBe(true);
  rmSync(join(where.directory, "data"), { recursive: true });
  const reader = await serve(where, ["--no-tier1", "--tier2"]);
  try {
    const socket = join(where.directory, "admin.sock");
    expect(await withAdmin(socket, (session) => session.listBackups())).toBe("[]");
    await withAdmin(socket, (session) => session.refresh());
    await expect(withAdmin(socket, (session) => session.deleteBackup("alpha", "b", ["tier2"]))).rejects.toMatchObject({
      code: "KLIO-READ-ONLY",
    });
    await expect(withAdmin(socket, (session) => session.reconcile())).rejects.toMatchObject({ code: "KLIO-READ-ONLY" });
  } finally {
    expect(await reader.stop()).toBe(0);
  }
  expect(await objects()).toEqual(before);
}, 120_000);

test("P4: WAL of tier 1 is served while an object storage that answers slowly is being opened", async () => {
  const where = await place();
  await using slow = await faultyS3(storage.s3);
  slow.spoil(firstTimes(8, isList, { kind: "trickle", pieces: 2, pauseMs: 500 }));
  s3Of(where).endpoint = slow.endpoint;
  const server = await serve(where, ["--tier2"]);
  try {
    const log = readFileSync(join(where.directory, "server.log"), "utf8");
    const served = log.split("\n").flatMap((line) => /"WAL of (tier \d) on/.exec(line)?.[1] ?? []);
    expect(served).toEqual(["tier 1", "tier 2"]);
    expect(slow.counts().spoiled).toBeGreaterThan(0);
  } finally {
    await server.stop();
  }
}, 60_000);

test("a serving server: its data directory is refused to a second one, and so is another key", async () => {
  const where = await place();
  const first = await serve(where, ["--tier2"]);
  try {
    const fresh = await place();
    const second: ServerPlace = {
      directory: fresh.directory,
      document: {
        ...fresh.document,
        tier1: { ...where.document.tier1 },
        queue_directory: where.document.queue_directory,
      },
    };
    for (const section of ["base", "wal"] as const)
      second.document.tier1[section] = {
        ...(where.document.tier1[section] as object),
        listen_address: `127.0.0.1:${await freePort()}`,
      };
    const locked = await start(second);
    expect([locked.code, locked.error]).toEqual([69, expect.stringMatching(/^Error: .*data\/wal.*\nHint: /)]);
  } finally {
    expect(await first.stop()).toBe(0);
  }
  // What is stored opens with its own key only; nothing is made anew beside it.
  const other = await createKeyFiles(join(where.directory, "other"), "other");
  const before = readdirSync(join(where.directory, "data/wal"));
  const own = { ...where.document.tier1 };
  where.document.tier1.encryption_key_file = other.encryptionKeyFile;
  where.document.tier1.identity_file = other.identityFile;
  const foreign = await start(where);
  expect([foreign.code, foreign.error]).toEqual([64, expect.stringMatching(/^Error: .*\nHint: /)]);
  expect(readdirSync(join(where.directory, "data/wal"))).toEqual(before);
  // Half a tier is no new tier: a volume may not be mounted.
  where.document.tier1 = own;
  mkdirSync(join(where.directory, "data/wal/alpha"));
  rmSync(join(where.directory, "data/base"), { recursive: true });
  const half = await start(where);
  expect([half.code, half.error]).toEqual([
    69,
    expect.stringMatching(/^Error: tier 1 has WAL but no base backups.*\nHint: /),
  ]);
  expect(existsSync(join(where.directory, "data/base"))).toBe(false);
}, 120_000);
