// The AWS SDK's client as Klio uses it: one try per request, no lines of its own, connections kept.
import { readFileSync } from "node:fs";
import { S3Client } from "@aws-sdk/client-s3";
import { errorText, KlioError } from "../../errors.ts";
import type { ChecksumMode } from "./put-object.ts";

/** As the server's configuration has it. */
export type S3Settings = {
  bucketName: string;
  region: string;
  /** URL; when set, addressing is path-style. */
  endpoint?: string;
  accessKeyId?: string;
  secretAccessKey?: string;
  sessionToken?: string;
  /** PEM file that replaces the system's roots. */
  customCaBundleFile?: string;
  /** Default crc32. */
  checksum?: ChecksumMode;
  /** Default true. */
  conditionalWrites?: boolean;
};

/** Without an answer after this long the request is given up. A part of 8 MiB needs 140 KiB/s. */
const REQUEST_LIMIT_MS = 60_000;
const CONNECT_LIMIT_MS = 5_000;

/** What went wrong is in the answers; the client would otherwise write lines of its own to the console. */
const nothing = () => undefined;
const silent = { trace: nothing, debug: nothing, info: nothing, warn: nothing, error: nothing };

function readCa(file: string): string {
  try {
    return readFileSync(file, "utf8");
  } catch (cause) {
    throw new KlioError("KLIO-CONFIG", `cannot read tier2.s3.custom_ca_bundle_file ${file}: ${errorText(cause)}`, {
      cause,
    });
  }
}

/** Throws KLIO-CONFIG for a CA file that cannot be read. Without keys the SDK's default chain is asked at first use. */
export function openS3Client(settings: S3Settings): S3Client {
  const { accessKeyId, secretAccessKey, sessionToken, endpoint } = settings;
  const ca = settings.customCaBundleFile === undefined ? undefined : readCa(settings.customCaBundleFile);
  return new S3Client({
    region: settings.region,
    maxAttempts: 1,
    logger: silent,
    ...(endpoint !== undefined && { endpoint, forcePathStyle: true }),
    ...(accessKeyId !== undefined &&
      secretAccessKey !== undefined && {
        credentials: { accessKeyId, secretAccessKey, ...(sessionToken !== undefined && { sessionToken }) },
      }),
    requestHandler: {
      connectionTimeout: CONNECT_LIMIT_MS,
      requestTimeout: REQUEST_LIMIT_MS,
      throwOnRequestTimeout: true,
      httpAgent: { maxSockets: 64, keepAlive: true },
      httpsAgent: { maxSockets: 64, keepAlive: true, ...(ca !== undefined && { ca, minVersion: "TLSv1.2" }) },
    },
  });
}
