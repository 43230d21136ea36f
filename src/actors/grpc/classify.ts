// Where gRPC's errors become ours and back. A KlioError crosses the wire in trailers and comes out as the same KlioError.
import { Metadata, type ServiceError, status } from "@grpc/grpc-js";
import { type ErrorCode, errorTable, errorText, KlioError } from "../../errors.ts";

export type StatusReply = { code: number; details: string; metadata: Metadata };

const CODE_KEY = "klio-code";
const HINT_KEY = "klio-hint";

/** A refusal may quote what a client sent, which may be megabytes; trailers of more than 16 KiB break the connection. */
const MESSAGE_LIMIT = 1_000;

export function shortened(text: string): string {
  const more = text.length - MESSAGE_LIMIT;
  return more <= 0 ? text : `${text.slice(0, MESSAGE_LIMIT)}... (${more} more characters)`;
}

/** Trailers and grpc-message may hold printable ASCII only. */
function printable(text: string): string {
  return text.replace(/[^\x20-\x7e]/g, "?");
}

/** What a server answers for a thrown value; never throws. What is no KlioError is told as KLIO-BUG, without its text. */
export function statusOf(error: unknown): StatusReply {
  const known = error instanceof KlioError ? error : new KlioError("KLIO-BUG", "internal error");
  const metadata = new Metadata();
  metadata.set(CODE_KEY, known.code);
  metadata.set(HINT_KEY, printable(known.hint));
  return { code: errorTable[known.code].grpc, details: printable(shortened(known.message)), metadata };
}

/** Statuses that a peer without our trailers answers (an older server, or the transport itself). */
const foreignStatus: Readonly<Record<number, ErrorCode>> = {
  [status.CANCELLED]: "KLIO-SERVER-DOWN", // our own cancellations never come here
  [status.DEADLINE_EXCEEDED]: "KLIO-SERVER-DOWN",
  [status.INTERNAL]: "KLIO-SERVER-DOWN", // a broken stream, or a store that failed: the segment is sent again
  [status.UNKNOWN]: "KLIO-SERVER-DOWN",
  [status.ABORTED]: "KLIO-WAL-BUSY",
  [status.RESOURCE_EXHAUSTED]: "KLIO-DISK-FULL",
  [status.UNAUTHENTICATED]: "KLIO-SERVER-REFUSED",
  [status.UNIMPLEMENTED]: "KLIO-SERVER-REFUSED",
  [status.INVALID_ARGUMENT]: "KLIO-SERVER-REFUSED",
  [status.PERMISSION_DENIED]: "KLIO-CLUSTER-DENIED",
  [status.FAILED_PRECONDITION]: "KLIO-READ-ONLY",
  [status.NOT_FOUND]: "KLIO-WAL-MISSING",
  [status.DATA_LOSS]: "KLIO-WAL-DAMAGED",
};

/** Handshake failures come as UNAVAILABLE; trying again does not help. */
const HANDSHAKE = /certificate|altname|tls.?alert|alert (number|unknown|bad)|ERR_TLS|ERR_OSSL|ERR_SSL/i;

function isCode(text: string): text is ErrorCode {
  return Object.hasOwn(errorTable, text);
}

/** What the gRPC library wraps around the cause that it was given. */
function plainDetails(details: string): string {
  return details
    .replace(/^No connection established\. Last error: (Error: )?/, "")
    .replace(/\.? ?Resolution note: ?$/, "");
}

/** The KlioError for what a call ended with. `peer` names whom it was said by, in the message of a transport failure. */
function errorOf(error: ServiceError, peer: string): KlioError {
  const sent = String(error.metadata?.get(CODE_KEY)[0] ?? "");
  const details = plainDetails(error.details || errorText(error));
  if (isCode(sent)) {
    const hint = String(error.metadata.get(HINT_KEY)[0] ?? "");
    return new KlioError(sent, details, { cause: error, ...(hint !== "" && { hint }) });
  }
  if (error.code === status.UNAVAILABLE && HANDSHAKE.test(details))
    return new KlioError("KLIO-SERVER-REFUSED", `no secure connection to ${peer}: ${details}`, { cause: error });
  if (error.code === status.UNAVAILABLE)
    return new KlioError("KLIO-SERVER-DOWN", `${peer} does not answer: ${details}`, { cause: error });
  const code = foreignStatus[error.code] ?? "KLIO-SERVER-DOWN";
  return new KlioError(code, `${peer} answered ${status[error.code] ?? error.code}: ${details}`, { cause: error });
}

/** A call's error as KlioError: an error of ours passes, gRPC's are classified, anything else is a bug and stays itself. */
export function callError(error: unknown, peer: string): unknown {
  if (error instanceof KlioError || !(error instanceof Error)) return error;
  return "code" in error && typeof error.code === "number" && "details" in error
    ? errorOf(error as ServiceError, peer)
    : error;
}

/** The error of a listener that could not be bound. */
export function bindError(error: unknown, address: string): KlioError {
  const text = errorText(error);
  return text.includes("EADDRINUSE")
    ? new KlioError("KLIO-PORT-BUSY", `${address} is in use`, { cause: error })
    : new KlioError("KLIO-CONFIG", `cannot listen on ${address}: ${text}`, { cause: error });
}
