// Where errors of the file system become ours.
import { errorText, KlioError } from "../../errors.ts";

/** What the system calls a volume without room: no blocks, over quota, or a file beyond what a process may write. */
const FULL: ReadonlySet<string> = new Set(["ENOSPC", "EDQUOT", "EFBIG"]);

function codeOf(error: unknown): string {
  return error instanceof Error && "code" in error ? String(error.code) : "";
}

export function isMissing(error: unknown): boolean {
  return codeOf(error) === "ENOENT" || codeOf(error) === "ENOTDIR";
}

export function isThere(error: unknown): boolean {
  return codeOf(error) === "EEXIST";
}

/** KLIO-DISK-FULL or KLIO-STORE-IO for an error of a system call; an error of ours passes; anything else is a bug. */
export function storeError(error: unknown, doing: string): KlioError {
  if (error instanceof KlioError) return error;
  const code = codeOf(error);
  if (FULL.has(code)) return new KlioError("KLIO-DISK-FULL", `the tier 1 volume is full: ${doing}`, { cause: error });
  const text = `${doing}: ${errorText(error)}`;
  return new KlioError(/^E[A-Z0-9]+$/.test(code) ? "KLIO-STORE-IO" : "KLIO-BUG", text, { cause: error });
}
