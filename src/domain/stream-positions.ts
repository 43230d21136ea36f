// Positions of a stream whose segments are sent over several calls that may overlap: what may be told to PostgreSQL as
// written and as flushed is the part without a hole, over all segments in their order.

type Segment = { end: bigint; sent: bigint; durable: bigint };

export class StreamPositions {
  #received: bigint;
  #written: bigint;
  #flushed: bigint;
  /** Segments that are not complete, in order; the first one holds the flushed position. */
  readonly #segments: Segment[] = [];

  /** `start`: position of the first byte; all before it counts as flushed. */
  constructor(start: bigint) {
    this.#received = start;
    this.#written = start;
    this.#flushed = start;
  }

  /** Position behind the last byte that came from PostgreSQL. */
  get received(): bigint {
    return this.#received;
  }
  /** All before it was sent. */
  get written(): bigint {
    return this.#written > this.#flushed ? this.#written : this.#flushed;
  }
  /** All before it is durable on the server, and complete segments have their final name. */
  get flushed(): bigint {
    return this.#flushed;
  }

  /** A segment begins (at the position that was received last) and ends before `end`. */
  open(end: bigint): SegmentPositions {
    const segment = { end, sent: this.#received, durable: this.#received };
    this.#segments.push(segment);
    return {
      sent: (position) => {
        if (position > segment.sent) segment.sent = position;
        this.#written = this.#prefix("sent");
      },
      durable: (position, complete) => {
        // The last byte counts when the file has its final name for good.
        if (position >= segment.end && !complete) return false;
        if (position > segment.durable) segment.durable = position;
        const before = this.#flushed;
        const flushed = this.#prefix("durable");
        if (flushed > before) this.#flushed = flushed;
        while (this.#segments[0] !== undefined && this.#segments[0].durable >= this.#segments[0].end)
          this.#segments.shift();
        return this.#flushed > before;
      },
    };
  }

  receive(bytes: number): void {
    this.#received += BigInt(bytes);
  }

  #prefix(what: "sent" | "durable"): bigint {
    let position = this.#flushed;
    for (const segment of this.#segments) {
      if (segment[what] > position) position = segment[what];
      if (segment[what] < segment.end) break;
    }
    return position;
  }
}

/** Of one segment; positions are those of the stream. */
export type SegmentPositions = {
  sent(position: bigint): void;
  /** True when the flushed position of the stream moved. */
  durable(position: bigint, complete: boolean): boolean;
};
