// What IO answers: expected failures are data, so that machines decide about them.
import { type ErrorCode, errorTable, KlioError } from "../errors.ts";

export type Failure = { kind: "retryable" | "fatal"; code: ErrorCode; reason: string };
export type Outcome<T> = { kind: "ok"; value: T } | Failure;

export function ok<T>(value: T): Outcome<T> {
  return { kind: "ok", value };
}

/** The outcome for an error: a KlioError keeps its kind; anything else is a bug and is thrown again. */
export function failureOf(error: unknown): Failure {
  if (!(error instanceof KlioError) || error.kind === "bug") throw error;
  return { kind: error.kind, code: error.code, reason: error.message };
}

/** A failure of the given code; its kind is that of the table's row. */
export function failure(code: ErrorCode, reason: string): Failure {
  const { kind } = errorTable[code];
  return { kind: kind === "bug" ? "fatal" : kind, code, reason };
}

/** The value, or the failure thrown as KlioError: for the edge (CLI) where an outcome has nobody to decide on it. */
export function unwrap<T>(outcome: Outcome<T>): T {
  if (outcome.kind === "ok") return outcome.value;
  throw new KlioError(outcome.code, outcome.reason);
}
