// What every rpc of a server needs: who calls, whether it may, and an answer for whatever is thrown.
import type { ServerUnaryCall, ServerWritableStream, sendUnaryData } from "@grpc/grpc-js";
import { parseCommonName, requireClusterName } from "../../domain/cluster-name.ts";
import type { Log } from "../../domain/log.ts";
import { errorText, KlioError } from "../../errors.ts";
import { shortened, statusOf } from "./classify.ts";

/** What all kinds of server calls have in common. */
export type Call = Pick<ServerUnaryCall<unknown, unknown>, "cancelled" | "metadata" | "getAuthContext"> & {
  once(event: string, listener: () => void): unknown;
  on(event: string, listener: () => void): unknown;
  off(event: string, listener: () => void): unknown;
};

export type Caller = { user: string; cluster: string };

/** User and cluster of the client certificate (CN `user@cluster`). Throws KLIO-CLUSTER-DENIED when it names none. */
export function callerOf(call: Call): Caller {
  const subject: unknown = call.getAuthContext().sslPeerCertificate?.subject?.CN;
  const cn = Array.isArray(subject) ? subject.join("+") : String(subject ?? "");
  const caller = parseCommonName(cn);
  if (caller === undefined)
    throw new KlioError("KLIO-CLUSTER-DENIED", `the client certificate's CN ${JSON.stringify(cn)} is no user@cluster`);
  return caller;
}

/**
 * The cluster that is asked for, when the caller's certificate opens it. Throws KLIO-NAME-INVALID or
 * KLIO-CLUSTER-DENIED: every rpc goes through here before it touches anything.
 */
export function requireOwnCluster(call: Call, cluster: string): string {
  const name = requireClusterName(cluster);
  const caller = callerOf(call);
  if (caller.cluster !== name)
    throw new KlioError(
      "KLIO-CLUSTER-DENIED",
      `the certificate of ${caller.user}@${caller.cluster} does not open ${name}`,
    );
  return name;
}

/** W3C traceparent that the caller sent, or empty. */
export function traceparentOf(call: Call): string {
  const sent = call.metadata.get("traceparent")[0];
  return typeof sent === "string" && /^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$/.test(sent) ? sent : "";
}

/** Aborts when the caller hung up. */
export function signalOf(call: Call): AbortSignal {
  const controller = new AbortController();
  if (call.cancelled) controller.abort();
  call.once("cancelled", () => controller.abort());
  return controller.signal;
}

/** Refusals are part of the day; a bug must be seen. Bad input never ends a server, so nothing is thrown on. */
export function logRefusal(log: Log, method: string, error: unknown): void {
  if (error instanceof KlioError && error.kind !== "bug")
    log.info("grpc.refused", `${method} was refused: ${shortened(error.message)}`, { code: error.code, method });
  else log.error("grpc.failed", `${method} failed: ${errorText(error)}`, { code: "KLIO-BUG", method });
}

/** A unary method from a function. */
export function unary<Request, Response>(
  method: string,
  log: Log,
  answer: (request: Request, call: ServerUnaryCall<Request, Response>) => Promise<Response>,
) {
  return (call: ServerUnaryCall<Request, Response>, reply: sendUnaryData<Response>): void => {
    Promise.resolve()
      .then(() => answer(call.request, call))
      .then(
        (response) => reply(null, response),
        (error: unknown) => {
          logRefusal(log, method, error);
          reply(statusOf(error));
        },
      );
  };
}

/** A server-streaming method from a generator; the next message is made when the last one was taken. */
export function serverStream<Request, Response>(
  method: string,
  log: Log,
  answer: (request: Request, call: ServerWritableStream<Request, Response>) => AsyncIterable<Response>,
) {
  return (call: ServerWritableStream<Request, Response>): void => {
    const run = async () => {
      for await (const message of answer(call.request, call)) {
        if (call.cancelled) return;
        if (!call.write(message)) await drained(call);
      }
      call.end();
    };
    run().catch((error: unknown) => {
      if (call.cancelled) return;
      logRefusal(log, method, error);
      call.emit("error", statusOf(error));
    });
  };
}

function drained(call: Call): Promise<void> {
  if (call.cancelled) return Promise.resolve();
  const events = ["drain", "cancelled", "close"];
  return new Promise((resolve) => {
    const done = () => {
      for (const event of events) call.off(event, done);
      resolve();
    };
    for (const event of events) call.on(event, done);
  });
}
