// Sends one WAL file to a server, block by block, as a WAL player does: over `Put`, or over `Stream`.
import { open } from "node:fs/promises";
import { setTimeout as pause } from "node:timers/promises";
import { unwrap } from "../../domain/outcome.ts";
import { errorText, KlioError } from "../../errors.ts";
import { HEADROOM_BYTES } from "../../wire/wal-message.ts";
import type { WalClient } from "../grpc/wal-client.ts";
import type { WalUpload } from "../grpc/wal-upload.ts";
import type { PlayFile } from "./wal-directory.ts";

/** Keeps the bytes of all streams together below a rate. */
export class Pace {
  readonly #bytesPerMs: number;
  #nextMs = 0;

  /** `Infinity`: no limit. */
  constructor(bytesPerSecond: number) {
    this.#bytesPerMs = bytesPerSecond / 1000;
  }

  /** Resolves when `bytes` more may be sent, at once after an idle time; rejects when `signal` is aborted. */
  async take(bytes: number, signal: AbortSignal): Promise<void> {
    const now = performance.now();
    const at = Math.max(this.#nextMs, now);
    this.#nextMs = at + bytes / this.#bytesPerMs;
    if (at > now) await pause(at - now, undefined, { signal });
  }
}

export type PlayFileOptions = {
  client: Pick<WalClient, "upload" | "address">;
  file: PlayFile;
  method: "put" | "stream";
  blockBytes: number;
  sendToTier2: boolean;
  pace: Pace;
  signal: AbortSignal;
  onSent: (bytes: number) => void;
};

/**
 * Milliseconds from the first byte to the server's answer, which says that all are stored. Rejects with the server's
 * KlioError, KLIO-SERVER-DOWN (also for a count that differs), KLIO-SERVER-REFUSED (no `Stream` there), KLIO-USAGE (the file
 * changed or cannot be read) or KLIO-CANCELLED.
 */
export async function playFile(options: PlayFileOptions): Promise<number> {
  const { client, file, method, sendToTier2, signal } = options;
  const started = performance.now();
  const upload = client.upload({
    walName: file.name,
    segmentBytes: file.bytes,
    sendToTier2,
    method,
    fromOffset: 0,
    onAck: () => undefined,
  });
  const cancel = () => upload.cancel();
  signal.addEventListener("abort", cancel, { once: true });
  if (signal.aborted) cancel();
  try {
    await sendBlocks(upload, options);
    upload.finish();
  } catch (error) {
    upload.cancel();
    await upload.ended;
    if (signal.aborted) throw new KlioError("KLIO-CANCELLED", `sending ${file.name} was cancelled`);
    if (error instanceof KlioError) throw error;
    throw new KlioError("KLIO-USAGE", `cannot read ${file.path}: ${errorText(error)}`, { cause: error });
  } finally {
    signal.removeEventListener("abort", cancel);
  }
  const ended = await upload.ended;
  if (ended.kind === "unimplemented")
    throw new KlioError("KLIO-SERVER-REFUSED", `${client.address} has no rpc Stream`, { hint: "use --method put" });
  const { complete, durableBytes } = unwrap(ended);
  if (!complete)
    throw new KlioError(
      "KLIO-SERVER-DOWN",
      `${client.address} confirmed ${durableBytes} of ${file.bytes} bytes of ${file.name}`,
    );
  return performance.now() - started;
}

/** Returns early when the call has ended: its outcome says why. */
async function sendBlocks(
  upload: WalUpload,
  { file, blockBytes, pace, signal, onSent }: PlayFileOptions,
): Promise<void> {
  let isOver = false;
  const over = () => {
    isOver = true;
  };
  upload.ended.then(over, over);
  await using handle = await open(file.path);
  for (let at = 0; at < file.bytes && !isOver; ) {
    const wanted = Math.min(blockBytes, file.bytes - at);
    const buffer = Buffer.allocUnsafeSlow(HEADROOM_BYTES + wanted);
    const { bytesRead } = await handle.read(buffer, HEADROOM_BYTES, wanted, at);
    if (bytesRead === 0) throw new KlioError("KLIO-USAGE", `${file.path} became shorter while it was sent`);
    await pace.take(bytesRead, signal);
    const block = { buffer, start: HEADROOM_BYTES, end: HEADROOM_BYTES + bytesRead, release: () => undefined };
    if (!upload.send(block, () => undefined)) await upload.drained();
    at += bytesRead;
    onSent(bytesRead);
  }
}
