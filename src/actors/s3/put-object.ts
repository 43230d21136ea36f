// One object put so that its bytes are known to be there: the store checks the checksum we announce, we compare the one it
// answers, and a condition keeps two writers from replacing each other's bytes.
import { createHash } from "node:crypto";
import { Readable, Transform } from "node:stream";
import { pipeline } from "node:stream/promises";
import { crc32 } from "node:zlib";
import { type CompleteMultipartUploadOutput, PutObjectCommand, type S3Client } from "@aws-sdk/client-s3";
import { Upload } from "@aws-sdk/lib-storage";
import { failure, type Outcome, ok } from "../../domain/outcome.ts";
import { KlioError } from "../../errors.ts";
import { classifyS3, isConditionRefused, isUnsupported } from "./classify.ts";

/**
 * How the store is to check what it gets. `crc32`: as checksum header. `sha256`: as checksum header and in the request's signature, for
 * stores that know no CRC-32 or take no unsigned bodies; it costs each side a further hash of all bytes.
 */
export type ChecksumMode = "crc32" | "sha256";

/** Bytes that can be read more than once, so that they need not be in memory. */
export type PutSource = {
  bytes: number;
  /** Of all bytes, as it was when they were checked. */
  crc32: number;
  /** From the start each time. The memory of a chunk may be used again behind the chunk after the next: copy what you keep. */
  body(): Readable;
  digest(algorithm: "sha256" | "md5"): Promise<Buffer>;
};

export type PutOptions = {
  /** `absent`: nothing is there yet. `etag`: exactly this object is there. */
  condition?: { kind: "absent" } | { kind: "etag"; etag: string };
  signal?: AbortSignal;
};

/** `refused`: the condition does not hold; nothing was changed. */
export type PutAnswer = { kind: "stored"; bytes: number; etag: string } | { kind: "refused" };

/** Up to this size an object is one request: a 16 MiB segment with its framing still is. */
const SINGLE_PUT_BYTES = 17 << 20;
const PART_BYTES = 8 << 20;
const PARTS_AT_ONCE = 2;

type Sent = { bytes: number; checksum: string; md5: () => Promise<Buffer> };
type Answer = { ETag?: string | undefined; told: string | undefined };
type Target = { client: S3Client; bucket: string; mode: ChecksumMode };

const conditionOf = ({ condition }: PutOptions) =>
  condition === undefined ? {} : condition.kind === "absent" ? { IfNoneMatch: "*" } : { IfMatch: condition.etag };

function bytesOfCrc(sum: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(sum);
  return bytes;
}

/** What the store says it has, against what was sent. A store that answers no checksum is asked by its ETag; each has one. */
async function check(key: string, sent: Sent, { ETag: etag = "", told }: Answer): Promise<Outcome<PutAnswer>> {
  const bare = etag.replaceAll('"', "");
  if (bare === "" && (told === undefined || told === ""))
    return failure("KLIO-S3-DOWN", `${key} may not be stored: the answer has no ETag, so it is not the store's`);
  const isMd5 = /^[0-9a-f]{32}$/.test(bare);
  if (
    told !== undefined && told !== "" ? told === sent.checksum : !isMd5 || bare === (await sent.md5()).toString("hex")
  )
    return ok({ kind: "stored", bytes: sent.bytes, etag });
  return failure("KLIO-S3-INTEGRITY", `the store has other bytes under ${key} than were sent: ${told ?? bare}`);
}

export function sourceOf(bytes: Buffer): PutSource & { whole: Buffer } {
  return {
    whole: bytes,
    bytes: bytes.length,
    crc32: crc32(bytes),
    body: () => Readable.from([bytes], { objectMode: false }),
    digest: async (algorithm) => createHash(algorithm).update(bytes).digest(),
  };
}

/** `isUnsupported`: the store does not know a header or a call of ours. */
export async function putObject(
  target: Target,
  key: string,
  source: PutSource & { whole?: Buffer },
  options: PutOptions,
): Promise<{ answer: Outcome<PutAnswer>; isUnsupported: boolean }> {
  const put = source.bytes <= SINGLE_PUT_BYTES || source.whole !== undefined ? putWhole : putInParts;
  try {
    return { answer: await put(target, key, source, options), isUnsupported: false };
  } catch (error) {
    const answer = isConditionRefused(error)
      ? ok<PutAnswer>({ kind: "refused" })
      : classifyS3(error, `cannot write ${target.bucket}/${key}`, options.signal);
    return { answer, isUnsupported: isUnsupported(error) };
  }
}

/**
 * One request. With a CRC-32 the body is not part of the signature: who could change it on its way could as well answer in the
 * store's place, and every frame of a WAL file carries its own seal.
 */
