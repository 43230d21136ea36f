// Finds out what a store really does, with objects of its own below a prefix of its own, which it removes again.

import { createHash, randomBytes } from "node:crypto";
import type { Readable } from "node:stream";
import { buffer } from "node:stream/consumers";
import { crc32 } from "node:zlib";
import {
  AbortMultipartUploadCommand,
  CompleteMultipartUploadCommand,
  CreateMultipartUploadCommand,
  GetObjectCommand,
  ListMultipartUploadsCommand,
  ListObjectsV2Command,
  PutObjectCommand,
  type PutObjectCommandInput,
  type S3Client,
  UploadPartCommand,
} from "@aws-sdk/client-s3";
import { unwrap } from "../../domain/outcome.ts";
import type { Probe, ProbeName, ProbeResult } from "../../domain/store-advice.ts";
import { KlioError } from "../../errors.ts";
import { classifyS3, isConditionRefused, statusOf } from "./classify.ts";
import { type ObjectStore, openObjectStore } from "./object-store.ts";
import { openS3Client, type S3Settings } from "./s3-client.ts";

/** S3 refuses requests that are signed this far from its own time; a minute off is a clock that nobody looks after. */
const CLOCK_LIMIT_MS = 60_000;
/** The smallest first part that S3 takes. */
const PART_BYTES = 5 << 20;

type Finding = { result: ProbeResult; detail: string };
const fine = (detail: string): Finding => ({ result: "ok", detail });
const base64 = (bytes: Buffer) => bytes.toString("base64");
const crcOf = (bytes: Buffer) => {
  const sum = Buffer.alloc(4);
  sum.writeUInt32BE(crc32(bytes));
  return base64(sum);
};
const sha256 = (bytes: Buffer) => createHash("sha256").update(bytes).digest();

export type StoreProbes = { probes: Probe[]; roundTripMs: number; leftOver: string[] };

/**
 * `prefix`: of tier 2, without slashes at its ends. `token`: distinguishes this run. Rejects with the KLIO-S3-… code of a store
 * that does not answer, does not know us or has no such bucket. `leftOver`: keys that could not be removed.
 */
export async function probeStore(settings: S3Settings, prefix: string, token: string): Promise<StoreProbes> {
  const client = openS3Client(settings);
  const objects = openObjectStore({ ...settings, conditionalWrites: true });
  const root = `${prefix === "" ? "" : `${prefix}/`}klio-doctor-${token}/`;
  const store = new ProbedStore(client, objects, settings.bucketName, root);
  try {
    const { roundTripMs, clock } = await store.reach();
    const probes: Probe[] = [{ name: "clock", ...clock }];
    const steps: [ProbeName, () => Promise<Finding>][] = [
      ["crc32", () => store.checksum("crc32")],
      ["sha256", () => store.checksum("sha256")],
      ["writeOnce", () => store.writeOnce()],
      ["replaceByTag", () => store.replaceByTag()],
      ["tags", () => store.tags()],
      ["list", () => store.list()],
      ["read", () => store.read()],
      ["range", () => store.range()],
      ["parts", () => store.parts()],
      ["abortParts", () => store.abortParts()],
      ["remove", () => store.remove()],
    ];
    for (const [name, step] of steps) probes.push({ name, ...(await store.guarded(step)) });
    return { probes, roundTripMs, leftOver: await store.sweep() };
  } catch (error) {
    await store.sweep().catch(() => undefined); // the first failure is the one to tell
    throw error;
  } finally {
    objects.close();
    client.destroy();
  }
}

class ProbedStore {
  readonly #client: S3Client;
  readonly #objects: ObjectStore;
  readonly #bucket: string;
  readonly #root: string;
  readonly #body = randomBytes(10_000);
  /** Keys that were written, or may have been. */
  readonly #keys = new Set<string>();
  #date: string | undefined;

  constructor(client: S3Client, objects: ObjectStore, bucket: string, root: string) {
    this.#client = client;
    this.#objects = objects;
    this.#bucket = bucket;
    this.#root = root;
    client.middlewareStack.add(
      (next) => async (args) => {
        const answer = await next(args);
        this.#date = (answer.response as { headers?: Record<string, string> }).headers?.date;
        return answer;
      },
      { step: "deserialize", priority: "low", name: "klioDate" },
    );
  }

  /** A failure that speaks about the store as a whole ends the run; any other is this probe's answer. */
  async guarded(step: () => Promise<Finding>): Promise<Finding> {
    try {
      return await step();
    } catch (error) {
      const { code, reason } = classifyS3(error, "asked");
      if (code === "KLIO-S3-DOWN" && statusOf(error) === undefined) throw new KlioError(code, reason, { cause: error });
      return { result: code === "KLIO-S3-CREDENTIALS" ? "denied" : "refused", detail: reason.slice("asked: ".length) };
    }
  }

