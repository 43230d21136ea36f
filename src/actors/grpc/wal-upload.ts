// One WAL file on its way to the server, over one call: `Stream` with an acknowledgement after each group of durable
// bytes, or the older `Put` with one answer at the end.
import { type Client, type ClientDuplexStream, type ClientWritableStream, Metadata, status } from "@grpc/grpc-js";
import { type Failure, failureOf, type Outcome, ok } from "../../domain/outcome.ts";
import { KlioError } from "../../errors.ts";
import type { PutAck, PutResult } from "../../proto/generated/klio/wal/v1/wal_pb.ts";
import { MAX_FRAME_RAW_BYTES, MIN_COMPRESS_BYTES } from "../../wire/wal-file-frame.ts";
import { encodePut, encodePutInPlace, HEADROOM_BYTES, MAX_BLOCK_BYTES } from "../../wire/wal-message.ts";
import { zstdPack } from "../../wire/zstd.ts";
import { callError } from "./classify.ts";
import { setUploadId, type UploadId } from "./upload-id.ts";
import type { RawMethod } from "./wal-methods.ts";

export type UploadOptions = {
  walName: string;
  segmentBytes: number;
  sendToTier2: boolean;
  /** `stream` unless the server answered `unimplemented` before. */
  method: "stream" | "put";
  /** Raw offset of the first block. `put` can only start at 0. */
  fromOffset: number;
  /** The server takes compressed blocks. */
  packs: boolean;
  /** W3C traceparent of the segment's span. */
  traceparent?: string;
  /** Absent: an earlier call for the same file, whose end the server has not noticed, keeps this one out. */
  uploadId?: UploadId;
  /** Durable bytes of the file, counted from its first byte; never goes back. `complete` comes with the last one. */
  onAck: (ack: { durableBytes: number; complete: boolean }) => void;
};

type UploadResult = { durableBytes: number; complete: boolean };
/** `unimplemented`: an older server, which has no `Stream`; nothing was stored. */
export type UploadOutcome = Outcome<UploadResult> | { kind: "unimplemented" };

/** `buffer[start, end)`; the `HEADROOM_BYTES` before `start` are overwritten. `release`: the buffer may be used again. */
export type UploadBlock = { buffer: Buffer; start: number; end: number; release: () => void };

export interface WalUpload {
  /** Sends a block; `onSent`: the transport has it. False: wait for `drained()` before the next one. */
  send(block: UploadBlock, onSent: () => void): boolean;
  /** The same for a block that has no headroom: it is copied. */
  sendCopy(block: Uint8Array): boolean;
  /** Resolves when more blocks are welcome, also when the call has ended. */
  drained(): Promise<void>;
  /** No more blocks follow. */
  finish(): void;
  /** Ends the call; what is durable stays. `ended` then tells KLIO-CANCELLED. */
  cancel(): void;
  /** Never rejects but for bugs. */
  readonly ended: Promise<UploadOutcome>;
}

const nothing = () => undefined;

type Sink = ClientDuplexStream<Buffer, PutAck> | ClientWritableStream<Buffer>;

