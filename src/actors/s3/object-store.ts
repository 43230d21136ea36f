// One bucket, spoken to through the AWS SDK. Every expected failure is an outcome; retries are the caller's.
import type { Readable } from "node:stream";
import {
  AbortMultipartUploadCommand,
  DeleteObjectsCommand,
  GetObjectCommand,
  ListMultipartUploadsCommand,
  ListObjectsV2Command,
  type ListObjectsV2CommandOutput,
} from "@aws-sdk/client-s3";
import { failure, type Outcome, ok } from "../../domain/outcome.ts";
import { classifyEntry, classifyS3, isMissing, statusOf } from "./classify.ts";
import { type PutAnswer, type PutOptions, type PutSource, putObject, sourceOf } from "./put-object.ts";
import { openS3Client, type S3Settings } from "./s3-client.ts";

type ObjectInfo = { key: string; bytes: number; etag: string; mtimeMs: number };
export type OpenObject = { bytes: number; etag: string; mtimeMs: number; body: Readable };

export interface ObjectStore {
  readonly bucket: string;
  /** A Buffer and what is not large in one request; else in parts, aborted when anything fails. May read the source twice. */
  put(key: string, body: Buffer | PutSource, options?: PutOptions): Promise<Outcome<PutAnswer>>;
  /** Undefined: no such object. The caller reads or destroys `body`. */
  get(key: string, signal?: AbortSignal): Promise<Outcome<OpenObject | undefined>>;
  /** By listing, because a refused HEAD has no body that would tell "missing" from "not allowed". */
  find(key: string, signal?: AbortSignal): Promise<Outcome<ObjectInfo | undefined>>;
  /** Everything below a key prefix, by key. */
  list(prefix: string, signal?: AbortSignal): Promise<Outcome<ObjectInfo[]>>;
  /** Names of the next level below a prefix that ends in a slash. */
  folders(prefix: string, signal?: AbortSignal): Promise<Outcome<string[]>>;
  /** What is gone already counts as removed. */
  remove(keys: readonly string[]): Promise<Outcome<void>>;
  /** Drops multipart uploads below a prefix that began before `beforeMs`: left over from a killed run. */
  abortUploads(prefix: string, beforeMs: number): Promise<Outcome<number>>;
  close(): void;
}

const DELETE_BATCH = 1_000;

