// One START_REPLICATION, from the command to its end: bytes from the socket into the pipe, positions back to PostgreSQL.
//   V1. A status tells as flushed what the server confirmed, as applied the same, and as written what was sent: never more.
//   V2. A status leaves at each move of the flushed position, when asked for, and on a timer that no reading of the socket
//       holds up.
//   V3. A server that confirms nothing for `stallLimitMs` while bytes wait, and a source that is silent for
//       `silenceLimitMs` while it is read or owes an answer, end the stream.
//   V4. Where the source has WAL to send, no position is told before its first bytes have come: PostgreSQL moves a slot to what
//       is told, back, too, and one that points to WAL that is gone keeps nothing.
import { fromCallback } from "xstate";
import { formatLsn, type Lsn, parseLsn } from "../../domain/lsn.ts";
import { failureOf } from "../../domain/outcome.ts";
import { KlioError } from "../../errors.ts";
import type { StreamInput, WalStreamEvent } from "../../machines/wal-stream-events.ts";
import { encodeStatus, FrameReader, type FrameSink, startReplication } from "../../wire/pg-replication.ts";
import { reportedError, sourceError } from "./classify.ts";
import type { RawReplication, SourceSession } from "./source-session.ts";
import { WalPipe } from "./wal-pipe.ts";

/** What the role watches of a stream. */
type StreamWatch = {
  /** End of WAL as the source told it. */
  sourceAt(end: bigint): void;
  flushedAt(position: bigint): void;
};

export type StreamWalOptions = {
  session: () => SourceSession;
  /** The pipe of this stream, for those that carry its segments. */
  onPipe: (pipe: WalPipe) => void;
  watch: StreamWatch;
  blockBytes: number;
  /** Longest time between two status messages. */
  statusEveryMs: () => number;
  stallLimitMs: number;
  silenceLimitMs: number;
  highBytes?: number;
  lowBytes?: number;
  now?: () => number;
};

/** Unconfirmed bytes above which the source must wait, and below which it goes on: bounds memory, and hides a round trip. */
const HIGH_BYTES = 32 << 20;
const LOW_BYTES = 24 << 20;
/** What PostgreSQL takes for no position. */
const NOWHERE = { written: 0n, flushed: 0n };
/** How often progress is told to the machine at most. */
const PROGRESS_EVERY_MS = 1_000;

/**
 * Actor logic of walStream. `shutdown.requested` drains: reading stops, all that was received is confirmed, told to
 * PostgreSQL, and the copy ended. Stopping the actor lets go of the socket at once.
 */
export function streamWal(options: StreamWalOptions) {
  return fromCallback<{ type: "shutdown.requested" }, StreamInput>(({ input, sendBack, receive }) => {
    const stream = new Stream(options, input, (event) => sendBack(event));
    receive(() => stream.drain());
    stream.start();
    return () => stream.stop();
  });
}

type Phase = "starting" | "copying" | "draining" | "switching" | "ending" | "over";

class Stream implements FrameSink {
  readonly #options: StreamWalOptions;
  readonly #input: StreamInput;
  readonly #send: (event: WalStreamEvent) => void;
  readonly #now: () => number;
  readonly #pipe: WalPipe;
  #raw: RawReplication | undefined;
  #phase: Phase = "starting";
  #timer: NodeJS.Timeout | undefined;
  /** V4 */
  #isBegun: boolean;
  #statusAtMs = 0;
  #progressAtMs = 0;
  #heardAtMs: number;
  #isPaused = false;
  /** PostgreSQL was told that a timeline's end was seen, and says where the next one begins. */
  #isAnswerDue = false;
  #next: { timeline: number; startLsn: Lsn } | undefined;
  #error: KlioError | undefined;

