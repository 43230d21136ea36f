// What an error of the S3 client means for us. Lists are data, each name with its reason.
import { type Failure, failure, failureOf } from "../../domain/outcome.ts";
import { errorText, KlioError } from "../../errors.ts";

const CREDENTIALS: Readonly<Record<string, string>> = {
  AccessDenied: "the keys are known but not allowed to do this",
  CredentialsProviderError: "no source of credentials had any",
  ExpiredToken: "session token too old",
  InvalidAccessKeyId: "unknown access key",
  InvalidToken: "malformed session token",
  RequestTimeTooSkewed: "the clocks differ by too much for signed requests",
  SignatureDoesNotMatch: "wrong secret key",
  TokenRefreshRequired: "session token too old",
  XAdminUserNotFound: "unknown access key (versitygw)",
};

const REGION = "bucket of another region";

const BUCKET: Readonly<Record<string, string>> = {
  AuthorizationHeaderMalformed: REGION,
  IllegalLocationConstraintException: REGION,
  InvalidBucketName: "no bucket can have this name",
  NoSuchBucket: "the bucket does not exist",
  PermanentRedirect: REGION,
};

const INTEGRITY: Readonly<Record<string, string>> = {
  BadDigest: "the checksum of the bytes received differs from the announced one",
  IncompleteBody: "fewer bytes arrived than announced",
  XAmzContentSHA256Mismatch: "the checksum of the bytes received differs from the signed one",
};

const FULL: Readonly<Record<string, string>> = {
  InsufficientStorage: "the store has no space left",
  QuotaExceeded: "the store's quota is used up",
  XMinioAdminBucketQuotaExceeded: "the bucket's quota is used up (MinIO)",
  XMinioStorageFull: "the store has no space left (MinIO)",
};

/** Besides every 5xx status and every error of the network. */
const TRANSIENT: Readonly<Record<string, string>> = {
  ConditionalRequestConflict: "another write to the same key was under way",
  OperationAborted: "another operation on the same key was under way",
  RequestTimeout: "the body came too slowly",
  SlowDown: "throttled",
  ThrottlingException: "throttled",
  TimeoutError: "no answer in time",
  TooManyRequests: "throttled",
};

/** The store's certificate, by the codes of the TLS library; one that has merely expired is the store's own trouble and passes. */
const CERTIFICATE: Readonly<Record<string, string>> = {
  CERT_SIGNATURE_FAILURE: "its certificate is not signed by a CA of tier2.s3.custom_ca_bundle_file",
  DEPTH_ZERO_SELF_SIGNED_CERT: "its certificate is signed by itself alone; tier2.s3.custom_ca_bundle_file must hold it",
  ERR_TLS_CERT_ALTNAME_INVALID: "its certificate is for another name than tier2.s3.endpoint has",
  EPROTO: "no TLS is spoken at tier2.s3.endpoint",
  SELF_SIGNED_CERT_IN_CHAIN: "its CA is not in tier2.s3.custom_ca_bundle_file, or is not known to this system",
  UNABLE_TO_GET_ISSUER_CERT: "its CA is not in tier2.s3.custom_ca_bundle_file, or is not known to this system",
  UNABLE_TO_GET_ISSUER_CERT_LOCALLY: "its CA is not in tier2.s3.custom_ca_bundle_file, or is not known to this system",
  UNABLE_TO_VERIFY_LEAF_SIGNATURE: "its CA is not in tier2.s3.custom_ca_bundle_file, or is not known to this system",
};

/** The store does not know a header or a call that we use. */
const UNSUPPORTED: ReadonlySet<string> = new Set(["NotImplemented", "XNotImplemented"]);

type S3Error = Error & {
  $metadata?: { httpStatusCode?: number };
  $response?: { headers?: Record<string, string> };
  Code?: string;
  code?: string;
  Region?: string;
};

export function statusOf(error: unknown): number | undefined {
  return error instanceof Error ? (error as S3Error).$metadata?.httpStatusCode : undefined;
}

function nameOf(error: unknown): string {
  return error instanceof Error ? ((error as S3Error).Code ?? error.name) : "";
}

/** A write refused because its condition (absent, or this ETag) does not hold. */
export function isConditionRefused(error: unknown): boolean {
  return statusOf(error) === 412;
}

export function isUnsupported(error: unknown): boolean {
  return UNSUPPORTED.has(nameOf(error)) || statusOf(error) === 501;
}

/** Only the store's own word: a 404 of whatever stands before it says nothing about the object. */
export function isMissing(error: unknown): boolean {
  return statusOf(error) === 404 && nameOf(error) === "NoSuchKey";
}

/** What is to be mended about the bucket; the store says where it is. */
function bucketReason(error: unknown, why: string | undefined): string | undefined {
  const { Region, $response } = error as S3Error;
  const region = Region ?? $response?.headers?.["x-amz-bucket-region"];
  return why === REGION && region !== undefined ? `${why}: tier2.s3.region must be ${region}` : why;
}

/** A failure for any error that the client threw; what comes from our own body stream keeps its code. */
export function classifyS3(error: unknown, what: string, signal?: AbortSignal): Failure {
  if (error instanceof KlioError) return failureOf(error);
  if (signal?.aborted === true) return failure("KLIO-CANCELLED", `${what}: cancelled`);
  const name = nameOf(error);
  const status = statusOf(error);
  const reason = (why: string | undefined) => `${what}: ${errorText(error)}${why === undefined ? "" : ` (${why})`}`;
  const tls = error instanceof Error ? ((error as S3Error).code ?? "") : "";
  if (tls in CERTIFICATE) return failure("KLIO-S3-TLS", `${reason(CERTIFICATE[tls])} (${tls})`);
  if (name in CREDENTIALS) return failure("KLIO-S3-CREDENTIALS", reason(CREDENTIALS[name]));
  if (name in BUCKET) return failure("KLIO-S3-BUCKET", reason(bucketReason(error, BUCKET[name])));
  if (name in INTEGRITY) return failure("KLIO-S3-INTEGRITY", reason(INTEGRITY[name]));
  if (name in FULL || status === 507) return failure("KLIO-S3-FULL", reason(FULL[name] ?? "status 507"));
  if (name in TRANSIENT || status === 429) return failure("KLIO-S3-DOWN", reason(TRANSIENT[name]));
  if (isUnsupported(error)) return failure("KLIO-S3-REFUSED", reason("not supported by this store"));
  if (status === 401 || status === 403) return failure("KLIO-S3-CREDENTIALS", reason(`status ${status}`));
  if (status === 404 && (error as S3Error).Code === undefined)
    return failure("KLIO-S3-DOWN", reason("status 404 without a code of S3: something else answers for the store"));
  if (status === 301) return failure("KLIO-S3-BUCKET", reason(bucketReason(error, REGION)));
  if (status === undefined || status >= 500 || status < 400)
    return failure("KLIO-S3-DOWN", reason(status === undefined ? undefined : `status ${status}`));
  return failure("KLIO-S3-REFUSED", reason(`status ${status}`));
}

/** A failure for one object of many, which the store tells inside an answer with status 200. */
export function classifyEntry(
  entry: { Code?: string | undefined; Message?: string | undefined },
  what: string,
): Failure {
  const { Code = "", Message = Code } = entry;
  const httpStatusCode = /^(InternalError|ServiceUnavailable)$/.test(Code) ? 500 : 400;
  return classifyS3(Object.assign(new Error(Message), { Code, $metadata: { httpStatusCode } }), what);
}
