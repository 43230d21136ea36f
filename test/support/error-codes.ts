import { type ErrorCode, errorTable } from "../../src/errors.ts";

export function isErrorCode(text: string): text is ErrorCode {
  return Object.hasOwn(errorTable, text);
}
