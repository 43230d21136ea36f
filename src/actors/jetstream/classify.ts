// What an error of the NATS client means for us.
import type { NatsError } from "nats";
import { type Failure, failure } from "../../domain/outcome.ts";
import { errorText } from "../../errors.ts";

/** JetStream's answer "no such stream, consumer or message". */
export function isNotFound(error: unknown): boolean {
  return error instanceof Error && (error as NatsError).api_error?.code === 404;
}

/** Codes of the client, and of TLS, that only another configuration can help. */
const REFUSALS: Readonly<Record<string, string>> = {
  ACCOUNT_EXPIRED: "the account has expired",
  AUTHENTICATION_EXPIRED: "the credentials have expired",
  AUTHENTICATION_TIMEOUT: "the server got no credentials in time",
  AUTHORIZATION_VIOLATION: "user, password or credentials are wrong",
  BAD_AUTHENTICATION: "the server wants credentials",
  BAD_CREDS: "not a file of NATS credentials",
  PERMISSIONS_VIOLATION: "the user may not do this",
};
const TLS_CODE = /^(ERR_TLS|ERR_SSL|ERR_OSSL|CERT_|SELF_SIGNED|DEPTH_ZERO|UNABLE_TO)/;

type Coded = { code?: unknown; chainedError?: unknown };
const codeOf = (error: unknown) => String((error as Coded | undefined)?.code ?? "");

const refused = (why: string) => failure("KLIO-QUEUE-REFUSED", `the queue at the other end refuses us: ${why}`);

/** A failure to connect: what a person must mend is told apart from a server that is away. `access`: the options that let us in. */
export function classifyConnecting(error: unknown, access: string): Failure {
  const { chainedError } = error as Coded;
  const tls = [error, chainedError].find((one) => TLS_CODE.test(codeOf(one)));
  if (tls !== undefined) {
    const code = codeOf(tls);
    const option = /KEY_VALUES_MISMATCH/.test(code)
      ? "queue.client_key is not of queue.client_cert"
      : "see queue.ca_cert";
    return refused(`TLS: ${errorText(tls)} (${code}); ${option}`);
  }
  const why = REFUSALS[codeOf(error)];
  if (why !== undefined) return refused(`${why}: ${access}`);
  return failure("KLIO-QUEUE-DOWN", `cannot connect to the queue: ${errorText(error)}`);
}

/** What the server has against our certificate. */
export const certificateRefused = (reason: string | undefined): Failure =>
  refused(
    reason === undefined
      ? "it wants a client certificate: set queue.client_cert and queue.client_key"
      : `it does not accept queue.client_cert: ${reason}`,
  );

/** Streams and consumers that we may not make or use; undefined for any other failure. */
export function classifyPreparing(reason: string, url: string, access: string): Failure | undefined {
  // Nobody answers to the requests of JetStream: it is not there for this account.
  if (/jetstream not enabled|: 503$/i.test(reason)) return refused(`the NATS at ${url} has no JetStream for us`);
  const [violation] = /permissions violation[^']*/i.exec(reason) ?? [];
  return violation === undefined ? undefined : refused(`${violation}: ${access}`);
}

/** Every trouble with the queue is passing: tasks are hints, and the reconciler makes up for lost ones. */
export function classifyQueue(error: unknown, what: string): Failure {
  return failure("KLIO-QUEUE-DOWN", `${what}: ${errorText(error)}`);
}