/** Throws KLIO-CONFIG for a CA file that cannot be read or holds none. Without keys the SDK's default chain is asked at first use. */
export function openObjectStore(settings: S3Settings): ObjectStore {
  const { bucketName: bucket } = settings;
  const client = openS3Client(settings);

  async function pages(
    request: { prefix: string; delimiter?: string; limit?: number },
    onPage: (page: ListObjectsV2CommandOutput) => void,
    signal?: AbortSignal,
  ): Promise<Outcome<void>> {
    let token: string | undefined;
    try {
      do {
        const page = await client.send(
          new ListObjectsV2Command({
            Bucket: bucket,
            Prefix: request.prefix,
            ...(request.delimiter !== undefined && { Delimiter: request.delimiter }),
            ...(request.limit !== undefined && { MaxKeys: request.limit }),
            ...(token !== undefined && { ContinuationToken: token }),
          }),
          signal === undefined ? {} : { abortSignal: signal },
        );
        // Also what is no list at all is read as an empty one.
        if (page.IsTruncated === undefined && page.Name === undefined && page.Contents === undefined)
          return failure("KLIO-S3-DOWN", `cannot list ${bucket}/${request.prefix}: the answer is no list`);
        onPage(page);
        // Stores that leave out whether it goes on say at least where.
        const goesOn = page.IsTruncated ?? page.NextContinuationToken !== undefined;
        token = goesOn && request.limit === undefined ? page.NextContinuationToken : undefined;
        if (goesOn && request.limit === undefined && token === undefined)
          return failure(
            "KLIO-S3-REFUSED",
            `cannot list ${bucket}/${request.prefix}: the list goes on, and the store does not say where`,
          );
      } while (token !== undefined);
      return ok(undefined);
    } catch (error) {
      return classifyS3(error, `cannot list ${bucket}/${request.prefix}`, signal);
    }
  }

  async function objects(
    prefix: string,
    limit: number | undefined,
    signal?: AbortSignal,
  ): Promise<Outcome<ObjectInfo[]>> {
    const found: ObjectInfo[] = [];
    const listed = await pages(
      { prefix, ...(limit !== undefined && { limit }) },
      (page) => {
        for (const { Key, Size, ETag, LastModified } of page.Contents ?? [])
          if (Key !== undefined)
            found.push({ key: Key, bytes: Size ?? 0, etag: ETag ?? "", mtimeMs: LastModified?.getTime() ?? 0 });
      },
      signal,
    );
    return listed.kind === "ok" ? ok(found) : listed;
  }

  const find = async (key: string, signal?: AbortSignal): Promise<Outcome<ObjectInfo | undefined>> => {
    // The key itself sorts before every longer key that it is a prefix of.
    const found = await objects(key, 1, signal);
    return found.kind === "ok" ? ok(found.value.find((object) => object.key === key)) : found;
  };

  /** Some stores know no conditional writes; then we look first, which is all that can be done there. */
  let isConditional = settings.conditionalWrites ?? true;
  const target = { client, bucket, mode: settings.checksum ?? "crc32" };
  const put: ObjectStore["put"] = async (key, body, options = {}) => {
    const source = Buffer.isBuffer(body) ? sourceOf(body) : body;
    const { condition, ...unconditional } = options;
    let isUnsupported = false;
    if (condition === undefined || isConditional) {
      const asked = await putObject(target, key, source, options);
      const { answer } = asked;
      if (answer.kind === "ok" || answer.code !== "KLIO-S3-REFUSED" || condition === undefined) return answer;
      isUnsupported = asked.isUnsupported;
    }
    const found = await find(key, options.signal);
    if (found.kind !== "ok") return found;
    const holds = condition?.kind === "etag" ? found.value?.etag === condition.etag : found.value === undefined;
    if (!holds) return ok({ kind: "refused" });
    const { answer } = await putObject(target, key, source, unconditional);
    // It takes this object without the condition; any other refusal is of one request, and says nothing about the next.
    if (isUnsupported && answer.kind === "ok") isConditional = false;
    return answer;
  };

  return {
    bucket,
    put,
    async get(key, signal) {
      try {
        const answer = await client.send(
          new GetObjectCommand({ Bucket: bucket, Key: key }),
          signal === undefined ? {} : { abortSignal: signal },
        );
        return ok({
          bytes: answer.ContentLength ?? 0,
          etag: answer.ETag ?? "",
          mtimeMs: answer.LastModified?.getTime() ?? 0,
          body: answer.Body as Readable,
        });
      } catch (error) {
        return isMissing(error) ? ok(undefined) : classifyS3(error, `cannot read ${bucket}/${key}`, signal);
      }
    },
    find,
    list: (prefix, signal) => objects(prefix, undefined, signal),
    async folders(prefix, signal) {
      const found: string[] = [];
      const listed = await pages(
        { prefix, delimiter: "/" },
        (page) => {
          for (const { Prefix } of page.CommonPrefixes ?? [])
            if (Prefix !== undefined) found.push(Prefix.slice(prefix.length, -1));
        },
        signal,
      );
      return listed.kind === "ok" ? ok(found) : listed;
    },
    async remove(keys) {
      for (let from = 0; from < keys.length; from += DELETE_BATCH) {
        const batch = keys.slice(from, from + DELETE_BATCH);
        try {
          const answer = await client.send(
            new DeleteObjectsCommand({
              Bucket: bucket,
              Delete: { Objects: batch.map((Key) => ({ Key })), Quiet: true },
            }),
          );
          const [first] = answer.Errors ?? [];
          if (first !== undefined)
            return classifyEntry(
              first,
              `cannot remove ${answer.Errors?.length} of ${batch.length} objects: ${first.Key}`,
            );
        } catch (error) {
          return classifyS3(error, `cannot remove ${batch.length} objects`);
        }
      }
      return ok(undefined);
    },
    async abortUploads(prefix, beforeMs) {
      try {
        const answer = await client.send(new ListMultipartUploadsCommand({ Bucket: bucket, Prefix: prefix }));
        const stale = (answer.Uploads ?? []).filter(({ Initiated }) => (Initiated?.getTime() ?? beforeMs) < beforeMs);
        for (const { Key, UploadId } of stale)
          await client
            .send(new AbortMultipartUploadCommand({ Bucket: bucket, Key, UploadId }))
            .catch((error: unknown) => {
              if (statusOf(error) !== 404) throw error; // its own upload was faster
            });
        return ok(stale.length);
      } catch (error) {
        return classifyS3(error, `cannot drop unfinished uploads below ${bucket}/${prefix}`);
      }
    },
    close: () => client.destroy(),
  };
}
