// Between the replication connection and the calls that carry segments: cuts the stream into segments and blocks, holds
// the positions, and says when the connection must wait. One pipe per START_REPLICATION.
import { formatLsn } from "../../domain/lsn.ts";
import { type SegmentPositions, StreamPositions } from "../../domain/stream-positions.ts";
import { segmentAt } from "../../domain/wal-segment.ts";
import { KlioError } from "../../errors.ts";
import { type Block, BlockBuilder } from "./block-builder.ts";

export type PipeOptions = {
  timeline: number;
  /** Position of the first byte; need not be the start of a segment. */
  start: bigint;
  segmentBytes: number;
  /** Largest block. */
  blockBytes: number;
  /** `put` confirms whole files only: then what waits to be sent holds the stream back, not what is unconfirmed. */
  method: "stream" | "put";
  /** Above `highBytes` held the connection pauses, below `lowBytes` it goes on. */
  highBytes: number;
  lowBytes: number;
  /** A segment has its first byte: whoever carries it takes it with `segment(name)`. */
  onSegment: (segment: { name: string; fromOffset: number }) => void;
  /** The flushed position moved. */
  onFlushed: () => void;
  onPressure: (isHigh: boolean) => void;
};

/** What carries a segment. */
export type SegmentSink = { block: (block: Block) => void; ended: () => void };

export class WalPipe {
  readonly positions: StreamPositions;
  readonly #options: PipeOptions;
  readonly #builder: BlockBuilder;
  readonly #segments = new Map<string, PipeSegment>();
  #current: PipeSegment | undefined;
  #sourceEnd = 0n;
  #isHigh = false;
  #isEnded = false;
  #settled = Promise.withResolvers<void>();
  /** When bytes were confirmed (or sent, for `put`) last, or began to wait. */
  #progressAtMs = 0;

  constructor(options: PipeOptions) {
    this.#options = options;
    this.positions = new StreamPositions(options.start);
    this.#builder = new BlockBuilder(options.blockBytes);
  }

