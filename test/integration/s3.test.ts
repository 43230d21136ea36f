import { createHash, randomBytes } from "node:crypto";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { Readable } from "node:stream";
import { expect, test } from "vitest";
import { openObjectStore } from "../../src/actors/s3/object-store.ts";
import { createTier2Key, verifyTier2Key } from "../../src/actors/s3/tier2-key.ts";
import { openTier2WalReader } from "../../src/actors/s3/tier2-wal-reader.ts";
import { walKey } from "../../src/domain/object-key.ts";
import { encodeWalFile } from "../../src/wire/wal-file-encode.ts";
import { eventually } from "../support/eventually.ts";
import { testS3 } from "../support/s3.ts";
import { temporaryDirectory } from "../support/temporary-directory.ts";

const absent = { condition: { kind: "absent" } } as const;

/** A source that gives `body` each time, and announces these many bytes. */
const source = (bytes: number, body: () => Readable) => ({
  bytes,
  crc32: 0,
  body,
  digest: async () => Buffer.alloc(0), // asked only where a store answers no checksum
});

const hashOf = (bytes: Uint8Array) => createHash("sha256").update(bytes).digest();

async function bytesOf(body: AsyncIterable<Uint8Array>): Promise<Buffer> {
  const parts: Uint8Array[] = [];
  for await (const part of body) parts.push(part);
  return Buffer.concat(parts);
}

test("an object is put once, found, read back, listed and removed", async () => {
  await using directory = await temporaryDirectory();
  await using s3 = await testS3(directory.path);
  const { objects } = s3;
  const body = randomBytes(100_000);
  const put = await objects.put("a/b/x", body, absent);
  expect(put).toMatchObject({ kind: "ok", value: { kind: "stored", bytes: 100_000 } });
  expect(await objects.put("a/b/x", randomBytes(3), absent)).toEqual({ kind: "ok", value: { kind: "refused" } });
  const got = await objects.get("a/b/x");
  expect(got.kind === "ok" && got.value && (await bytesOf(got.value.body))).toEqual(body);
  expect(await objects.find("a/b/x")).toMatchObject({ value: { key: "a/b/x", bytes: 100_000 } });
  expect(await objects.find("a/b")).toEqual({ kind: "ok", value: undefined });
  expect(await objects.get("a/none")).toEqual({ kind: "ok", value: undefined });
  expect(await objects.folders("a/")).toEqual({ kind: "ok", value: ["b"] });
  expect(await objects.list("a/")).toMatchObject({ value: [{ key: "a/b/x" }] });
  expect(await objects.remove(["a/b/x", "a/none"])).toEqual({ kind: "ok", value: undefined });
  expect(await objects.list("a/")).toEqual({ kind: "ok", value: [] });
});

test("with SHA-256 in place of CRC-32 the bytes arrive, too, in one request and in parts", async () => {
  await using directory = await temporaryDirectory();
  await using s3 = await testS3(directory.path);
  const store = openObjectStore({ ...s3.settings, checksum: "sha256" });
  for (const body of [randomBytes(100_000), randomBytes(18 << 20)]) {
    const streamed = { ...source(body.length, () => Readable.from([body])), digest: async () => hashOf(body) };
    const key = `x-${body.length}`;
    expect(await store.put(key, streamed, absent)).toMatchObject({ value: { kind: "stored" } });
    const got = await store.get(key);
    expect(got.kind === "ok" && got.value && hashOf(await bytesOf(got.value.body))).toEqual(hashOf(body));
  }
  store.close();
});

test("a write on condition of an ETag replaces that object and no other", async () => {
  await using directory = await temporaryDirectory();
  await using s3 = await testS3(directory.path);
  const { objects } = s3;
  const first = await objects.put("x", Buffer.from("one"), absent);
  const etag = first.kind === "ok" && first.value.kind === "stored" ? first.value.etag : "";
  expect(await objects.put("x", Buffer.from("two"), { condition: { kind: "etag", etag } })).toMatchObject({
    value: { kind: "stored" },
  });
  expect(await objects.put("x", Buffer.from("three"), { condition: { kind: "etag", etag } })).toEqual({
    kind: "ok",
    value: { kind: "refused" },
  });
});

test("a large object goes in parts, its composite checksum is compared; repeated it is refused", async () => {
  await using directory = await temporaryDirectory();
  await using s3 = await testS3(directory.path);
  const { objects } = s3;
  const body = randomBytes(21 << 20);
  const stream = () => Readable.from([body.subarray(0, 5_000_000), body.subarray(5_000_000)], { objectMode: false });
  expect(await objects.put("big", source(body.length, stream), absent)).toMatchObject({
    value: { kind: "stored", bytes: body.length },
  });
  const got = await objects.get("big");
  const hash = (data: Buffer) => createHash("sha256").update(data).digest("hex");
  expect(got.kind === "ok" && got.value && hash(await bytesOf(got.value.body))).toBe(hash(body));
  expect(await objects.put("big", source(body.length, stream), absent)).toEqual({
    kind: "ok",
    value: { kind: "refused" },
  });
});

