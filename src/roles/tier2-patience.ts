// Opening tier 2 beside a serving tier 1: tried once before the server is ready, and again in the background when object
// storage does not answer (P4). What a person must mend stops the start, but not a server that already serves.
import { setTimeout as wait } from "node:timers/promises";
import { backoffMs } from "../domain/backoff.ts";
import type { Log } from "../domain/log.ts";
import { errorText, KlioError } from "../errors.ts";

const POLICY = { firstMs: 1_000, factor: 2, limitMs: 60_000 };

export type PatientTier2<T> = {
  /** Resolves when tier 2 is open; rejects when the server is stopped before. */
  opened: Promise<T>;
  look: () => { ready: boolean; detail: string };
};

/** Rejects with the error of the first try, unless that may go away by itself. */
export async function whenTier2Opens<T>(options: {
  open: () => Promise<T>;
  log: Log;
  signal: AbortSignal;
}): Promise<PatientTier2<T>> {
  const { open, log, signal } = options;
  try {
    const value = await open();
    return { opened: Promise.resolve(value), look: () => ({ ready: true, detail: "open" }) };
  } catch (error) {
    if (!(error instanceof KlioError) || error.kind !== "retryable" || signal.aborted) throw error;
    log.warn("tier2.away", `tier 2 cannot be opened yet (${error.message}); tier 1 serves without it`, {
      code: error.code,
    });
    let detail = error.message;
    let isOpen = false;
    const again = async (): Promise<T> => {
      for (let attempt = 1; ; attempt++) {
        await wait(backoffMs(POLICY, attempt, Math.random()), undefined, { signal });
        try {
          const value = await open();
          isOpen = true;
          log.info("tier2.open", `tier 2 is open after ${attempt} further attempts`, { attempts: attempt });
          return value;
        } catch (next) {
          if (!(next instanceof KlioError) || next.kind === "bug") throw next;
          if (next.message !== detail)
            log.warn("tier2.away", `tier 2 cannot be opened: ${errorText(next)}`, { code: next.code });
          detail = next.message;
        }
      }
    };
    const opened = again();
    opened.catch(errorText); // who waits for it is told; a stop before that concerns nobody
    return { opened, look: () => ({ ready: isOpen, detail: isOpen ? "open" : detail }) };
  }
}
