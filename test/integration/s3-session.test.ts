// Credentials that come with a session token and an end: the instance's role, the container's, and their renewal.
import { randomBytes } from "node:crypto";
import { afterEach, expect, test, vi } from "vitest";
import { openObjectStore } from "../../src/actors/s3/object-store.ts";
import { sourceOf } from "../../src/actors/s3/put-object.ts";
import { openSnapshotRepository } from "../../src/actors/snapshots/open-repository.ts";
import { unwrap } from "../../src/domain/outcome.ts";
import {
  inAnHour,
  instanceMetadata,
  peer,
  sessions,
  surroundings,
  withoutSession,
} from "../support/credential-sources.ts";
import { type Asked, type FaultyS3, faultyS3 } from "../support/faulty-s3.ts";
import { testS3 } from "../support/s3.ts";
import { repositoryOptions } from "../support/snapshot-server.ts";
import { temporaryDirectory } from "../support/temporary-directory.ts";

afterEach(() => {
  vi.unstubAllEnvs();
});

/** Within this time before the end the SDK asks anew, beside the requests that still go with the old ones. */
const RENEWAL_MS = 300_000;
const atOnce = () => new Date(Date.now() + RENEWAL_MS - 1_000).toISOString();

/** The store takes the last `valid` tokens that were issued and refuses all others; collects what it saw. */
function watchTokens(store: FaultyS3, issued: readonly string[], valid: number) {
  const seen: string[] = [];
  store.spoil(({ headers }: Asked) => {
    const token = String(headers["x-amz-security-token"]);
    if (!seen.includes(token)) seen.push(token);
    return issued.slice(-valid).includes(token)
      ? undefined
      : { kind: "answer", status: 400, code: "ExpiredToken", message: "The provided token has expired." };
  });
  return seen;
}

test("an instance's role is asked for by the second version of the metadata service", async () => {
  await using directory = await temporaryDirectory();
  await using s3 = await testS3(directory.path);
  const { accessKeyId, secretAccessKey, ...without } = s3.settings;
  await using store = await faultyS3(s3.s3, withoutSession({ accessKeyId, secretAccessKey }, s3.settings.region));
  const role = sessions({ accessKeyId, secretAccessKey }, inAnHour);
  await using metadata = await instanceMetadata("klio", () => role.issue());
  surroundings(directory.path, { AWS_EC2_METADATA_DISABLED: "", AWS_EC2_METADATA_SERVICE_ENDPOINT: metadata.url });
  const seen = watchTokens(store, role.issued, 1);
  const objects = openObjectStore({ ...without, endpoint: store.endpoint });
  for (const key of ["a", "b"]) expect(await objects.put(key, Buffer.from(key))).toMatchObject({ kind: "ok" });
  objects.close();
  expect(seen).toEqual(["session-1"]);
  expect(metadata.asked[0]).toBe("PUT /latest/api/token");
  expect(role.issued).toEqual(["session-1"]); // kept while it is good
});

test("a session token that nears its end is replaced between requests and inside one upload of many parts", async () => {
  await using directory = await temporaryDirectory();
  await using s3 = await testS3(directory.path);
  const { accessKeyId, secretAccessKey, ...without } = s3.settings;
  await using store = await faultyS3(s3.s3, withoutSession({ accessKeyId, secretAccessKey }, s3.settings.region));
  const role = sessions({ accessKeyId, secretAccessKey }, atOnce);
  await using metadata = await instanceMetadata("klio", () => role.issue());
  surroundings(directory.path, { AWS_EC2_METADATA_DISABLED: "", AWS_EC2_METADATA_SERVICE_ENDPOINT: metadata.url });
  const objects = openObjectStore({ ...without, endpoint: store.endpoint });
  const seen = watchTokens(store, role.issued, 6); // those asked for while requests with earlier ones are on their way
  let puts = 0;
  while (seen.length < 10) expect(await objects.put(`a${++puts}`, Buffer.from("a"))).toMatchObject({ kind: "ok" });
  const inside = watchTokens(store, role.issued, 6);
  const bytes = randomBytes(40 << 20);
  const { whole: _, ...source } = sourceOf(bytes);
  expect(await objects.put("large", source)).toMatchObject({ kind: "ok", value: { bytes: bytes.length } });
  expect(new Set(inside).size).toBeGreaterThanOrEqual(2);
  const stored = unwrap(await s3.objects.list(""));
  expect(stored.map(({ key }) => key)).toHaveLength(puts + 1);
  expect(stored.at(-1)).toMatchObject({ key: "large", bytes: bytes.length });
  objects.close();
});

test("KLIO-S3-CREDENTIALS: a token that the store takes no longer is told as too old", async () => {
  await using directory = await temporaryDirectory();
  await using s3 = await testS3(directory.path);
  await using store = await faultyS3(s3.s3);
  watchTokens(store, [], 1);
  const objects = openObjectStore({ ...s3.settings, sessionToken: "of yesterday", endpoint: store.endpoint });
  expect(await objects.put("a", Buffer.from("a"))).toMatchObject({
    code: "KLIO-S3-CREDENTIALS",
    reason: expect.stringContaining("session token too old"),
  });
  objects.close();
});

test("the snapshot program asks the container for credentials too", async () => {
  await using directory = await temporaryDirectory();
  await using s3 = await testS3(directory.path);
  const { accessKeyId, secretAccessKey, bucketName: bucket, region, endpoint } = s3.settings;
  const keys = { AccessKeyId: accessKeyId, SecretAccessKey: secretAccessKey, Token: "", Expiration: inAnHour() };
  let asked = 0;
  await using agent = await peer((_, response) => {
    asked += 1;
    response.setHeader("content-type", "application/json").end(JSON.stringify(keys));
  });
  const options = repositoryOptions(directory.path, {
    tier: "tier2",
    environment: { AWS_CONTAINER_CREDENTIALS_FULL_URI: `${agent.url}/credentials` },
    storage: { kind: "s3", bucket, region, prefix: "base", ...(endpoint !== undefined && { endpoint }) },
  });
  await unwrap(await openSnapshotRepository(options))[Symbol.asyncDispose]();
  expect(asked).toBeGreaterThan(0);
  expect(unwrap(await s3.objects.list("base/")).map(({ key }) => key)).toContain("base/kopia.repository");
});

test("KLIO-S3-CREDENTIALS: the snapshot program's session token is its keys' own, and one that is refused is told as such", async () => {
  await using directory = await temporaryDirectory();
  await using s3 = await testS3(directory.path);
  const { accessKeyId, secretAccessKey, bucketName: bucket, region } = s3.settings;
  await using store = await faultyS3(s3.s3);
  const open = (keys: { sessionToken?: string }) =>
    openSnapshotRepository(
      repositoryOptions(directory.path, {
        tier: "tier2",
        environment: { AWS_SESSION_TOKEN: "of the server's own surroundings" },
        storage: {
          kind: "s3",
          bucket,
          region,
          endpoint: store.endpoint,
          prefix: "base",
          ...(accessKeyId !== undefined && { accessKeyId }),
          ...(secretAccessKey !== undefined && { secretAccessKey }),
          ...keys,
        },
      }),
    );
  const seen = watchTokens(store, ["undefined"], 1);
  await unwrap(await open({}))[Symbol.asyncDispose]();
  expect(seen).toEqual(["undefined"]);
  expect(await open({ sessionToken: "of yesterday" })).toMatchObject({ kind: "fatal", code: "KLIO-S3-CREDENTIALS" });
  expect(seen).toEqual(["undefined", "of yesterday"]);
});
