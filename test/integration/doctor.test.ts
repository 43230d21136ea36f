import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { Writable } from "node:stream";
import { expect, test } from "vitest";
import { stringify } from "yaml";
import { runProgram } from "../../src/cli/program.ts";
import type { DoctorReport } from "../../src/roles/doctor.ts";
import { type Answer, type Asked, type Fault, faultyS3, isList, isPut } from "../support/faulty-s3.ts";
import { type TestS3, testS3 } from "../support/s3.ts";
import { temporaryDirectory } from "../support/temporary-directory.ts";

function configOf(directory: string, s3: TestS3, more: object = {}): string {
  const { bucketName, region, endpoint, accessKeyId, secretAccessKey } = s3.settings;
  const file = join(directory, "klio.yaml");
  const document = {
    tls: { cert: "/c", key: "/k", client_ca_cert: "/ca" },
    tier2: {
      encryption_key_file: "/k",
      identity_file: "/i",
      base_listen_address: ":51516",
      wal_listen_address: ":52001",
      cache: "/cache",
      s3: {
        enabled: true,
        bucket_name: bucketName,
        region,
        endpoint,
        access_key_id: accessKeyId,
        secret_access_key: secretAccessKey,
        prefix: "pg",
        ...more,
      },
    },
  };
  writeFileSync(file, stringify(document));
  return file;
}

/** Runs `klio doctor s3` as a user would, in this process. */
async function doctor(config: string, ...argv: string[]) {
  const texts = { out: "", err: "" };
  const sink = (name: keyof typeof texts) =>
    new Writable({
      write(chunk, _, done) {
        texts[name] += chunk;
        done();
      },
    });
  let status = 0;
  await runProgram({
    argv: ["--config", config, "doctor", "s3", ...argv],
    env: {},
    stdout: sink("out"),
    stderr: sink("err"),
    signal: new AbortController().signal,
    exit: (code) => {
      status = code;
    },
  });
  return { ...texts, status };
}
const reportOf = ({ out }: { out: string }): DoctorReport => JSON.parse(out);
const statusOf = (report: DoctorReport, name: string) => report.checks.find((check) => check.name === name);

test("a store that does all of it is fit as it is configured, and is left as it was", async () => {
  await using directory = await temporaryDirectory();
  await using s3 = await testS3(directory.path);
  await s3.objects.put("pg/wals/kept", Buffer.from("kept"));
  const before = await s3.objects.list("");
  const done = await doctor(configOf(directory.path, s3), "--json");
  expect(done).toMatchObject({ status: 0, err: "" });
  const report = reportOf(done);
  expect(report).toMatchObject({ verdict: "fit", bucket: "klio-test", prefix: "pg", leftOver: [] });
  expect(report.checks.filter(({ status }) => status !== "ok")).toEqual([]);
  expect(report.checks.map(({ name }) => name)).toEqual([
    "clock",
    "crc32",
    "sha256",
    "writeOnce",
    "replaceByTag",
    "tags",
    "list",
    "read",
    "range",
    "parts",
    "abortParts",
    "remove",
  ]);
  expect(await s3.objects.list("")).toEqual(before);
  const text = await doctor(configOf(directory.path, s3));
  expect(text.out).toMatch(/^Bucket klio-test at http:\/\/127.0.0.1:\d+, prefix "pg", \d+ ms for a request\n/);
  expect(text.out).toMatch(/\nrefuses to replace an object when asked \(If-None-Match\) +ok +refused as asked\n/);
  expect(text.out).toMatch(/\ntier2.s3.checksum +crc32 +crc32 +the store verifies CRC-32, which costs the least\n/);
});

test("KLIO-CONFIG: settings that do not suit the store are named with what they must be", async () => {
  await using directory = await temporaryDirectory();
  await using s3 = await testS3(directory.path);
  await using faulty = await faultyS3(s3.s3);
  const at = { endpoint: faulty.endpoint };
  const ignored: Fault = { kind: "answer", status: 200, headers: { etag: '"x"' } };
  faulty.spoil((asked) => (asked.headers["if-none-match"] === undefined ? undefined : ignored));
  const careless = await doctor(configOf(directory.path, s3, at));
  expect(careless.status).toBe(64);
  expect(careless.err).toContain("Error: tier2.s3.conditional_writes = true: must be false for this store");
  expect(careless.out).toContain("Klio looks before it writes, and no second server may use this prefix");
  expect((await doctor(configOf(directory.path, s3, { ...at, conditional_writes: false }))).status).toBe(0);
  // A store that knows no CRC-32 at all.
  faulty.spoil((asked) =>
    asked.headers["x-amz-checksum-crc32"] === undefined || asked.headers["if-none-match"] || asked.headers["if-match"]
      ? undefined
      : { kind: "answer", status: 501, code: "NotImplemented" },
  );
  const old = await doctor(configOf(directory.path, s3, at), "--json");
  expect(reportOf(old).settings[0]).toMatchObject({ key: "tier2.s3.checksum", value: "sha256", configured: "crc32" });
});

