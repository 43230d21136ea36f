// Waiting for facts.
import { setImmediate } from "node:timers/promises";

/** Asks until the answer is neither false nor undefined nor an exception; then returns it. Fails after `timeoutMs` (20 s). */
export async function eventually<T>(
  ask: () => T | Promise<T>,
  { timeoutMs = 20_000, what = "the expected state" }: { timeoutMs?: number; what?: string } = {},
): Promise<Exclude<T, false | undefined>> {
  const deadline = Date.now() + timeoutMs;
  let last: unknown;
  for (;;) {
    try {
      const answer = await ask();
      if (answer !== false && answer !== undefined) return answer as Exclude<T, false | undefined>;
      last = answer;
    } catch (error) {
      last = error;
    }
    if (Date.now() > deadline) throw new Error(`${what} did not come within ${timeoutMs} ms; last: ${String(last)}`);
    await pause(20);
  }
}

/** The gap between two looks; nothing may depend on its length. */
function pause(ms: number): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  setTimeout(resolve, ms);
  return promise;
}

/** Lets promise callbacks and immediates of invoked actors run. */
export async function settle(turns = 3): Promise<void> {
  for (let i = 0; i < turns; i++) await setImmediate();
}