test("KLIO-S3-INTEGRITY: a source that breaks off, ends early, or is stopped leaves no object and no parts", async () => {
  await using directory = await temporaryDirectory();
  await using s3 = await testS3(directory.path);
  const { objects } = s3;
  const piece = randomBytes(9 << 20);
  const short = Readable.from([piece, piece], { objectMode: false });
  expect(
    await objects.put(
      "short",
      source(20 << 20, () => short),
    ),
  ).toMatchObject({ code: "KLIO-S3-INTEGRITY" });
  const broken = Readable.from(
    (async function* () {
      yield piece;
      yield piece;
      throw Object.assign(new Error("read error"), { code: "EIO" });
    })(),
    { objectMode: false },
  );
  expect(
    await objects.put(
      "broken",
      source(30 << 20, () => broken),
    ),
  ).toMatchObject({ kind: "retryable" });
  const abort = new AbortController();
  const stopped = Readable.from(
    (async function* () {
      yield piece;
      abort.abort();
      yield piece;
    })(),
    { objectMode: false },
  );
  expect(
    await objects.put(
      "stopped",
      source(18 << 20, () => stopped),
      { signal: abort.signal },
    ),
  ).toMatchObject({
    code: "KLIO-CANCELLED",
  });
  expect(await objects.list("")).toEqual({ kind: "ok", value: [] });
  await eventually(async () => {
    const left = await objects.abortUploads("", Date.now() + 60_000);
    return left.kind === "ok" && left.value === 0;
  });
});

test("KLIO-S3-CREDENTIALS, KLIO-S3-BUCKET, KLIO-S3-DOWN: each failure is told apart, and nothing is thrown", async () => {
  await using directory = await temporaryDirectory();
  await using s3 = await testS3(directory.path);
  const store = (change: object) => openObjectStore({ ...s3.settings, ...change });
  const wrongSecret = await store({ secretAccessKey: "wrong" }).put("x", Buffer.from("x"));
  expect(wrongSecret).toMatchObject({ kind: "fatal", code: "KLIO-S3-CREDENTIALS" });
  expect(await store({ accessKeyId: "nobody" }).list("")).toMatchObject({ code: "KLIO-S3-CREDENTIALS" });
  expect(await store({ bucketName: "no-such-bucket" }).put("x", Buffer.from("x"))).toMatchObject({
    kind: "fatal",
    code: "KLIO-S3-BUCKET",
  });
  await s3.s3.stop();
  expect(await s3.objects.find("x")).toMatchObject({ kind: "retryable", code: "KLIO-S3-DOWN" });
  await s3.s3.start();
  expect(await s3.objects.find("x")).toEqual({ kind: "ok", value: undefined });
  expect(() => store({ customCaBundleFile: "/nowhere/ca.pem" })).toThrow(
    expect.objectContaining({ code: "KLIO-CONFIG" }),
  );
});

