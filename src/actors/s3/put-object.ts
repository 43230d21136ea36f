// One object put so that its bytes are known to be there: the store checks the checksum we announce, we compare the one it
// answers, and a condition keeps two writers from replacing each other's bytes.
import { createHash } from "node:crypto";
import { type Readable, Transform } from "node:stream";
import { pipeline } from "node:stream/promises";
import { PutObjectCommand, type S3Client } from "@aws-sdk/client-s3";
import { Upload } from "@aws-sdk/lib-storage";
import { failure, type Outcome, ok } from "../../domain/outcome.ts";
import { KlioError } from "../../errors.ts";
import { classifyS3, isConditionRefused } from "./classify.ts";

export type PutOptions = {
  /** `absent`: nothing is there yet. `etag`: exactly this object is there. */
  condition?: { kind: "absent" } | { kind: "etag"; etag: string };
  /** SHA-256 of a Buffer's bytes, when it is known already. */
  sha256?: Buffer;
  signal?: AbortSignal;
};

/** `refused`: the condition does not hold; nothing was changed. */
export type PutAnswer = { kind: "stored"; bytes: number; etag: string } | { kind: "refused" };

/** Up to this size an object is one request: a 16 MiB segment with its framing still is. */
export const SINGLE_PUT_BYTES = 17 << 20;
const PART_BYTES = 8 << 20;
const PARTS_AT_ONCE = 2;

type Sent = { bytes: number; checksum: string; md5: () => string };
type Answer = { ChecksumSHA256?: string | undefined; ETag?: string | undefined };

const sha256 = (data: Uint8Array) => createHash("sha256").update(data).digest();
const conditionOf = ({ condition }: PutOptions) =>
  condition === undefined ? {} : condition.kind === "absent" ? { IfNoneMatch: "*" } : { IfMatch: condition.etag };

/** What the store says it has, against what was sent. A store that answers no SHA-256 is asked by its ETag. */
function check(key: string, sent: Sent, answer: Answer): Outcome<PutAnswer> {
  const etag = answer.ETag ?? "";
  const told = answer.ChecksumSHA256;
  const bare = etag.replaceAll('"', "");
  const isMd5 = /^[0-9a-f]{32}$/.test(bare);
  if (told !== undefined && told !== "" ? told === sent.checksum : !isMd5 || bare === sent.md5())
    return ok({ kind: "stored", bytes: sent.bytes, etag });
  return failure("KLIO-S3-INTEGRITY", `the store has other bytes under ${key} than were sent: ${told ?? bare}`);
}

export async function putObject(
  client: S3Client,
  bucket: string,
  key: string,
  body: Buffer | { bytes: number; stream: Readable },
  options: PutOptions,
): Promise<Outcome<PutAnswer>> {
  try {
    return "stream" in body
      ? await putInParts(client, bucket, key, body, options)
      : await putWhole(client, bucket, key, body, options);
  } catch (error) {
    if (isConditionRefused(error)) return ok({ kind: "refused" });
    return classifyS3(error, `cannot write ${bucket}/${key}`, options.signal);
  }
}

async function putWhole(
  client: S3Client,
  bucket: string,
  key: string,
  body: Buffer,
  options: PutOptions,
): Promise<Outcome<PutAnswer>> {
  const digest = options.sha256 ?? sha256(body);
  const checksum = digest.toString("base64");
  const command = new PutObjectCommand({
    Bucket: bucket,
    Key: key,
    Body: body,
    ContentLength: body.length,
    ChecksumSHA256: checksum,
    ...conditionOf(options),
  });
  // The signature needs the same hash: given here it is not computed a second time.
  command.middlewareStack.add(
    (next) => (args) => {
      const request = args.request as { headers: Record<string, string> };
      request.headers["x-amz-content-sha256"] = digest.toString("hex");
      return next(args);
    },
    { step: "build", name: "klioPayloadHash" },
  );
  const answer = await client.send(command, options.signal === undefined ? {} : { abortSignal: options.signal });
  return check(key, { bytes: body.length, checksum, md5: () => createHash("md5").update(body).digest("hex") }, answer);
}

/**
 * Passes bytes on and hashes them part by part, as the store does. Breaks off when they are not as many as announced, so
 * that a shortened object is never completed.
 */
function partHasher(key: string, announced: number): { stream: Transform; checksum: () => string } {
  const parts: Buffer[] = [];
  let hash = createHash("sha256");
  let filled = 0;
  let bytes = 0;
  const stream = new Transform({
    transform(chunk: Buffer, _, done) {
      bytes += chunk.length;
      for (let at = 0; at < chunk.length; ) {
        const piece = chunk.subarray(at, at + PART_BYTES - filled);
        hash.update(piece);
        filled += piece.length;
        at += piece.length;
        if (filled === PART_BYTES) {
          parts.push(hash.digest());
          hash = createHash("sha256");
          filled = 0;
        }
      }
      done(null, chunk);
    },
    flush(done) {
      if (bytes === announced) return done();
      done(new KlioError("KLIO-S3-INTEGRITY", `${key} was to have ${announced} bytes, the source had ${bytes}`));
    },
  });
  return {
    stream,
    checksum: () => {
      const [first, ...rest] = filled > 0 ? [...parts, hash.digest()] : parts;
      if (first === undefined || rest.length === 0) return (first ?? sha256(Buffer.alloc(0))).toString("base64");
      return `${sha256(Buffer.concat([first, ...rest])).toString("base64")}-${rest.length + 1}`;
    },
  };
}

async function putInParts(
  client: S3Client,
  bucket: string,
  key: string,
  { bytes, stream }: { bytes: number; stream: Readable },
  options: PutOptions,
): Promise<Outcome<PutAnswer>> {
  const hasher = partHasher(key, bytes);
  const abort = new AbortController();
  const stop = () => abort.abort();
  options.signal?.addEventListener("abort", stop, { once: true });
  if (options.signal?.aborted === true) stop();
  const upload = new Upload({
    client,
    params: { Bucket: bucket, Key: key, Body: hasher.stream, ChecksumAlgorithm: "SHA256", ...conditionOf(options) },
    partSize: PART_BYTES,
    queueSize: PARTS_AT_ONCE,
    leavePartsOnError: false,
    abortController: abort,
  });
  try {
    // Either side's failure ends the other: a source that breaks off must not leave a shortened object.
    const feeding = pipeline(stream, hasher.stream);
    const [, answer] = await Promise.all([feeding, upload.done()]);
    return check(key, { bytes, checksum: hasher.checksum(), md5: () => "" }, answer as Answer);
  } catch (error) {
    stop();
    stream.destroy();
    throw error;
  } finally {
    options.signal?.removeEventListener("abort", stop);
  }
}
