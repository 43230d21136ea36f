// Where keys come from when the configuration has none: the SDK's default chain, against peers on true sockets.
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, expect, test, vi } from "vitest";
import { openObjectStore } from "../../src/actors/s3/object-store.ts";
import { inAnHour, peer, surroundings } from "../support/credential-sources.ts";
import { testS3 } from "../support/s3.ts";
import { temporaryDirectory } from "../support/temporary-directory.ts";

afterEach(() => {
  vi.unstubAllEnvs();
});

test("a container's credentials are asked for, with its token", async () => {
  await using directory = await temporaryDirectory();
  await using s3 = await testS3(directory.path);
  const { accessKeyId, secretAccessKey, ...without } = s3.settings;
  const asked: (string | undefined)[] = [];
  await using agent = await peer((request, response) => {
    asked.push(request.headers.authorization);
    const keys = { AccessKeyId: accessKeyId, SecretAccessKey: secretAccessKey, Token: "", Expiration: inAnHour() };
    response.setHeader("content-type", "application/json").end(JSON.stringify(keys));
  });
  const token = join(directory.path, "token");
  writeFileSync(token, "of this pod");
  surroundings(directory.path, {
    AWS_CONTAINER_CREDENTIALS_FULL_URI: `${agent.url}/v1/credentials`,
    AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE: token,
  });
  const objects = openObjectStore(without);
  for (const key of ["a", "b"]) expect(await objects.put(key, Buffer.from(key))).toMatchObject({ kind: "ok" });
  expect(asked).toEqual(["of this pod"]);
  objects.close();
});

test("a web identity is exchanged at the token service, and its session token is sent to the store", async () => {
  await using directory = await temporaryDirectory();
  let form = "";
  await using sts = await peer((request, response) => {
    request.on("data", (chunk) => {
      form += String(chunk);
    });
    request.once("end", () =>
      response
        .setHeader("content-type", "text/xml")
        .end(
          `<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>ASIA0</AccessKeyId><SecretAccessKey>secret</SecretAccessKey><SessionToken>session of the role</SessionToken><Expiration>${inAnHour()}</Expiration></Credentials></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>`,
        ),
    );
  });
  const seen: Record<string, unknown>[] = [];
  await using store = await peer((request, response) => {
    seen.push(request.headers);
    request.resume().once("end", () => response.end());
  });
  const token = join(directory.path, "token");
  writeFileSync(token, "identity of this pod");
  surroundings(directory.path, {
    AWS_WEB_IDENTITY_TOKEN_FILE: token,
    AWS_ROLE_ARN: "arn:aws:iam::123456789012:role/klio",
    AWS_ENDPOINT_URL_STS: sts.url,
  });
  const objects = openObjectStore({ bucketName: "bucket", region: "eu-central-1", endpoint: store.url });
  await objects.put("x", Buffer.from("x"));
  expect(new URLSearchParams(form).get("WebIdentityToken")).toBe("identity of this pod");
  expect(seen[0]).toMatchObject({
    "x-amz-security-token": "session of the role",
    authorization: expect.stringMatching(/^AWS4-HMAC-SHA256 Credential=ASIA0\/.*x-amz-security-token/),
  });
  objects.close();
});

test("keys and session token of the configuration are taken before any chain", async () => {
  await using directory = await temporaryDirectory();
  const seen: Record<string, unknown>[] = [];
  await using store = await peer((request, response) => {
    seen.push(request.headers);
    request.resume().once("end", () => response.end());
  });
  surroundings(directory.path, { AWS_ACCESS_KEY_ID: "OTHER", AWS_SECRET_ACCESS_KEY: "other" });
  const keys = { accessKeyId: "OWN", secretAccessKey: "own", sessionToken: "mine" };
  const objects = openObjectStore({ bucketName: "bucket", region: "eu-central-1", endpoint: store.url, ...keys });
  await objects.put("x", Buffer.from("x"));
  expect(seen[0]).toMatchObject({
    "x-amz-security-token": "mine",
    authorization: expect.stringContaining("Credential=OWN/"),
  });
  objects.close();
});

test("KLIO-S3-CREDENTIALS: when nothing in the chain has any, that is what is said", async () => {
  await using directory = await temporaryDirectory();
  await using s3 = await testS3(directory.path);
  const { accessKeyId: _, secretAccessKey: __, ...without } = s3.settings;
  surroundings(directory.path, {});
  const objects = openObjectStore(without);
  expect(await objects.find("x")).toMatchObject({
    code: "KLIO-S3-CREDENTIALS",
    reason: expect.stringContaining("no source of credentials had any"),
  });
  objects.close();
});
