// Of small samples.

export function quantile(values: readonly number[], q: number): number {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.trunc(sorted.length * q))] ?? Number.NaN;
}

export const median = (values: readonly number[]) => quantile(values, 0.5);

/** Smallest and largest. */
export const spread = (values: readonly number[]) =>
  `(${Math.min(...values).toFixed(2)} to ${Math.max(...values).toFixed(2)})`;