test("KLIO-S3-UNFIT: wrong ETags, a stale list, a clock that is off, ignored ranges and denied deletes, each alone", async () => {
  await using directory = await temporaryDirectory();
  await using s3 = await testS3(directory.path);
  await using faulty = await faultyS3(s3.s3);
  const config = configOf(directory.path, s3, { endpoint: faulty.endpoint });
  const header = (name: string, value: string) => ({
    kind: "edit" as const,
    edit: (answer: Answer) => ({ ...answer, headers: { ...answer.headers, [name]: value } }),
  });
  const stale = new Map<string, Answer>();
  const keepFirst = (prefix: string): Fault => ({
    kind: "edit",
    edit: (answer) => {
      if (!stale.has(prefix)) stale.set(prefix, answer);
      return stale.get(prefix) ?? answer;
    },
  });
  const denied: Fault = { kind: "answer", status: 403, code: "AccessDenied" };
  const cases: [string, (asked: Asked) => Fault | undefined, string, RegExp][] = [
    [
      "clock",
      () => header("date", new Date(Date.now() + 600_000).toUTCString()),
      "failed",
      /^(599|600|601) s ahead of ours$/,
    ],
    ["tags", (asked) => (isPut(asked) ? header("etag", '"0123"') : undefined), "failed", /^it told 0123, /],
    [
      "list",
      (asked) => (isList(asked) && asked.query.get("prefix")?.endsWith("/") ? keepFirst("all") : undefined),
      "failed",
      /^what was just written is not in the list$/,
    ],
    [
      "range",
      (asked) =>
        asked.headers.range === undefined
          ? undefined
          : { kind: "edit", edit: (answer) => ({ ...answer, body: answer.body.subarray(1) }) },
      "failed",
      /^999 bytes in place of 1000$/,
    ],
    ["remove", (asked) => (asked.query.has("delete") ? denied : undefined), "failed", /AccessDenied|spoiled/],
  ];
  for (const [name, rule, status, detail] of cases) {
    faulty.spoil(rule);
    const done = await doctor(config, "--json");
    expect([name, done.status]).toEqual([name, 69]);
    expect(done.err, name).toContain("tier 2 cannot rely on this store");
    const check = statusOf(reportOf(done), name);
    expect(check?.status, name).toBe(status);
    expect(check?.detail, name).toMatch(detail);
    if (name === "remove") expect(reportOf(done).leftOver.length).toBeGreaterThan(3);
    faulty.spoil(undefined);
  }
});

test("KLIO-S3-DOWN, KLIO-S3-CREDENTIALS, KLIO-S3-BUCKET: a store that cannot be asked is told as such", async () => {
  await using directory = await temporaryDirectory();
  await using s3 = await testS3(directory.path);
  const refused = async (more: object) => (await doctor(configOf(directory.path, s3, more))).err;
  expect(await refused({ secret_access_key: "wrong" })).toMatch(/^Error: cannot list klio-test\/pg.*wrong secret key/);
  expect(await refused({ bucket_name: "no-such-bucket" })).toMatch(/^Error: .*the bucket does not exist/);
  expect((await doctor(configOf(directory.path, s3, { endpoint: "http://127.0.0.1:1" }))).status).toBe(69);
});

test("only what concerns the store is needed: faults of a server's other parts are not in the way, its own are all told", async () => {
  await using directory = await temporaryDirectory();
  await using s3 = await testS3(directory.path);
  const { bucketName, region, endpoint, accessKeyId, secretAccessKey } = s3.settings;
  const store = { bucket_name: bucketName, endpoint, access_key_id: accessKeyId, secret_access_key: secretAccessKey };
  const file = join(directory.path, "klio.yaml");
  const write = (tier2: object) =>
    writeFileSync(
      file,
      stringify({ tls: { cert: 7 }, queue: { url: "ftp://nowhere" }, console_listen_address: "nowhere", ...tier2 }),
    );
  write({ tier2: { cache: "not absolute", s3: { ...store, region } } });
  const done = await doctor(file, "--json");
  expect([done.status, done.err]).toEqual([0, ""]);
  write({ tier2: { s3: { ...store, secret_access_key: "", endpoint: "nowhere", surprise: 1 } } });
  const { status, err } = await doctor(file);
  expect(status).toBe(64);
  for (const fault of ["tier2.s3.region: is missing", 'endpoint = "nowhere"', "give both or neither"])
    expect(err).toContain(fault);
  for (const other of ["tls", "queue", "console", "cache"]) expect(err).not.toContain(other);
});
