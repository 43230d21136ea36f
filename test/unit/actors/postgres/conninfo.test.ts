import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { clientConfig, parseConninfo, replicationMode } from "../../../../src/actors/postgres/conninfo.ts";
import { KlioError } from "../../../../src/errors.ts";
import { temporaryDirectory } from "../../../support/temporary-directory.ts";

const config = (text: string) => clientConfig(parseConninfo(text), { applicationName: "klio" });

test("URI and key/value say the same", () => {
  const uri = config("postgresql://klio%40x:p%3Aw@db.example:5433/app?application_name=other&connect_timeout=3");
  expect(uri).toEqual({
    host: "db.example",
    port: 5433,
    user: "klio@x",
    password: "p:w",
    database: "app",
    application_name: "other",
    ssl: false,
    keepAlive: true,
    connectionTimeoutMillis: 3_000,
  });
  expect(
    config(
      "host=db.example port = 5433 user='klio@x' password='p:w' dbname=app application_name=other connect_timeout=3",
    ),
  ).toEqual(uri);
});

test.each([
  ["postgresql:///app?host=/run/postgresql", { host: "/run/postgresql", database: "app", port: 5432 }],
  ["postgres://%2Frun%2Fpg/app", { host: "/run/pg" }],
  ["postgresql://u@[::1]:6432/x", { host: "::1", port: 6432, user: "u" }],
  ["host=/controller/run user=postgres replication=yes", { host: "/controller/run", user: "postgres" }],
  ["password='it''s' host=h", KlioError],
  ["password='it\\'s \\\\ here' host=h", { password: "it's \\ here", host: "h" }],
  ["", { application_name: "klio" }],
])("%s", (text, expected) => {
  if (expected === KlioError) expect(() => config(text)).toThrow(KlioError);
  else expect(config(text)).toMatchObject(expected);
});

test("database mode is kept, every other yes is physical", () => {
  expect(replicationMode(parseConninfo("host=h replication=database"))).toBe("database");
  for (const value of ["yes", "true", "on", "1"])
    expect(replicationMode(parseConninfo(`postgresql://h/x?replication=${value}`))).toBe("true");
});

test.each([
  "postgresql://user:s3cret@a,b/x",
  "postgresql://user:s3cret@h:99999/x",
  "user=u password=s3cret nonsense",
  "postgresql://user:s3cret%@h/x",
])("KLIO-CONFIG for %s, and the password is not told", (text) => {
  expect(() => config(text)).toThrow(expect.objectContaining({ code: "KLIO-CONFIG" }));
  expect(() => config(text)).not.toThrow(/s3cret/);
});

test("TLS follows libpq: require checks only with a root, verify-ca not the name, verify-full both", async () => {
  await using directory = await temporaryDirectory();
  const root = join(directory.path, "root.crt");
  writeFileSync(root, "pem");
  const ssl = (query: string) => config(`postgresql://h/x?${query}`).ssl;
  expect(ssl("sslmode=prefer")).toBe(false);
  expect(ssl("sslmode=require")).toEqual({ rejectUnauthorized: false });
  expect(ssl(`sslmode=require&sslrootcert=${root}`)).toMatchObject({ rejectUnauthorized: true });
  expect(ssl(`sslmode=verify-ca&sslrootcert=${root}`)).toHaveProperty("checkServerIdentity");
  expect(ssl(`sslmode=verify-full&sslrootcert=${root}`)).not.toHaveProperty("checkServerIdentity");
  expect(() => ssl("sslmode=verify-full&sslrootcert=/nowhere/root.crt")).toThrow(
    expect.objectContaining({ code: "KLIO-CERTIFICATE" }),
  );
});