async function putWhole(
  { client, bucket, mode }: Target,
  key: string,
  source: PutSource & { whole?: Buffer },
  options: PutOptions,
): Promise<Outcome<PutAnswer>> {
  const sha256 = mode === "sha256" ? await source.digest("sha256") : undefined;
  const checksum = sha256?.toString("base64") ?? bytesOfCrc(source.crc32).toString("base64");
  const body = source.whole ?? source.body();
  const command = new PutObjectCommand({
    Bucket: bucket,
    Key: key,
    Body: body,
    ContentLength: source.bytes,
    ...(sha256 === undefined ? { ChecksumCRC32: checksum } : { ChecksumSHA256: checksum }),
    ...conditionOf(options),
  });
  // Without it the client would hash the whole body for the signature.
  const payload = sha256?.toString("hex") ?? "UNSIGNED-PAYLOAD";
  command.middlewareStack.add(
    (next) => (args) => {
      const request = args.request as { headers: Record<string, string> };
      request.headers["x-amz-content-sha256"] = payload;
      return next(args);
    },
    { step: "build", name: "klioPayloadHash" },
  );
  try {
    const answer = await client.send(command, options.signal === undefined ? {} : { abortSignal: options.signal });
    const told = sha256 === undefined ? answer.ChecksumCRC32 : answer.ChecksumSHA256;
    return await check(
      key,
      { bytes: source.bytes, checksum, md5: () => source.digest("md5") },
      { ETag: answer.ETag, told },
    );
  } finally {
    if (!Buffer.isBuffer(body)) body.destroy();
  }
}

/** A checksum that is taken piece by piece; `take` gives it and begins anew. */
function checksumOf(mode: ChecksumMode): { update: (piece: Buffer) => void; take: () => Buffer } {
  if (mode === "sha256") {
    let hash = createHash("sha256");
    const take = () => {
      const digest = hash.digest();
      hash = createHash("sha256");
      return digest;
    };
    return { update: (piece) => void hash.update(piece), take };
  }
  let sum = 0;
  const take = () => {
    const bytes = bytesOfCrc(sum);
    sum = 0;
    return bytes;
  };
  return {
    update(piece) {
      sum = crc32(piece, sum);
    },
    take,
  };
}

/**
 * Passes bytes on and takes their checksum part by part, as the store does. Breaks off when they are not as many as announced,
 * so that a shortened object is never completed.
 */
function partSummer(key: string, announced: number, mode: ChecksumMode): { stream: Transform; checksum: () => string } {
  const parts: Buffer[] = [];
  const sum = checksumOf(mode);
  let filled = 0;
  let bytes = 0;
  const stream = new Transform({
    transform(chunk: Buffer, _, done) {
      bytes += chunk.length;
      for (let at = 0; at < chunk.length; ) {
        const piece = chunk.subarray(at, at + PART_BYTES - filled);
        sum.update(piece);
        filled += piece.length;
        at += piece.length;
        if (filled === PART_BYTES) {
          parts.push(sum.take());
          filled = 0;
        }
      }
      done(null, Buffer.from(chunk)); // a part keeps its chunks until it is sent
    },
    flush(done) {
      if (filled > 0) parts.push(sum.take());
      if (bytes === announced) return done();
      done(new KlioError("KLIO-S3-INTEGRITY", `${key} was to have ${announced} bytes, the source had ${bytes}`));
    },
  });
  return {
    stream,
    checksum: () => {
      sum.update(Buffer.concat(parts));
      return `${sum.take().toString("base64")}-${parts.length}`;
    },
  };
}

async function putInParts(
  { client, bucket, mode }: Target,
  key: string,
  source: PutSource,
  options: PutOptions,
): Promise<Outcome<PutAnswer>> {
  const { bytes } = source;
  const summer = partSummer(key, bytes, mode);
  const stream = source.body();
  const abort = new AbortController();
  const stop = () => abort.abort();
  options.signal?.addEventListener("abort", stop, { once: true });
  if (options.signal?.aborted === true) stop();
  const upload = new Upload({
    client,
    params: {
      Bucket: bucket,
      Key: key,
      Body: summer.stream,
      ChecksumAlgorithm: mode === "crc32" ? "CRC32" : "SHA256",
      ...conditionOf(options),
    },
    partSize: PART_BYTES,
    queueSize: PARTS_AT_ONCE,
    leavePartsOnError: false,
    abortController: abort,
  });
  try {
    // Either side's failure ends the other: a source that breaks off must not leave a shortened object.
    const feeding = pipeline(stream, summer.stream);
    const [, answer] = await Promise.all([feeding, upload.done()]);
    const { ETag, ChecksumCRC32, ChecksumSHA256 } = answer as Partial<CompleteMultipartUploadOutput>;
    const told = mode === "crc32" ? ChecksumCRC32 : ChecksumSHA256;
    return await check(key, { bytes, checksum: summer.checksum(), md5: () => source.digest("md5") }, { ETag, told });
  } catch (error) {
    stop();
    stream.destroy();
    throw error;
  } finally {
    options.signal?.removeEventListener("abort", stop);
  }
}
