// What of a statechart's context the console may show. A list of names, not a filter of bad ones: what is not named here
// stays in the process, however it is called.
//   J1. Only these keys, and only numbers, booleans and short texts, ever leave the process.

export type Fields = Record<string, string | number | boolean>;

const SHOWN_KEYS = [
  // which
  "cluster",
  "name",
  "segment",
  "backup",
  "tier",
  "queue",
  "timeline",
  "slot",
  "method",
  "from",
  "streamTimeline",
  // where
  "offset",
  "position",
  "startLsn",
  "endLsn",
  "restartLsn",
  "flushedLsn",
  "resumeOffset",
  "durableBytes",
  "at",
  // how much, how often
  "bytes",
  "files",
  "rawBytes",
  "storedBytes",
  "attempt",
  "maxAttempts",
  "ends",
  "pid",
  "outages",
  "successes",
  "lagBytes",
  "retainedBytes",
  "level",
  "round",
  "looks",
  "complete",
  "drained",
  "sendToTier2",
  // what went wrong
  "code",
  "reason",
] as const;

/** Longer texts are cut: a reason may quote a whole answer of a server. */
const MAX_TEXT = 300;

function shown(value: unknown): string | number | boolean | undefined {
  if (typeof value === "number" || typeof value === "boolean") return value;
  if (typeof value !== "string" || value === "") return undefined;
  return value.length > MAX_TEXT ? `${value.slice(0, MAX_TEXT - 1)}…` : value;
}

/** What may be shown of a context (J1). */
export function pickFields(context: unknown): Fields {
  const fields: Fields = {};
  if (typeof context !== "object" || context === null) return fields;
  for (const key of SHOWN_KEYS) {
    const value = Object.hasOwn(context, key) ? shown(Reflect.get(context, key)) : undefined;
    if (value !== undefined) fields[key] = value;
  }
  return fields;
}
