// Waits between attempts.

export type BackoffPolicy = { firstMs: number; factor: number; limitMs: number };

/**
 * Milliseconds to wait after attempt `attempt` (1-based): exponential up to the limit, then spread by `spread` (0 … 1,
 * given by the caller, who has the randomness) over the upper half, so that many clients do not come back at once.
 */
export function backoffMs(policy: BackoffPolicy, attempt: number, spread: number): number {
  const full = Math.min(policy.limitMs, policy.firstMs * policy.factor ** Math.min(attempt - 1, 60));
  return Math.round(full / 2 + (full / 2) * spread);
}
