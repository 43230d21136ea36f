// How old is the oldest byte that is not durable yet: what the source said of its end of WAL, with the time at which we
// heard it, is kept until the durable position passes it. One clock only, so that no difference of clocks comes in. Never
// optimistic: while the source cannot be heard, the age counts from the last moment at which nothing was missing.

type Sample = { end: bigint; atMs: number };

/** More samples add nothing that anyone could see; older ones are thinned, the oldest one stays. */
const MAX_SAMPLES = 512;

export class Exposure {
  #samples: Sample[] = [];
  #sourceEnd: bigint;
  #durable: bigint;

  constructor(durable: bigint) {
    this.#durable = durable;
    this.#sourceEnd = durable;
  }

  /** The source said at `atMs` (our clock) that its WAL ends at `end`. */
  sourceAt(end: bigint, atMs: number): void {
    if (end <= this.#sourceEnd) return;
    this.#sourceEnd = end;
    this.#samples.push({ end, atMs });
    if (this.#samples.length > MAX_SAMPLES)
      this.#samples = this.#samples.filter((_, i, all) => i % 2 === 0 || i === all.length - 1);
  }

  /** What is missing now is known to be missing for longer. */
  since(atMs: number): void {
    const oldest = this.#samples[0];
    if (oldest !== undefined && atMs < oldest.atMs) this.#samples[0] = { ...oldest, atMs };
  }

  /** The source is not heard any more: it may write from now on. */
  lost(atMs: number): void {
    if (this.#samples.length === 0) this.#samples.push({ end: this.#sourceEnd + 1n, atMs });
  }

  /** The source is heard again. What is missing then counts from the oldest moment that is known. */
  regained(durable: bigint, sourceEnd: bigint, atMs: number): void {
    const oldest = this.#samples[0]?.atMs ?? atMs;
    this.#durable = durable;
    this.#sourceEnd = sourceEnd;
    this.#samples = sourceEnd > durable ? [{ end: sourceEnd, atMs: oldest }] : [];
  }

  durableAt(position: bigint): void {
    if (position <= this.#durable) return;
    this.#durable = position;
    const still = this.#samples.findIndex(({ end }) => end > position);
    this.#samples.splice(0, still < 0 ? this.#samples.length : still);
  }

  get sourceEnd(): bigint {
    return this.#sourceEnd;
  }
  /** Bytes that the source has and the server does not hold durably. */
  get bytes(): number {
    return Number(this.#sourceEnd > this.#durable ? this.#sourceEnd - this.#durable : 0n);
  }
  /** Seconds since the first of them was heard of. */
  seconds(nowMs: number): number {
    const oldest = this.#samples[0];
    return oldest === undefined ? 0 : Math.max(0, nowMs - oldest.atMs) / 1000;
  }
}