  async reach(): Promise<{ roundTripMs: number; clock: Finding }> {
    const before = Date.now();
    try {
      await this.#client.send(new ListObjectsV2Command({ Bucket: this.#bucket, Prefix: this.#root, MaxKeys: 1 }));
    } catch (error) {
      const { code, reason } = classifyS3(error, `cannot list ${this.#bucket}/${this.#root}`);
      throw new KlioError(code, reason, { cause: error });
    }
    const roundTripMs = Date.now() - before;
    const told = Date.parse(this.#date ?? "");
    if (Number.isNaN(told)) return { roundTripMs, clock: fine("it tells no time") };
    const skewMs = told - (before + roundTripMs / 2);
    const seconds = Math.round(Math.abs(skewMs) / 1_000);
    const detail = seconds <= 1 ? "within a second" : `${seconds} s ${skewMs > 0 ? "ahead of" : "behind"} ours`;
    return { roundTripMs, clock: { result: Math.abs(skewMs) > CLOCK_LIMIT_MS ? "wrong" : "ok", detail } };
  }

  /** `payload`: what the signature says of the body. */
  async #put(key: string, body: Buffer, payload: string, more: Partial<PutObjectCommandInput>) {
    this.#keys.add(this.#root + key);
    const input = { Bucket: this.#bucket, Key: this.#root + key, Body: body, ContentLength: body.length, ...more };
    const command = new PutObjectCommand(input);
    command.middlewareStack.add(
      (next) => (args) => {
        const { headers } = args.request as { headers: Record<string, string> };
        headers["x-amz-content-sha256"] = payload;
        return next(args);
      },
      { step: "build", name: "klioPayloadHash" },
    );
    return this.#client.send(command);
  }

  async checksum(mode: "crc32" | "sha256"): Promise<Finding> {
    const other = randomBytes(this.#body.length);
    const announced = (bytes: Buffer) =>
      mode === "crc32" ? { ChecksumCRC32: crcOf(bytes) } : { ChecksumSHA256: base64(sha256(bytes)) };
    const payload = (bytes: Buffer) => (mode === "crc32" ? "UNSIGNED-PAYLOAD" : sha256(bytes).toString("hex"));
    const answer = await this.#put(mode, this.#body, payload(this.#body), announced(this.#body));
    const told = mode === "crc32" ? answer.ChecksumCRC32 : answer.ChecksumSHA256;
    const right = announced(this.#body);
    if (told !== undefined && told !== Object.values(right)[0]) return { result: "wrong", detail: `it tells ${told}` };
    try {
      await this.#put(`${mode}-wrong`, other, payload(this.#body), right);
    } catch (error) {
      const status = statusOf(error);
      if (status === undefined || status >= 500) throw error;
      return fine(told === undefined ? "verified, and not told back" : "verified and told back");
    }
    return { result: "ignored", detail: "it took bytes with another checksum" };
  }

  async writeOnce(): Promise<Finding> {
    const first = randomBytes(100);
    await this.#put("once", first, "UNSIGNED-PAYLOAD", { ChecksumCRC32: crcOf(first) });
    return this.#refuses("once", { IfNoneMatch: "*" }, "it replaced an object it was asked to keep");
  }

  async replaceByTag(): Promise<Finding> {
    const refused = await this.#refuses(
      "once",
      { IfMatch: '"00000000000000000000000000000000"' },
      "it ignored the ETag",
    );
    if (refused.result !== "ok") return refused;
    const found = unwrap(await this.#objects.find(`${this.#root}once`));
    const body = randomBytes(100);
    await this.#put("once", body, "UNSIGNED-PAYLOAD", { ChecksumCRC32: crcOf(body), IfMatch: found?.etag });
    return fine("by ETag");
  }

  async #refuses(key: string, condition: Partial<PutObjectCommandInput>, ignored: string): Promise<Finding> {
    const body = randomBytes(100);
    try {
      await this.#put(key, body, "UNSIGNED-PAYLOAD", { ChecksumCRC32: crcOf(body), ...condition });
    } catch (error) {
      if (isConditionRefused(error)) return fine("refused as asked");
      throw error;
    }
    return { result: "ignored", detail: ignored };
  }

  async tags(): Promise<Finding> {
    const { ETag: put } = await this.#put("tag", this.#body, sha256(this.#body).toString("hex"), {});
    const listed = unwrap(await this.#objects.find(`${this.#root}tag`))?.etag;
    const got = unwrap(await this.#objects.get(`${this.#root}tag`));
    got?.body.destroy();
    const all = [put, listed, got?.etag].map((etag) => etag?.replaceAll('"', ""));
    if (new Set(all).size > 1) return { result: "wrong", detail: `it told ${all.join(", ")}` };
    const [tag = ""] = all;
    const md5 = createHash("md5").update(this.#body).digest("hex");
    if (/^[0-9a-f]{32}$/.test(tag) && tag !== md5) return fine("the same each time; not the MD5 of the bytes");
    return fine("the same each time");
  }

  async list(): Promise<Finding> {
    const key = `${this.#root}listed`;
    await this.#put("listed", this.#body, sha256(this.#body).toString("hex"), {});
    const found = unwrap(await this.#objects.list(this.#root)).find((object) => object.key === key);
    if (found === undefined) return { result: "wrong", detail: "what was just written is not in the list" };
    return found.bytes === this.#body.length
      ? fine("at once")
      : { result: "wrong", detail: `it lists ${found.bytes} of ${this.#body.length} bytes` };
  }

  async read(): Promise<Finding> {
    const bytes = await this.#get("listed");
    return bytes.equals(this.#body) ? fine("bit for bit") : { result: "wrong", detail: "it gave other bytes" };
  }

  async range(): Promise<Finding> {
    const bytes = await this.#get("listed", "bytes=1000-1999");
    if (bytes.equals(this.#body.subarray(1_000, 2_000))) return fine("exactly");
    return { result: bytes.equals(this.#body) ? "ignored" : "wrong", detail: `${bytes.length} bytes in place of 1000` };
  }

  async #get(key: string, range?: string): Promise<Buffer> {
    const answer = await this.#client.send(
      new GetObjectCommand({
        Bucket: this.#bucket,
        Key: this.#root + key,
        ...(range !== undefined && { Range: range }),
      }),
    );
    return buffer(answer.Body as Readable);
  }

  async parts(): Promise<Finding> {
    const target = { Bucket: this.#bucket, Key: `${this.#root}parts` };
    this.#keys.add(target.Key);
    const { UploadId } = await this.#client.send(
      new CreateMultipartUploadCommand({ ...target, ChecksumAlgorithm: "CRC32" }),
    );
    const pieces = [Buffer.alloc(PART_BYTES, 7), this.#body];
    const done: { PartNumber: number; ETag?: string | undefined; ChecksumCRC32: string }[] = [];
    for (const [n, Body] of pieces.entries()) {
      const ChecksumCRC32 = crcOf(Body);
      const { ETag } = await this.#client.send(
        new UploadPartCommand({ ...target, UploadId, PartNumber: n + 1, Body, ChecksumCRC32 }),
      );
      done.push({ PartNumber: n + 1, ETag, ChecksumCRC32 });
    }
    await this.#client.send(
      new CompleteMultipartUploadCommand({ ...target, UploadId, MultipartUpload: { Parts: done } }),
    );
    const found = unwrap(await this.#objects.find(target.Key));
    const wanted = PART_BYTES + this.#body.length;
    if (found?.bytes === wanted) return fine("two parts");
    return { result: "wrong", detail: `it lists ${found?.bytes ?? "nothing"} in place of ${wanted} bytes` };
  }

  async abortParts(): Promise<Finding> {
    const target = { Bucket: this.#bucket, Key: `${this.#root}aborted` };
    const { UploadId } = await this.#client.send(new CreateMultipartUploadCommand(target));
    await this.#client.send(new AbortMultipartUploadCommand({ ...target, UploadId }));
    const { Uploads } = await this.#client.send(
      new ListMultipartUploadsCommand({ Bucket: this.#bucket, Prefix: target.Key }),
    );
    const isThere = Uploads?.some((upload) => upload.UploadId === UploadId) === true;
    return isThere ? { result: "ignored", detail: "the upload is still listed" } : fine("at once");
  }

  async remove(): Promise<Finding> {
    const removed = await this.#objects.remove([...this.#keys]);
    if (removed.kind !== "ok")
      return { result: removed.code === "KLIO-S3-CREDENTIALS" ? "denied" : "refused", detail: removed.reason };
    const left = unwrap(await this.#objects.list(this.#root)).length;
    return left === 0
      ? fine(`${this.#keys.size} objects`)
      : { result: "wrong", detail: `${left} objects are still listed` };
  }

  /** Whatever a broken-off probe left. Returns what is still there. */
  async sweep(): Promise<string[]> {
    const keys = [...this.#keys];
    const removed = await this.#objects.remove(keys);
    await this.#objects.abortUploads(this.#root, Date.now() + CLOCK_LIMIT_MS);
    return removed.kind === "ok" ? [] : keys;
  }
}
