// Failures of the restore side's own file system.
import { type ErrorCode, errorText, KlioError } from "../../errors.ts";

const codes: Readonly<Record<string, ErrorCode>> = {
  ENOSPC: "KLIO-DISK-FULL",
  EDQUOT: "KLIO-DISK-FULL",
  EACCES: "KLIO-RESTORE-TARGET",
  EPERM: "KLIO-RESTORE-TARGET",
  EROFS: "KLIO-RESTORE-TARGET",
  ENOENT: "KLIO-RESTORE-TARGET",
  ENOTDIR: "KLIO-RESTORE-TARGET",
  EISDIR: "KLIO-RESTORE-TARGET",
  EXDEV: "KLIO-RESTORE-TARGET",
  ENAMETOOLONG: "KLIO-RESTORE-TARGET",
  EIO: "KLIO-STORE-IO",
};

/** The error of a file operation on `path` as KlioError; what is no system error is a bug and stays itself. */
export function fileError(error: unknown, path: string): unknown {
  if (error instanceof KlioError || !(error instanceof Error) || !("code" in error)) return error;
  const code = codes[String(error.code)];
  if (code === undefined) return error;
  return new KlioError(code, `cannot write ${path}: ${errorText(error)}`, {
    cause: error,
    ...(code === "KLIO-RESTORE-TARGET" && {
      hint: "check that the directory exists and that this user may write there",
    }),
    ...(code === "KLIO-DISK-FULL" && { hint: "free space on this file system and try again" }),
  });
}
