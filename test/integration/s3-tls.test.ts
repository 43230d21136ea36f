// A store whose certificate is signed by a private CA: with that CA all of tier 2 works, without it each way in says so.
import { randomBytes } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { buffer } from "node:stream/consumers";
import { afterAll, beforeAll, expect, test } from "vitest";
import { openObjectStore } from "../../src/actors/s3/object-store.ts";
import { sourceOf } from "../../src/actors/s3/put-object.ts";
import type { S3Settings } from "../../src/actors/s3/s3-client.ts";
import { openSnapshotRepository } from "../../src/actors/snapshots/open-repository.ts";
import { type Certificates, createCertificates } from "../../src/demo/certificates.ts";
import { unwrap } from "../../src/domain/outcome.ts";
import { klioWith } from "../support/klio-cli.ts";
import { type TestS3, testS3 } from "../support/s3.ts";
import { sampleMetadata, sampleTree, storeSample } from "../support/sample-backup.ts";
import { isUntouched, s3Of, serve, serverPlaces, start } from "../support/server-place.ts";
import { repositoryOptions, startSnapshotServer } from "../support/snapshot-server.ts";
import { temporaryDirectory } from "../support/temporary-directory.ts";

const stack = new AsyncDisposableStack();
let root: string;
let own: Certificates;
let otherCa: string;
let s3: TestS3;

beforeAll(async () => {
  root = stack.use(await temporaryDirectory()).path;
  own = await createCertificates(join(root, "own"), { clusters: ["alpha"] });
  otherCa = (await createCertificates(join(root, "other"), { clusters: [], authority: "Other CA" })).caCert;
  s3 = stack.use(await testS3(join(root, "s3"), { ...own.server, caCert: own.caCert }));
}, 60_000);
afterAll(() => stack.disposeAsync(), 60_000);

const trusting = (caFile: string | undefined, more: Partial<S3Settings> = {}): S3Settings => {
  const { customCaBundleFile: _, ...settings } = s3.settings;
  return { ...settings, ...(caFile !== undefined && { customCaBundleFile: caFile }), ...more };
};

test("with its CA a store takes objects whole and in parts, lists them and gives them back", async () => {
  const large = randomBytes(20 << 20);
  const { whole: _, ...parts } = sourceOf(large);
  expect(await s3.objects.put("tls/small", Buffer.from("small"))).toMatchObject({ kind: "ok" });
  expect(await s3.objects.put("tls/large", parts)).toMatchObject({ kind: "ok" });
  expect(unwrap(await s3.objects.list("tls/")).map(({ key, bytes }) => [key, bytes])).toEqual([
    ["tls/large", large.length],
    ["tls/small", 5],
  ]);
  const got = unwrap(await s3.objects.get("tls/large"));
  expect((await buffer(got!.body)).equals(large)).toBe(true);
});

test("a backup is copied into a repository behind TLS, and restored from it", async () => {
  const { bucketName: bucket, region, endpoint, accessKeyId, secretAccessKey } = s3.settings;
  const storage = {
    ...{ kind: "s3" as const, bucket, region, prefix: "tls/base" },
    ...{ endpoint: endpoint ?? "", accessKeyId: accessKeyId ?? "", secretAccessKey: secretAccessKey ?? "" },
  };
  const tier2 = { tier: "tier2" as const, storage: { ...storage, customCaBundleFile: own.caCert } };
  await using first = await startSnapshotServer(join(root, "tier1"), { certificates: own });
  await using second = await startSnapshotServer(join(root, "tier2"), { ...tier2, certificates: own });
  await using alpha = await first.open("alpha");
  const data = sampleTree(root);
  const stored = await storeSample(alpha, data, sampleMetadata("b1"));
  unwrap(await first.repository.copyBackupTo(second.repository, stored));
  await using fromTier2 = await second.open("alpha");
  const [copied] = unwrap(await fromTier2.backups());
  unwrap(await fromTier2.restore(copied!.snapshots[0]!, join(root, "restored")));
  expect(readFileSync(join(root, "restored/base/1/1000"))).toEqual(readFileSync(join(data, "base/1/1000")));
  const untrusted = { ...tier2, storage: { ...storage, customCaBundleFile: otherCa } };
  const refused = await openSnapshotRepository(repositoryOptions(join(root, "refused"), untrusted));
  expect(refused).toMatchObject({ kind: "fatal", code: "KLIO-S3-TLS" });
});

