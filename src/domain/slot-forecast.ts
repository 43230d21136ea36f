// When will the WAL that PostgreSQL keeps for a slot have filled the room it has? From how it grew over the last minutes.

type Look = { atMs: number; retainedBytes: number };
export type ForecastLimits = {
  /** Looks older than this say nothing any more. */
  windowMs: number;
  /** Of a shorter time nothing is foretold: one burst is no trend. */
  minSpanMs: number;
  /** Minutes say nothing about what lies beyond. */
  horizonSeconds: number;
};

export class SlotForecast {
  readonly #limits: ForecastLimits;
  #looks: Look[] = [];

  constructor(limits: ForecastLimits) {
    this.#limits = limits;
  }

  /**
   * Takes a look (times ascend) and gives the seconds until `roomBytes` more are kept; null when it does not grow, or too
   * little is known. `roomBytes`: null: no limit is known.
   */
  after(look: Look, roomBytes: number | null): number | null {
    this.#looks = [...this.#looks.filter(({ atMs }) => look.atMs - atMs <= this.#limits.windowMs), look];
    const [oldest] = this.#looks;
    if (oldest === undefined || roomBytes === null) return null;
    const spanMs = look.atMs - oldest.atMs;
    const grown = look.retainedBytes - oldest.retainedBytes;
    if (spanMs < this.#limits.minSpanMs || spanMs <= 0 || grown <= 0) return null;
    const seconds = Math.max(0, roomBytes) / (grown / (spanMs / 1000));
    return seconds > this.#limits.horizonSeconds ? null : seconds;
  }

  /** The slot is another one now. */
  forget(): void {
    this.#looks = [];
  }
}

/** The nearest of the limits that are known. */
export function roomOf(...limits: readonly (number | null)[]): number | null {
  const known = limits.filter((one) => one !== null);
  return known.length === 0 ? null : Math.min(...known);
}