/** Answers every request with this status and body: a store that misbehaves in one way. */
async function answering(status: number, headers: Record<string, string>, body: string, more: object = {}) {
  const requests: string[] = [];
  const server = createServer((request, response) => {
    requests.push(`${request.method} ${request.headers["if-none-match"] ?? ""}`);
    request.resume().once("end", () => response.writeHead(status, headers).end(body));
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  const objects = openObjectStore({
    bucketName: "bucket",
    region: "us-east-1",
    endpoint: `http://127.0.0.1:${port}`,
    accessKeyId: "a",
    secretAccessKey: "b",
    ...more,
  });
  return {
    objects,
    requests,
    async [Symbol.asyncDispose]() {
      objects.close();
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

const errorBody = (code: string) => `<?xml version="1.0"?><Error><Code>${code}</Code><Message>m</Message></Error>`;

test("KLIO-S3-BUCKET: a bucket of another region names that region, however the store tells it", async () => {
  const header = { "x-amz-bucket-region": "eu-west-1" };
  const told = errorBody("AuthorizationHeaderMalformed").replace("</Error>", "<Region>eu-west-1</Region></Error>");
  for (const [status, headers, body] of [
    [301, header, errorBody("PermanentRedirect")],
    [301, header, ""],
    [400, {}, told],
    [400, header, errorBody("IllegalLocationConstraintException")],
  ] as const) {
    await using store = await answering(status, headers, body);
    for (const answer of [await store.objects.put("x", Buffer.from("x")), await store.objects.list("")])
      expect(answer).toMatchObject({
        code: "KLIO-S3-BUCKET",
        reason: expect.stringMatching(/\(bucket of another region: tier2\.s3\.region must be eu-west-1\)$/),
      });
  }
});

test("an object that cannot be removed is told by the store's reason for it", async () => {
  for (const [reason, code] of [
    ["SlowDown", "KLIO-S3-DOWN"],
    ["InternalError", "KLIO-S3-DOWN"],
    ["AccessDenied", "KLIO-S3-CREDENTIALS"],
    ["InvalidArgument", "KLIO-S3-REFUSED"],
  ] as const) {
    const body = `<DeleteResult><Error><Key>b</Key><Code>${reason}</Code><Message>m</Message></Error></DeleteResult>`;
    await using store = await answering(200, {}, body);
    expect(await store.objects.remove(["a", "b"])).toMatchObject({
      code,
      reason: expect.stringMatching(/^cannot remove 1 of 2 objects: b: m/),
    });
  }
});

test("throttling is retryable and counts as one request; a refusal we do not know is fatal", async () => {
  {
    await using store = await answering(503, {}, errorBody("SlowDown"));
    expect(await store.objects.put("x", Buffer.from("x"))).toMatchObject({ kind: "retryable", code: "KLIO-S3-DOWN" });
    expect(store.requests.length).toBe(1);
  }
  await using store = await answering(400, {}, errorBody("EntityTooLarge"));
  expect(await store.objects.put("x", Buffer.from("x"))).toMatchObject({ kind: "fatal", code: "KLIO-S3-REFUSED" });
});

test("a store that answers another checksum, or another MD5, is not believed", async () => {
  const wrong = createHash("sha256").update("other").digest("base64");
  for (const [checksum, header, told] of [
    ["crc32", "x-amz-checksum-crc32", "AAAAAA=="],
    ["sha256", "x-amz-checksum-sha256", wrong],
  ] as const) {
    await using store = await answering(200, { etag: '"x"', [header]: told }, "", { checksum });
    expect(await store.objects.put("x", Buffer.from("x"))).toMatchObject({ code: "KLIO-S3-INTEGRITY" });
  }
  {
    await using store = await answering(200, { etag: `"${createHash("md5").update("other").digest("hex")}"` }, "");
    expect(await store.objects.put("x", Buffer.from("x"))).toMatchObject({ code: "KLIO-S3-INTEGRITY" });
  }
  await using store = await answering(200, { etag: `"${createHash("md5").update("x").digest("hex")}"` }, "");
  expect(await store.objects.put("x", Buffer.from("x"))).toMatchObject({ value: { kind: "stored" } });
});

test("KLIO-S3-DOWN: what something else answers in the store's place is not taken for its word", async () => {
  const page = "<html><body><h1>Sign in</h1></body></html>";
  const down = { kind: "retryable", code: "KLIO-S3-DOWN" };
  for (const body of ["", page]) {
    await using absentStore = await answering(404, { "content-type": "text/html" }, body);
    // Taken for a missing WAL file it would end a recovery too early.
    expect(await absentStore.objects.get("x")).toMatchObject(down);
    expect(await absentStore.objects.list("")).toMatchObject(down);
    await using other = await answering(200, { "content-type": "text/html" }, body);
    expect(await other.objects.put("x", Buffer.from("x"))).toMatchObject(down);
    expect(await other.objects.list("")).toMatchObject(down);
    expect(await other.objects.find("x")).toMatchObject(down);
    expect(await other.objects.folders("")).toMatchObject(down);
  }
});

test("KLIO-S3-REFUSED: a list that goes on, the store does not say where, is not taken for the whole", async () => {
  const list = `<ListBucketResult><IsTruncated>true</IsTruncated><NextMarker>a</NextMarker><Contents><Key>a</Key><Size>1</Size></Contents></ListBucketResult>`;
  await using store = await answering(200, { "content-type": "application/xml" }, list);
  expect(await store.objects.list("")).toMatchObject({ kind: "fatal", code: "KLIO-S3-REFUSED" });
  expect(await store.objects.find("a")).toMatchObject({ kind: "ok", value: { key: "a" } });
});

test("a list that does not say whether it goes on, but where, is read to its end", async () => {
  const page = (n: number, more: string) =>
    `<ListBucketResult><Name>b</Name><Contents><Key>${n}</Key><Size>1</Size></Contents>${more}</ListBucketResult>`;
  const server = createServer((request, response) => {
    const isSecond = request.url?.includes("continuation-token=t") === true;
    response.end(isSecond ? page(2, "") : page(1, "<NextContinuationToken>t</NextContinuationToken>"));
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const endpoint = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const keys = { accessKeyId: "a", secretAccessKey: "b" };
  const objects = openObjectStore({ bucketName: "bucket", region: "us-east-1", endpoint, ...keys });
  expect(await objects.list("")).toMatchObject({ kind: "ok", value: [{ key: "1" }, { key: "2" }] });
  objects.close();
  server.closeAllConnections();
  server.close();
});

test("on a store without conditional writes we look first", async () => {
  await using store = await answering(501, {}, errorBody("NotImplemented"));
  await store.objects.put("x", Buffer.from("x"), absent);
  expect(store.requests).toEqual(["PUT *", "GET "]);
});

test("one refused write does not give up the conditions of all others; what the store does not support does", async () => {
  for (const [status, code, later] of [
    [400, "InvalidRequest", "PUT *"],
    [501, "NotImplemented", "GET "],
  ] as const) {
    const requests: string[] = [];
    const list = "<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>";
    const server = createServer((request, response) => {
      requests.push(`${request.method} ${request.headers["if-none-match"] ?? ""}`);
      request.resume().once("end", () => {
        if (requests.length === 1) response.writeHead(status).end(errorBody(code));
        else response.setHeader("etag", '"x"').end(request.method === "GET" ? list : "");
      });
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    const endpoint = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    const keys = { accessKeyId: "a", secretAccessKey: "b" };
    const objects = openObjectStore({ bucketName: "bucket", region: "us-east-1", endpoint, ...keys });
    for (const key of ["x", "y"])
      expect(await objects.put(key, Buffer.from(key), absent)).toMatchObject({ kind: "ok" });
    expect(requests.slice(0, 4)).toEqual(["PUT *", "GET ", "PUT ", later]);
    objects.close();
    server.closeAllConnections();
    server.close();
  }
});

test("the master key of tier 2 lies in the bucket; a wrong pass-phrase touches nothing", async () => {
  await using directory = await temporaryDirectory();
  await using s3 = await testS3(directory.path);
  const { objects } = s3;
  const place = { objects, prefix: "pg/main", passPhrase: "correct horse" };
  expect(await verifyTier2Key(place)).toBeUndefined();
  const key = await createTier2Key(place);
  expect((await verifyTier2Key(place))?.id).toBe(key.id);
  expect((await createTier2Key(place)).id).toBe(key.id);
  await expect(verifyTier2Key({ ...place, passPhrase: "wrong" })).rejects.toMatchObject({ code: "KLIO-KEY-MISMATCH" });
  await objects.put("other/wals/a/000000010000000000000001", Buffer.from("x"));
  await expect(verifyTier2Key({ ...place, prefix: "other" })).rejects.toMatchObject({ code: "KLIO-REPOSITORY" });
});

test("the reader gives what was stored; damage is told, foreign objects are passed over", async () => {
  await using directory = await temporaryDirectory();
  await using s3 = await testS3(directory.path);
  const { objects } = s3;
  const prefix = "p";
  const masterKey = await createTier2Key({ objects, prefix, passPhrase: "secret" });
  const reader = openTier2WalReader({ objects, prefix, masterKey });
  const name = "000000010000000000000001";
  const raw = randomBytes(4 << 20);
  const file = await bytesOf(
    encodeWalFile({ cluster: "a", name, segmentBytes: raw.length }, masterKey, randomBytes, [raw], true),
  );
  await objects.put(walKey(prefix, "a", name), file, absent);
  await objects.put("p/wals/a/notes.txt", Buffer.from("hello"));
  expect(await reader.clusters()).toEqual(["a"]);
  expect(await reader.list("a")).toMatchObject([{ name, storedBytes: file.length }]);
  expect((await reader.listAll("a")).foreign).toEqual(["p/wals/a/notes.txt"]);
  const opened = await reader.open("a", name);
  expect(opened).toMatchObject({ segmentBytes: raw.length, complete: true });
  expect(await bytesOf(opened!.blocks)).toEqual(raw);
  // More than there are connections: one that is not read gives its own back.
  for (let n = 0; n < 70; n++) {
    await using unread = await reader.open("a", name);
    expect(unread?.complete).toBe(true);
  }
  expect(await reader.open("a", "000000010000000000000002")).toBeUndefined();
  await objects.put(walKey(prefix, "a", name), file.subarray(0, file.length - 50));
  const cut = await reader.open("a", name);
  await expect(bytesOf(cut!.blocks)).rejects.toMatchObject({ code: "KLIO-WAL-DAMAGED" });
});
