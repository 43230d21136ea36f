import { existsSync, mkdirSync, readFileSync, readlinkSync, statSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { connect, createServer } from "node:tls";
import { expect, test } from "vitest";
import { findTool } from "../../../src/config/tools.ts";
import { createKeyFiles } from "../../../src/demo/age-keys.ts";
import { createCertificates } from "../../../src/demo/certificates.ts";
import { type PostgresVersion, startPostgres } from "../../../src/demo/local-postgres.ts";
import { startS3 } from "../../../src/demo/local-s3.ts";
import { linkTree } from "../../../src/demo/run-as.ts";
import { temporaryDirectory } from "../../support/temporary-directory.ts";

test.each<PostgresVersion>([15, 16, 17, 18])(
  "PostgreSQL %i starts, answers, survives a kill and stops",
  async (version) => {
    await using dir = await temporaryDirectory();
    await using postgres = await startPostgres({ directory: dir.path, version, walSegmentMiB: 1 });
    expect((await postgres.query("show server_version"))[0]).toMatchObject({
      server_version: expect.stringMatching(`^${version}`),
    });
    expect(await postgres.query("show wal_segment_size")).toEqual([{ wal_segment_size: "1MB" }]);
    expect(await postgres.query("show data_checksums")).toEqual([{ data_checksums: "on" }]);
    await postgres.query("create table t as select 42 as n");
    await postgres.kill();
    expect(postgres.pid).toBeUndefined();
    await postgres.start();
    expect(await postgres.query("select n from t")).toEqual([{ n: 42 }]);
    await postgres.stop();
    await expect(postgres.query("select 1")).rejects.toThrow();
  },
);

test("a PostgreSQL that cannot start tells what its log says", async () => {
  await using dir = await temporaryDirectory();
  await expect(
    startPostgres({ directory: dir.path, version: 18, settings: { max_connections: "none" } }),
  ).rejects.toThrow(/max_connections/);
});

test("a PostgreSQL whose port another one has is not taken for the other", async () => {
  await using dir = await temporaryDirectory();
  await using first = await startPostgres({ directory: join(dir.path, "a"), version: 18 });
  await expect(startPostgres({ directory: join(dir.path, "b"), version: 18, port: first.port })).rejects.toThrow(
    /could not bind/,
  );
});

test("the S3 server keeps objects over a restart", async () => {
  await using dir = await temporaryDirectory();
  await using s3 = await startS3({
    directory: dir.path,
    bucket: "klio-test",
    executable: findTool("versitygw", process.env),
  });
  const pid = s3.pid;
  await s3.stop();
  expect(s3.pid).toBeUndefined();
  await s3.start();
  expect(s3.pid).not.toBe(pid);
  expect(existsSync(s3.bucketDirectory)).toBe(true);
});

test("certificates: mutual TLS works, the CN names user and cluster, keys are private", async () => {
  await using dir = await temporaryDirectory();
  const certificates = await createCertificates(dir.path, { clusters: ["alpha"] });
  const pem = (file: string) => readFileSync(file);
  const client = certificates.client("alpha");
  expect(statSync(client.key).mode & 0o777).toBe(0o600);
  const { promise: subject, resolve } = Promise.withResolvers<string>();
  const server = createServer(
    {
      cert: pem(certificates.server.cert),
      key: pem(certificates.server.key),
      ca: pem(certificates.caCert),
      requestCert: true,
      rejectUnauthorized: true,
    },
    (socket) => {
      resolve(String(socket.getPeerCertificate().subject.CN));
      socket.end();
    },
  );
  await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
  const address = server.address() as { port: number };
  const socket = connect({
    host: "127.0.0.1",
    port: address.port,
    ca: pem(certificates.caCert),
    cert: pem(client.cert),
    key: pem(client.key),
  });
  expect(await subject).toBe("klio@alpha");
  socket.destroy();
  server.close();
});

test("key files: an age file that only its identity opens", async () => {
  await using dir = await temporaryDirectory();
  const files = await createKeyFiles(join(dir.path, "keys"), "tier1");
  expect(readFileSync(files.encryptionKeyFile).subarray(0, 22).toString()).toContain("age-encryption.org");
  expect(readFileSync(files.identityFile, "utf8")).toMatch(/^AGE-SECRET-KEY-1/);
});

test("a second name for a tree is made once and found again, links included", async () => {
  await using dir = await temporaryDirectory();
  const [from, to] = [join(dir.path, "from"), join(dir.path, "to")];
  mkdirSync(join(from, "lib"), { recursive: true });
  writeFileSync(join(from, "lib", "libx.so.1"), "x");
  symlinkSync("libx.so.1", join(from, "lib", "libx.so"));
  for (let i = 0; i < 2; i++) linkTree(from, to);
  expect(readFileSync(join(to, "lib", "libx.so"), "utf8")).toBe("x");
  expect(readlinkSync(join(to, "lib", "libx.so"))).toBe("libx.so.1");
});