  constructor(options: StreamWalOptions, input: StreamInput, send: (event: WalStreamEvent) => void) {
    this.#options = options;
    this.#input = input;
    this.#send = send;
    this.#now = options.now ?? Date.now;
    this.#isBegun = parseLsn(input.startLsn) >= parseLsn(input.flushLsn);
    this.#heardAtMs = this.#now();
    this.#pipe = new WalPipe({
      timeline: input.timeline,
      start: parseLsn(input.startLsn),
      segmentBytes: input.segmentBytes,
      blockBytes: options.blockBytes,
      method: input.method,
      highBytes: options.highBytes ?? HIGH_BYTES,
      lowBytes: options.lowBytes ?? LOW_BYTES,
      onSegment: (segment) => this.#send({ type: "segment.opened", ...segment }),
      onFlushed: () => this.#flushed(),
      onPressure: (isHigh) => this.#press(isHigh),
    });
  }

  start(): void {
    const { slot, startLsn, timeline } = this.#input;
    this.#options.onPipe(this.#pipe);
    const reader = new FrameReader(this);
    this.#raw = this.#options.session().take((chunk) => {
      if (this.#phase === "over") return;
      this.#heardAtMs = this.#now();
      try {
        reader.push(chunk);
        if (this.#phase === "copying") this.#pipe.endOfRead();
      } catch (error) {
        this.#fail(error);
      }
    });
    this.#timer = setInterval(() => this.#tick(), Math.max(50, Math.min(1_000, this.#options.statusEveryMs() / 4)));
    this.#raw.command(startReplication(slot, startLsn, timeline));
  }

  stop(): void {
    clearInterval(this.#timer);
    if (this.#phase === "over") return;
    this.#phase = "over"; // the connection is left in the middle of a copy: its owner ends it
  }

  drain(): void {
    if (this.#phase === "starting") {
      this.stop();
      this.#send({ type: "stream.drained" });
    }
    if (this.#phase !== "copying") return;
    this.#phase = "draining";
    this.#raw?.socket.pause();
    this.#pipe.end();
    void this.#pipe.settled.then(() => {
      if (this.#phase !== "draining") return;
      this.#status(false);
      this.#phase = "ending";
      this.#raw?.copyDone();
      this.#raw?.socket.resume();
    });
  }

  copyStarted(): void {
    if (this.#phase !== "starting") return;
    this.#phase = "copying";
    this.#status(false);
  }

  walHeader({ start, serverEnd }: { start: bigint; serverEnd: bigint }): void {
    if (this.#phase !== "copying") return;
    this.#options.watch.sourceAt(serverEnd);
    this.#pipe.sourceAt(serverEnd);
    this.#pipe.expect(start);
    if (this.#isBegun) return;
    this.#isBegun = true;
    this.#status(false); // commits may wait for what is confirmed long since
  }

  walBytes(chunk: Buffer, from: number, to: number): void {
    if (this.#phase === "copying") this.#pipe.append(chunk, from, to);
  }

  keepalive({ serverEnd, replyRequested }: { serverEnd: bigint; replyRequested: boolean }): void {
    if (this.#phase === "copying") this.#options.watch.sourceAt(serverEnd);
    if (replyRequested) this.#status(false); // V2
  }

  /** The end of a timeline, or the answer to our own CopyDone. */
  copyDone(): void {
    if (this.#phase !== "copying") return;
    this.#phase = "switching";
    this.#pipe.end();
    void this.#pipe.settled.then(() => {
      if (this.#phase !== "switching") return;
      this.#status(false);
      this.#heardAtMs = this.#now();
      this.#isAnswerDue = true;
      this.#raw?.copyDone();
    });
  }

  row([timeline, position]: (string | null)[]): void {
    if (timeline == null || position == null) return;
    const segment = BigInt(this.#input.segmentBytes);
    const at = parseLsn(position);
    this.#next = { timeline: Number(timeline), startLsn: parseLsn(formatLsn(at - (at % segment))) };
  }

  serverError(error: { code: string; message: string; detail: string }): void {
    this.#error ??= reportedError(error);
  }

  serverNotice(): void {
    // Nothing that PostgreSQL remarks here changes what we do.
  }

  ready(): void {
    if (this.#error !== undefined) this.#fail(this.#error);
    else if (this.#phase === "ending") this.#over({ type: "stream.drained" });
    else if (this.#next !== undefined)
      this.#over({
        type: "stream.switched",
        timeline: this.#next.timeline,
        startLsn: formatLsn(this.#next.startLsn),
      });
    else this.#fail(new KlioError("KLIO-SOURCE-DOWN", "PostgreSQL ended the replication stream"));
  }

  #over(event: WalStreamEvent): void {
    clearInterval(this.#timer);
    this.#phase = "over";
    this.#raw?.giveBack();
    this.#send(event);
  }

  #fail(error: unknown): void {
    if (this.#phase === "over") return;
    clearInterval(this.#timer);
    this.#phase = "over";
    this.#send({ type: "stream.ended", failure: failureOf(error instanceof KlioError ? error : sourceError(error)) });
  }

  #press(isHigh: boolean): void {
    if (this.#phase !== "copying") return;
    this.#isPaused = isHigh;
    this.#heardAtMs = this.#now();
    if (isHigh) this.#raw?.socket.pause();
    else this.#raw?.socket.resume();
  }

  #flushed(): void {
    const { flushed } = this.#pipe.positions;
    this.#options.watch.flushedAt(flushed);
    if (this.#phase === "over") return;
    this.#status(false); // V2
    const now = this.#now();
    if (now - this.#progressAtMs < PROGRESS_EVERY_MS) return;
    this.#progressAtMs = now;
    this.#send({ type: "stream.progressed", flushedLsn: formatLsn(flushed) });
  }

  #tick(): void {
    const now = this.#now();
    if (this.#phase === "over") return;
    const stalledMs = this.#pipe.stalledMs(now);
    const owesWords = this.#phase === "copying" || this.#phase === "starting" || this.#isAnswerDue;
    const silentMs = this.#isPaused || !owesWords ? 0 : now - this.#heardAtMs;
    if (stalledMs > this.#options.stallLimitMs)
      this.#fail(new KlioError("KLIO-SERVER-DOWN", `the server confirmed nothing for ${stalledMs} ms`)); // V3
    else if (silentMs > this.#options.silenceLimitMs)
      this.#fail(new KlioError("KLIO-SOURCE-DOWN", `PostgreSQL said nothing for ${silentMs} ms`)); // V3
    else if (now - this.#statusAtMs >= this.#options.statusEveryMs())
      this.#status(silentMs > this.#options.silenceLimitMs / 2);
  }

  /** V1, V4 */
  #status(replyRequested: boolean): void {
    if (this.#phase === "starting" || this.#phase === "over") return;
    const { written, flushed } = this.#isBegun ? this.#pipe.positions : NOWHERE;
    this.#statusAtMs = this.#now();
    this.#raw?.copyData(encodeStatus({ written, flushed, applied: flushed, nowMs: this.#statusAtMs, replyRequested }));
  }
}