/** Opens the call; nothing is sent before the first block. */
export function openUpload(
  client: Client,
  methods: { stream: RawMethod<PutAck>; put: RawMethod<PutResult> },
  cluster: string,
  peer: string,
  options: UploadOptions,
): WalUpload {
  if (options.method === "put" && options.fromOffset > 0)
    throw new KlioError("KLIO-BUG", "Put starts at the first byte of a file");
  const metadata = new Metadata();
  if (options.traceparent !== undefined) metadata.set("traceparent", options.traceparent);
  if (options.uploadId !== undefined) setUploadId(metadata, options.uploadId);
  const { walName, segmentBytes, sendToTier2 } = options;
  const { promise: ended, resolve, reject } = Promise.withResolvers<UploadOutcome>();
  let isCancelled = false;
  let isOver = false;
  let offset = options.fromOffset;
  let last: UploadResult = { durableBytes: 0, complete: false };
  let wakers: (() => void)[] = [];
  const wake = () => {
    const waiting = wakers;
    wakers = [];
    for (const waker of waiting) waker();
  };
  const settle = (outcome: UploadOutcome) => {
    isOver = true;
    resolve(outcome);
    wake();
  };
  const fail = (error: unknown) => {
    if (isCancelled) return settle(cancelled(walName));
    const code = error instanceof Error && "code" in error ? error.code : undefined;
    if (code === status.UNIMPLEMENTED) return settle({ kind: "unimplemented" });
    try {
      settle(failureOf(callError(error, peer)));
    } catch (bug) {
      isOver = true;
      wake();
      reject(bug);
    }
  };

  let sink: Sink;
  if (options.method === "stream") {
    const { path, serialize, deserialize } = methods.stream;
    const call = client.makeBidiStreamRequest(path, serialize, deserialize, metadata);
    call.on("data", (ack: PutAck) => {
      last = { durableBytes: Number(ack.durableSize), complete: ack.complete };
      options.onAck(last);
    });
    call.on("end", () => settle(ok(last)));
    sink = call;
  } else {
    const { path, serialize, deserialize } = methods.put;
    sink = client.makeClientStreamRequest(path, serialize, deserialize, metadata, (error, result?: PutResult) => {
      if (error !== null) return fail(error);
      const written = Number(result?.writtenSize ?? 0n);
      if (written !== offset)
        return settle({
          kind: "retryable",
          code: "KLIO-SERVER-DOWN",
          reason: `${peer} wrote ${written} of ${offset} bytes of ${walName}`,
        });
      last = { durableBytes: written, complete: written === segmentBytes };
      options.onAck(last);
      settle(ok(last));
    });
  }
  sink.on("error", fail);
  sink.on("drain", wake);

  const fields = () => ({ cluster, walName, segmentBytes, sendToTier2, offset: options.method === "put" ? 0 : offset });
  const isWelcome = () => isOver || !sink.writableNeedDrain;
  const send = ({ buffer, start, end, release }: UploadBlock, onSent: () => void): boolean => {
    const bytes = end - start;
    if (bytes > MAX_BLOCK_BYTES) throw new KlioError("KLIO-BUG", `a block of ${bytes} bytes is too large`);
    const own = fields();
    offset += bytes;
    if (isOver) {
      release();
      onSent();
      return true; // `ended` tells what happened
    }
    const packed = options.packs ? packBlock(buffer.subarray(start, end)) : undefined;
    if (packed !== undefined) {
      const message = encodePut({ ...own, packedFrom: bytes }, packed);
      release();
      sink.write(message, onSent);
    } else
      sink.write(encodePutInPlace(own, buffer, start, end), () => {
        release();
        onSent();
      });
    return isWelcome();
  };
  return {
    ended,
    send,
    sendCopy(block) {
      const buffer = Buffer.allocUnsafeSlow(HEADROOM_BYTES + block.length);
      buffer.set(block, HEADROOM_BYTES);
      return send({ buffer, start: HEADROOM_BYTES, end: buffer.length, release: nothing }, nothing);
    },
    drained() {
      if (isWelcome()) return Promise.resolve();
      return new Promise((done) => wakers.push(done));
    },
    finish() {
      if (!isOver) sink.end();
    },
    cancel() {
      isCancelled = true;
      sink.cancel();
    },
  };
}

/** The block compressed, when that is worth it. A view that is good until the next call. */
function packBlock(block: Buffer): Buffer | undefined {
  if (block.length < MIN_COMPRESS_BYTES || block.length > MAX_FRAME_RAW_BYTES) return undefined;
  const packed = zstdPack(block);
  return packed.length < block.length ? packed : undefined;
}

function cancelled(walName: string): Failure {
  return { kind: "retryable", code: "KLIO-CANCELLED", reason: `the upload of ${walName} was cancelled` };
}
