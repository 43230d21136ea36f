// Where the snapshot program's texts become outcomes. It has one exit status for every failure, so its stderr decides.
import { type Failure, failure } from "../../domain/outcome.ts";
import type { ErrorCode } from "../../errors.ts";
import type { CommandResult } from "../process/run-command.ts";

type Row = { text: RegExp; code: ErrorCode };

// In this order; the first that matches decides.
const texts: readonly Row[] = [
  // As object stores write it; the system's own message, of the cache's disk, has no capital and no full stop.
  { text: /No space left on device\.|InsufficientStorage|StorageFull|QuotaExceeded/, code: "KLIO-S3-FULL" },
  { text: /no space left on device/i, code: "KLIO-DISK-FULL" },
  { text: /disk quota exceeded/i, code: "KLIO-DISK-FULL" },
  { text: /invalid repository password/i, code: "KLIO-KEY-MISMATCH" },
  { text: /storage is read-only/i, code: "KLIO-READ-ONLY" },
  { text: /specified bucket does not exist|NoSuchBucket/i, code: "KLIO-S3-BUCKET" },
  { text: /request signature we calculated|SignatureDoesNotMatch/i, code: "KLIO-S3-CREDENTIALS" },
  {
    text: /access key id|InvalidAccessKeyId|InvalidTokenId|ExpiredToken|provided token /i,
    code: "KLIO-S3-CREDENTIALS",
  },
  { text: /desc = access denied for/i, code: "KLIO-REPOSITORY-REFUSED" },
  { text: /can't find certificate matching|x509:|tls: /i, code: "KLIO-SERVER-REFUSED" },
];

/** What says that the other side cannot be reached, or went away; by storage, because the cure differs. */
const UNREACHABLE =
  /connection refused|no such host|i\/o timeout|connection reset|broken pipe|network is unreachable|no route to host|code = Unavailable|transport is closing|unable to establish session|error reading from server|DeadlineExceeded|Client\.Timeout|SlowDown|ServiceUnavailable|InternalError/i;

export type Peer = "server" | "s3" | "directory";

function codeOf(text: string, peer: Peer): ErrorCode {
  if (peer === "s3" && /x509:|server gave HTTP response to HTTPS client/.test(text))
    return /has expired or is not yet valid/.test(text) ? "KLIO-S3-DOWN" : "KLIO-S3-TLS";
  const row = texts.find((one) => one.text.test(text));
  if (row !== undefined) return row.code;
  if (/access denied|AccessDenied/i.test(text))
    return peer === "s3" ? "KLIO-S3-CREDENTIALS" : "KLIO-REPOSITORY-REFUSED";
  if (UNREACHABLE.test(text)) return peer === "s3" ? "KLIO-S3-DOWN" : "KLIO-REPOSITORY-DOWN";
  if (/i\/o error|input\/output error/i.test(text)) return "KLIO-STORE-IO";
  return "KLIO-REPOSITORY";
}

/** The lines that say why, without those that tell what went well. */
function reasonOf(result: CommandResult): string {
  const lines = result.stderr
    .split(/[\r\n]+/)
    .map((line) => line.trim())
    .filter((line) => line !== "" && !/^(Connecting|Connected|Snapshotting|[-/|\\*] )|resolved to/.test(line));
  const last = lines.slice(-2).join("; ");
  if (last !== "") return last.slice(-600);
  return result.signal === undefined ? `exit status ${result.code}` : `ended by ${result.signal}`;
}

/** The failure of a command that did not do its work. `what` begins the message: "cannot list snapshots". */
export function failureOfCommand(result: CommandResult, peer: Peer, what: string): Failure {
  if (result.aborted) return failure("KLIO-CANCELLED", `${what}: cancelled`);
  if (result.signal !== undefined) return failure("KLIO-CHILD-FAILED", `${what}: ${reasonOf(result)}`);
  return failure(codeOf(result.stderr, peer), `${what}: ${reasonOf(result)}`);
}

/** Is this error of a verification a failure to read rather than damage? Then the failure; else undefined. */
export function infrastructureFailure(text: string, peer: Peer): Failure | undefined {
  const code = codeOf(text, peer);
  return code === "KLIO-REPOSITORY" ? undefined : failure(code, `cannot verify: ${text}`);
}
