// Calls of a WAL client: one answer, a list, or the blocks of a file. All of them answer outcomes.
import { create } from "@bufbuild/protobuf";
import { type Client, type ClientReadableStream, connectivityState, Metadata, type ServiceError } from "@grpc/grpc-js";
import { type Failure, failure, failureOf, type Outcome, ok } from "../../domain/outcome.ts";
import type { OpenWal } from "../../domain/wal-reader.ts";
import { KlioError } from "../../errors.ts";
import {
  BlockCodec,
  GetRequestSchema,
  type GetResult,
  ListWALRequestSchema,
  type ListWALResult,
} from "../../proto/generated/klio/wal/v1/wal_pb.ts";
import { callError } from "./classify.ts";
import { ReceivedFile } from "./received-file.ts";
import { type Method, walMethods } from "./wal-methods.ts";

/** `connectMs`: for the connection alone, should there be none yet. */
export type CallOptions = { signal?: AbortSignal; timeoutMs?: number; connectMs?: number };
export type RemoteWal = { name: string; storedBytes: number; complete: boolean; storedAtMs: number };

/** A question that a server answers at once. */
const ANSWER_MS = 30_000;
/** A link that swallows everything would else be waited for as long as a server that works on its answer. */
const CONNECT_MS = 10_000;

function cancelled(): Failure {
  return { kind: "retryable", code: "KLIO-CANCELLED", reason: "the call was cancelled" };
}

/** A unary call. Rejects for bugs only. */
export function askOnce<Request, Response>(
  client: Client,
  peer: string,
  { path, serialize, deserialize }: Method<Request, Response>,
  request: Request,
  { signal, timeoutMs = ANSWER_MS, connectMs = CONNECT_MS }: CallOptions = {},
): Promise<Outcome<Response>> {
  if (signal?.aborted) return Promise.resolve(cancelled());
  return new Promise((resolve, reject) => {
    let isUnreached = false;
    const done = (error: ServiceError | null, response?: Response) => {
      signal?.removeEventListener("abort", abort);
      clearTimeout(connecting);
      if (isUnreached) return resolve(failure("KLIO-SERVER-DOWN", `no connection to ${peer} within ${connectMs} ms`));
      if (error === null && response !== undefined) return resolve(ok(response));
      if (signal?.aborted) return resolve(cancelled());
      try {
        resolve(failureOf(callError(error, peer)));
      } catch (bug) {
        reject(bug);
      }
    };
    const deadline = Date.now() + timeoutMs;
    const call = client.makeUnaryRequest(path, serialize, deserialize, request, new Metadata(), { deadline }, done);
    const abort = () => call.cancel();
    signal?.addEventListener("abort", abort, { once: true });
    const connecting = setTimeout(() => {
      isUnreached = client.getChannel().getConnectivityState(false) !== connectivityState.READY;
      if (isUnreached) call.cancel();
    }, connectMs);
  });
}

export async function listAll(
  client: Client,
  peer: string,
  clusterName: string,
  { signal, timeoutMs = 10 * ANSWER_MS }: CallOptions,
): Promise<Outcome<RemoteWal[]>> {
  const { path, serialize, deserialize } = walMethods.listWal;
  const request = create(ListWALRequestSchema, { clusterName });
  const options = { deadline: Date.now() + timeoutMs };
  const call = client.makeServerStreamRequest(path, serialize, deserialize, request, new Metadata(), options);
  const stop = cancelWith(call, signal);
  const files: RemoteWal[] = [];
  try {
    for await (const file of call as AsyncIterable<ListWALResult>)
      files.push({
        name: file.name,
        storedBytes: Number(file.storedSize),
        complete: file.complete,
        storedAtMs: Number(file.storedAt),
      });
    return ok(files);
  } catch (error) {
    return signal?.aborted ? cancelled() : failureOf(callError(error, peer));
  } finally {
    stop();
  }
}

/** Hangs up on abort; the answer takes the listener away. */
function cancelWith(call: ClientReadableStream<unknown>, signal: AbortSignal | undefined): () => void {
  const abort = () => call.cancel();
  if (signal?.aborted) abort();
  signal?.addEventListener("abort", abort, { once: true });
  return () => signal?.removeEventListener("abort", abort);
}

export type GetOptions = {
  signal?: AbortSignal;
  traceparent?: string;
  /** A block is good until the next one is asked for. Default: for good. */
  reusesBlocks?: boolean;
};

/** Opens a stored file: the answer comes with its first block. See `WalClient.get`. */
export async function openGet(
  client: Client,
  peer: string,
  clusterName: string,
  walName: string,
  { signal, traceparent, reusesBlocks = false }: GetOptions,
): Promise<Outcome<OpenWal | undefined>> {
  const { path, serialize, deserialize } = walMethods.get;
  const metadata = new Metadata();
  if (traceparent !== undefined) metadata.set("traceparent", traceparent);
  const request = create(GetRequestSchema, { clusterName, walName, blockCodecs: [BlockCodec.ZSTD] });
  const call = client.makeServerStreamRequest(path, serialize, deserialize, request, metadata);
  const stop = cancelWith(call, signal);
  const messages = (call as AsyncIterable<GetResult>)[Symbol.asyncIterator]();
  let first: IteratorResult<GetResult>;
  try {
    first = await messages.next();
  } catch (error) {
    stop();
    if (signal?.aborted) return cancelled();
    const known = callError(error, peer);
    if (known instanceof KlioError && known.code === "KLIO-WAL-MISSING") return ok(undefined);
    return failureOf(known);
  }
  const segmentBytes = first.done ? 0 : Number(first.value.segmentSize);
  const complete = !walName.endsWith(".partial");
  let isAtEnd = false;
  const hangUp = () => {
    stop();
    if (!isAtEnd) call.cancel();
  };
  const blocks = async function* (): AsyncGenerator<Uint8Array> {
    const whole = new ReceivedFile(peer, walName, { reuses: reusesBlocks });
    try {
      for (let next = first; !next.done; next = await messages.next()) {
        const raw = whole.take(next.value);
        if (raw.length > 0) yield raw;
      }
      isAtEnd = true;
    } catch (error) {
      isAtEnd = true;
      if (signal?.aborted) throw new KlioError("KLIO-CANCELLED", `the download of ${walName} was cancelled`);
      throw error instanceof KlioError ? error : callError(error, peer);
    } finally {
      whole.close();
      hangUp();
    }
    whole.check(segmentBytes, complete);
  };
  return ok({ segmentBytes, complete, blocks: blocks(), [Symbol.asyncDispose]: async () => hangUp() });
}