test("KLIO-S3-TLS: another CA, none, a name that the certificate has not, and a store without TLS name the option", async () => {
  const plain = await testS3(join(root, "plain"));
  const cases: [S3Settings, string][] = [
    [trusting(otherCa), "tier2.s3.custom_ca_bundle_file"],
    [trusting(undefined), "tier2.s3.custom_ca_bundle_file"],
    [trusting(own.caCert, { endpoint: `https://[::ffff:127.0.0.1]:${s3.s3.port}` }), "tier2.s3.endpoint"],
    [trusting(own.caCert, { endpoint: `https://127.0.0.1:${plain.s3.port}` }), "tier2.s3.endpoint"],
  ];
  for (const [settings, option] of cases) {
    const objects = openObjectStore(settings);
    expect(await objects.find("x")).toMatchObject({
      kind: "fatal",
      code: "KLIO-S3-TLS",
      reason: expect.stringContaining(option),
    });
    objects.close();
  }
  await plain[Symbol.asyncDispose]();
});

test("KLIO-CONFIG: a CA file without a certificate, or with a damaged one, is told at once", async () => {
  const empty = join(root, "empty.pem");
  writeFileSync(empty, "nothing of the kind\n");
  expect(() => openObjectStore(trusting(empty))).toThrow(
    `tier2.s3.custom_ca_bundle_file ${empty} holds no certificate`,
  );
  const damaged = join(root, "damaged.pem");
  writeFileSync(damaged, readFileSync(own.caCert, "utf8").replace(/\n[A-Za-z0-9+/]{10}/, "\nAAAAAAAAAA"));
  expect(() => openObjectStore(trusting(damaged))).toThrow("holds a damaged certificate");
  // A bundle of several is one file.
  const both = join(root, "both.pem");
  writeFileSync(both, `${readFileSync(otherCa, "utf8")}\n${readFileSync(own.caCert, "utf8")}`);
  const objects = openObjectStore(trusting(both));
  expect(await objects.find("x")).toEqual({ kind: "ok", value: undefined });
  objects.close();
});

test("a server with the right CA opens both halves of tier 2; with another or none it does not start and says why", async () => {
  const place = serverPlaces(root, own, s3.settings);
  const right = await place();
  const server = await serve(right, ["--tier2"]);
  expect(await server.stop()).toBe(0);
  const { prefix } = s3Of(right);
  const keys = unwrap(await s3.objects.list(`${prefix}/`)).map(({ key }) => key);
  expect(keys).toContain(`${prefix}/wals/repository.config`);
  expect(keys).toContain(`${prefix}/base/kopia.repository`);
  for (const ca of [otherCa, undefined]) {
    const wrong = await place();
    s3Of(wrong).custom_ca_bundle_file = ca;
    const { code, error } = await start(wrong, ["--tier2"]);
    expect([code, error]).toEqual([
      64,
      expect.stringMatching(/^Error: .*certificate.*\nHint: set tier2\.s3\.custom_ca_bundle_file/),
    ]);
    expect(isUntouched(wrong)).toBe(true);
  }
}, 90_000);

test("klio doctor s3 looks at such a store, and names the option when it cannot", async () => {
  const { bucketName, region, endpoint, accessKeyId, secretAccessKey } = s3.settings;
  const doctor = (ca: string) =>
    klioWith(
      {
        env: {
          HOME: root,
          TIER2_S3_BUCKET_NAME: bucketName,
          TIER2_S3_REGION: region,
          TIER2_S3_ENDPOINT: endpoint,
          TIER2_S3_ACCESS_KEY_ID: accessKeyId,
          TIER2_S3_SECRET_ACCESS_KEY: secretAccessKey,
          TIER2_S3_CUSTOM_CA_BUNDLE_FILE: ca,
        },
      },
      ...["doctor", "s3", "--json"],
    );
  const fit = await doctor(own.caCert);
  expect([fit.status, fit.err]).toEqual([0, ""]);
  expect(JSON.parse(fit.out)).toMatchObject({ verdict: "fit", endpoint });
  for (const ca of [otherCa, ""]) {
    const { status, err, out } = await doctor(ca);
    expect([status, out]).toEqual([64, ""]);
    expect(err).toMatch(/^Error: .*tier2\.s3\.custom_ca_bundle_file.*\nHint: set tier2\.s3\.custom_ca_bundle_file/);
  }
});
