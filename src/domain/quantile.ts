// Quantiles of measured values.

/** The smallest value that at least `share` (0 … 1) of all are not above (nearest rank); undefined of none. `sorted`: ascending. */
export function quantile(sorted: readonly number[], share: number): number | undefined {
  return sorted[Math.max(0, Math.ceil(share * sorted.length) - 1)];
}
