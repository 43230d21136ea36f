// What the load was told: which rows PostgreSQL acknowledged, so that a restored cluster can be compared row by row.

export type Row = { id: number; payload: string };

/** Rows in order of their acknowledgement. `mark()` names a moment at which no commit is in flight. */
export class Ledger {
  private readonly rows = new Map<number, string>();
  private readonly doubtful = new Set<number>();
  private lastMs = 0;

  acknowledged(row: Row, atMs: number): void {
    this.doubtful.delete(row.id);
    this.rows.set(row.id, row.payload);
    this.lastMs = Math.max(this.lastMs, atMs);
  }

  /** A row whose commit was sent: until its answer comes it may be there or not. */
  sent(id: number): void {
    this.doubtful.add(id);
  }

  get count(): number {
    return this.rows.size;
  }

  /** Epoch milliseconds of the last acknowledgement. */
  get lastAcknowledgedMs(): number {
    return this.lastMs;
  }

  /** The acknowledged rows as of now. */
  snapshot(): ReadonlyMap<number, string> {
    return new Map(this.rows);
  }

  isDoubtful(id: number): boolean {
    return this.doubtful.has(id);
  }
}

export type Comparison = { expected: number; found: number; lost: number; different: number; unexpected: number };

/**
 * Compares restored rows with what was acknowledged. `unexpected`: rows that are there though nobody was told so, those
 * that were in flight excepted when `allows` says so.
 */
export function compareRows(
  expected: ReadonlyMap<number, string>,
  found: Iterable<Row>,
  allows: (id: number) => boolean = () => false,
): Comparison {
  const result = { expected: expected.size, found: 0, lost: expected.size, different: 0, unexpected: 0 };
  for (const { id, payload } of found) {
    result.found += 1;
    const wanted = expected.get(id);
    if (wanted === undefined) {
      if (!allows(id)) result.unexpected += 1;
      continue;
    }
    result.lost -= 1;
    if (wanted !== payload) result.different += 1;
  }
  return result;
}

export function isExact({ lost, different, unexpected }: Comparison): boolean {
  return lost === 0 && different === 0 && unexpected === 0;
}
