// Of small samples.
import { quantile as quantileOf } from "../src/domain/quantile.ts";

/** NaN of none. */
export function quantile(values: readonly number[], share: number): number {
  return (
    quantileOf(
      values.toSorted((a, b) => a - b),
      share,
    ) ?? Number.NaN
  );
}

export const median = (values: readonly number[]) => quantile(values, 0.5);

/** Smallest and largest. */
export const spread = (values: readonly number[]) =>
  `(${Math.min(...values).toFixed(2)} to ${Math.max(...values).toFixed(2)})`;