  /** Bytes that hold the connection back. */
  get heldBytes(): number {
    const { received, written, flushed } = this.positions;
    return Number(received - (this.#options.method === "put" ? written : flushed));
  }
  /** Resolves when the stream was ended and all its segments are. */
  get settled(): Promise<void> {
    return this.#settled.promise;
  }

  /** Milliseconds for which bytes have waited without any progress; 0 when none wait. */
  stalledMs(nowMs: number): number {
    if (this.heldBytes === 0 || this.#progressAtMs === 0) {
      this.#progressAtMs = nowMs;
      return 0;
    }
    return nowMs - this.#progressAtMs;
  }

  segment(name: string): PipeSegment {
    const segment = this.#segments.get(name);
    if (segment === undefined) throw new KlioError("KLIO-BUG", `no segment ${name} is streamed`);
    return segment;
  }

  /** The next `length` bytes begin at `start`. Throws KLIO-WAL-GAP when they do not follow. */
  expect(start: bigint): void {
    const { received } = this.positions;
    if (start !== received)
      throw new KlioError(
        "KLIO-WAL-GAP",
        `PostgreSQL sent WAL from ${formatLsn(start)}, expected ${formatLsn(received)}`,
      );
  }

  /** Takes `chunk[from, to)` by copying it. A message may cross a segment's end. */
  append(chunk: Buffer, from: number, to: number): void {
    const size = BigInt(this.#options.segmentBytes);
    for (let at = from; at < to; ) {
      const segment = this.#current ?? this.#open();
      const left = this.#options.segmentBytes - Number(this.positions.received % size);
      const taken = Math.min(to - at, left, this.#builder.room);
      this.#builder.append(chunk, at, at + taken);
      this.positions.receive(taken);
      at += taken;
      if (taken === left) this.#finish(segment);
      else if (this.#builder.room === 0) this.#send(segment);
    }
  }

  /** Where the source's own WAL ends, as it says with each message. */
  sourceAt(end: bigint): void {
    this.#sourceEnd = end;
  }

  /**
   * All bytes that arrived together are in: they go out at once, unless the way is full or the source has a whole block
   * more that it only needs to send; then blocks grow.
   */
  endOfRead(): void {
    const isBehind = this.#sourceEnd - this.positions.received >= BigInt(this.#options.blockBytes);
    if (this.#current?.isCongested === false && !isBehind) this.#send(this.#current);
    this.#press();
  }

  /** No more bytes follow: the open segment stays unfinished on the server. */
  end(): void {
    if (this.#isEnded) return;
    this.#isEnded = true;
    if (this.#current !== undefined) this.#finish(this.#current);
    this.#settle();
  }

  #open(): PipeSegment {
    const { timeline, segmentBytes } = this.#options;
    const { received } = this.positions;
    const name = segmentAt(timeline, received, segmentBytes);
    const fromOffset = Number(received % BigInt(segmentBytes));
    const end = received - BigInt(fromOffset) + BigInt(segmentBytes);
    const segment = new PipeSegment(name, received, fromOffset, this.positions.open(end), {
      progressed: (what) => {
        // A server that takes bytes and confirms none has stalled; `put` shows nothing but that they are taken.
        if (what === "flushed" || this.#options.method === "put") this.#progressAtMs = 0;
        if (what === "flushed") this.#options.onFlushed();
        this.#press();
      },
      free: () => {
        if (segment === this.#current) this.#send(segment);
      },
      closed: () => {
        this.#segments.delete(name);
        this.#settle();
      },
    });
    this.#segments.set(name, segment);
    this.#current = segment;
    this.#options.onSegment({ name, fromOffset });
    return segment;
  }

  #send(segment: PipeSegment): void {
    const block = this.#builder.cut();
    if (block !== undefined) segment.push(block);
  }

  #finish(segment: PipeSegment): void {
    this.#send(segment);
    this.#current = undefined;
    segment.end();
  }

  #press(): void {
    const held = this.heldBytes;
    const isHigh = this.#isHigh ? held >= this.#options.lowBytes : held >= this.#options.highBytes;
    if (isHigh === this.#isHigh) return;
    this.#isHigh = isHigh;
    this.#options.onPressure(isHigh);
  }

  #settle(): void {
    if (this.#isEnded && this.#segments.size === 0) this.#settled.resolve();
  }
}

type PipeHooks = { progressed: (what: "sent" | "flushed") => void; free: () => void; closed: () => void };

/** One segment on its way: blocks wait here until a carrier is there. */
export class PipeSegment {
  readonly name: string;
  /** Raw offset of its first byte. */
  readonly fromOffset: number;
  /** The way is full; blocks are not cut before they are. */
  isCongested = false;
  readonly #base: bigint;
  readonly #positions: SegmentPositions;
  readonly #hooks: PipeHooks;
  #sentBytes: number;
  #waiting: Block[] = [];
  #sink: SegmentSink | undefined;
  #isEnded = false;

  constructor(name: string, start: bigint, fromOffset: number, positions: SegmentPositions, hooks: PipeHooks) {
    this.name = name;
    this.fromOffset = fromOffset;
    this.#base = start - BigInt(fromOffset);
    this.#sentBytes = fromOffset;
    this.#positions = positions;
    this.#hooks = hooks;
  }

  /** Gives all blocks, those that wait first, to `sink`; then the end. */
  connect(sink: SegmentSink): void {
    this.#sink = sink;
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const block of waiting) sink.block(block);
    if (this.#isEnded) sink.ended();
  }

  push(block: Block): void {
    if (this.#sink === undefined) this.#waiting.push(block);
    else this.#sink.block(block);
  }

  end(): void {
    this.#isEnded = true;
    this.#sink?.ended();
  }

  /** The carrier sent `bytes` more; they come in the order of the blocks. */
  sent(bytes: number): void {
    this.#sentBytes += bytes;
    this.#positions.sent(this.#base + BigInt(this.#sentBytes));
    this.#hooks.progressed("sent");
  }

  /** `bytes` from the file's first one are durable. */
  durable(bytes: number, complete: boolean): void {
    if (this.#positions.durable(this.#base + BigInt(bytes), complete)) this.#hooks.progressed("flushed");
  }

  congested(isCongested: boolean): void {
    this.isCongested = isCongested;
    if (!isCongested) this.#hooks.free();
  }

  /** The carrier has ended, well or not. */
  close(): void {
    for (const block of this.#waiting) block.release();
    this.#waiting = [];
    this.#hooks.closed();
  }
}
