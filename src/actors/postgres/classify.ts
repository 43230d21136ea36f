// Where PostgreSQL's errors become ours.
import { type ErrorCode, errorText, KlioError } from "../../errors.ts";

/** SQLSTATEs and classes (two characters) that say something of their own; each with its reason. Others may pass by themselves. */
const bySqlState: Readonly<Record<string, ErrorCode>> = {
  "28": "KLIO-SOURCE-REFUSED", // invalid_authorization_specification, invalid_password, no pg_hba.conf entry
  "42501": "KLIO-SOURCE-REFUSED", // insufficient_privilege: no REPLICATION
  "42704": "KLIO-SOURCE-DOWN", // undefined_object: the slot was dropped behind our back; the next start makes it again
  "3D000": "KLIO-SOURCE-REFUSED", // invalid_catalog_name: no such database
  "53400": "KLIO-SOURCE-REFUSED", // configuration_limit_exceeded: all replication slots are in use
  "58P01": "KLIO-WAL-GAP", // undefined_file: the requested WAL segment was removed
  "55006": "KLIO-SLOT-BUSY", // object_in_use: a second sidecar, or the slot's last user has not noticed yet that it is gone
  "53300": "KLIO-SOURCE-DOWN", // too_many_connections
  "57P03": "KLIO-SOURCE-DOWN", // cannot_connect_now
};

/** What START_REPLICATION says without a SQLSTATE of its own (XX000, 55000); only where messages are English. */
const byMessage: readonly [RegExp, ErrorCode][] = [
  [/is not in this server's history/, "KLIO-TIMELINE"],
  [/is ahead of the WAL flush position/, "KLIO-SERVER-AHEAD"],
  [/has already been removed/, "KLIO-WAL-GAP"],
  [/can no longer (access|get changes from) replication slot|has been invalidated/, "KLIO-SLOT-LOST"],
  [/wal_level|replication slots can only be used|max_replication_slots/, "KLIO-SOURCE-REFUSED"],
];

/** Handshake failures: trying again does not help. */
const HANDSHAKE = /certificate|altname|ERR_TLS|ERR_SSL|ERR_OSSL|does not support SSL|password must be a string|SASL/i;

export type SourceErrorFields = { code: string; message: string; detail: string };

/** The KlioError for an error that PostgreSQL reported. */
export function reportedError({ code, message, detail }: SourceErrorFields): KlioError {
  const text = detail === "" ? message : `${message} (${detail})`;
  const known = bySqlState[code] ?? byMessage.find(([pattern]) => pattern.test(text))?.[1];
  const found = known ?? bySqlState[code.slice(0, 2)] ?? "KLIO-SOURCE-DOWN";
  return new KlioError(found, `PostgreSQL answered ${code}: ${text}`);
}

/** Any error of `pg`, a socket or a file as KlioError; what was thrown by us passes. */
export function sourceError(error: unknown): KlioError {
  if (error instanceof KlioError) return error;
  if (!(error instanceof Error)) return new KlioError("KLIO-SOURCE-DOWN", String(error));
  const code = "code" in error && typeof error.code === "string" ? error.code : "";
  if (/^[0-9A-Z]{5}$/.test(code) && "severity" in error)
    return reportedError({ code, message: error.message, detail: "detail" in error ? String(error.detail ?? "") : "" });
  const text = errorText(error);
  if (HANDSHAKE.test(text) || HANDSHAKE.test(code))
    return new KlioError("KLIO-SOURCE-REFUSED", `no connection to PostgreSQL: ${text}`, { cause: error });
  return new KlioError("KLIO-SOURCE-DOWN", `no connection to PostgreSQL: ${text}`, { cause: error });
}
