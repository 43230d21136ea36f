// The AWS SDK's client as Klio uses it: one try per request, no lines of its own, connections kept.
import { X509Certificate } from "node:crypto";
import { readFileSync } from "node:fs";
import { S3Client } from "@aws-sdk/client-s3";
import { errorText, KlioError } from "../../errors.ts";
import { s3HttpHandler } from "./http-handler.ts";
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

/** What went wrong is in the answers; the client would otherwise write lines of its own to the console. */
const nothing = () => undefined;
const silent = { trace: nothing, debug: nothing, info: nothing, warn: nothing, error: nothing };

const OPTION = "tier2.s3.custom_ca_bundle_file";

function readCa(file: string): string {
  let pem: string;
  try {
    pem = readFileSync(file, "utf8");
  } catch (cause) {
    throw new KlioError("KLIO-CONFIG", `cannot read ${OPTION} ${file}: ${errorText(cause)}`, { cause });
  }
  // What is no certificate would be passed over, and every store be refused.
  const certificates = pem.match(/-----BEGIN CERTIFICATE-----[^-]*-----END CERTIFICATE-----/g) ?? [];
  if (certificates.length === 0) throw new KlioError("KLIO-CONFIG", `${OPTION} ${file} holds no certificate (PEM)`);
  for (const certificate of certificates)
    try {
      new X509Certificate(certificate);
    } catch (cause) {
      throw new KlioError("KLIO-CONFIG", `${OPTION} ${file} holds a damaged certificate: ${errorText(cause)}`, {
        cause,
      });
    }
  return pem;
}

/** Throws KLIO-CONFIG for a CA file that cannot be read or holds none. Without keys the SDK's default chain is asked at first use. */
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
    requestHandler: s3HttpHandler(ca),
  });
}
