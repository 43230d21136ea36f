// Connection strings as libpq takes them (URI or key/value), as a configuration of `pg`. `pg` itself knows URIs only, and
// takes "require" for "verify-full".
import { readFileSync } from "node:fs";
import type { ConnectionOptions } from "node:tls";
import type { ClientConfig } from "pg";
import { errorText, KlioError } from "../../errors.ts";

/** Keywords of libpq with their values. */
export type Conninfo = ReadonlyMap<string, string>;

function invalid(problem: string): KlioError {
  return new KlioError("KLIO-CONFIG", `the connection string of the source ${problem}`); // never quoted: it has a password
}

function parseUri(text: string): Conninfo {
  // An empty host and a socket directory are no URL to URL.
  const match = /^postgres(?:ql)?:\/\/(?:([^@/?]*)@)?([^/?]*)(?:\/([^?]*))?(?:\?(.*))?$/s.exec(text);
  if (match === null) throw invalid("is not postgresql://user:password@host:port/database?name=value");
  const [, login = "", place = "", database = "", query = ""] = match;
  const values = new Map<string, string>();
  const put = (key: string, value: string) => {
    if (value !== "") values.set(key, decode(value));
  };
  const colon = login.indexOf(":");
  put("user", colon < 0 ? login : login.slice(0, colon));
  if (colon >= 0) put("password", login.slice(colon + 1));
  if (place.includes(",")) throw invalid("names several hosts; one is supported");
  const port = /:(\d+)$/.exec(place);
  put("host", place.slice(0, port?.index ?? place.length).replace(/^\[(.*)\]$/, "$1"));
  put("port", port?.[1] ?? "");
  put("dbname", database);
  for (const pair of query.split("&")) {
    const equals = pair.indexOf("=");
    if (equals > 0) put(pair.slice(0, equals), pair.slice(equals + 1));
  }
  return values;
}

function decode(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    throw invalid("has a '%' that begins no encoded character");
  }
}

function parseKeyValue(text: string): Conninfo {
  const values = new Map<string, string>();
  const pattern = /\s*([A-Za-z_]+)\s*=\s*(?:'((?:[^'\\]|\\.)*)'|((?:[^\s\\']|\\.)*))(?=\s|$)/gsy;
  const trimmed = text.trim();
  while (pattern.lastIndex < trimmed.length) {
    const match = pattern.exec(trimmed);
    if (match?.[1] === undefined) throw invalid("is neither a URI nor a list of name=value");
    const value = (match[2] ?? match[3] ?? "").replace(/\\(.)/gs, "$1");
    if (value !== "") values.set(match[1], value);
  }
  return values;
}

/** Throws KLIO-CONFIG, which never quotes the string. */
export function parseConninfo(text: string): Conninfo {
  return /^postgres(ql)?:\/\//.test(text) ? parseUri(text) : parseKeyValue(text);
}

/** "database" when the string says so, else "true": physical replication works over both, pg_hba.conf tells them apart. */
export function replicationMode(conninfo: Conninfo): "true" | "database" {
  return conninfo.get("replication") === "database" ? "database" : "true";
}

function readFile(conninfo: Conninfo, key: string): Buffer | undefined {
  const path = conninfo.get(key);
  if (path === undefined || path === "system") return undefined;
  try {
    return readFileSync(path);
  } catch (cause) {
    throw new KlioError("KLIO-CERTIFICATE", `cannot read ${key}: ${errorText(cause)}`, { cause });
  }
}

/** As libpq: "require" checks a certificate only when there is a root to check it with. Without a mode no TLS is used. */
function tlsOf(conninfo: Conninfo): ConnectionOptions | false {
  const mode = conninfo.get("sslmode") ?? "disable";
  if (mode === "disable" || mode === "allow" || mode === "prefer") return false;
  const ca = readFile(conninfo, "sslrootcert");
  const cert = readFile(conninfo, "sslcert");
  const key = readFile(conninfo, "sslkey");
  const isVerified = mode !== "require" || ca !== undefined;
  return {
    rejectUnauthorized: isVerified,
    ...(ca !== undefined && { ca, allowPartialTrustChain: true }),
    ...(cert !== undefined && { cert }),
    ...(key !== undefined && { key }),
    ...(isVerified && mode !== "verify-full" && { checkServerIdentity: () => undefined }),
  };
}

const CONNECT_SECONDS = 10;

/** Reads the files that the string names. Throws KLIO-CONFIG or KLIO-CERTIFICATE. */
export function clientConfig(conninfo: Conninfo, defaults: { applicationName: string }): ClientConfig {
  const port = Number(conninfo.get("port") ?? 5432);
  if (!Number.isInteger(port) || port < 1 || port > 65535) throw invalid(`has the port ${conninfo.get("port")}`);
  const values = {
    host: conninfo.get("hostaddr") ?? conninfo.get("host"),
    user: conninfo.get("user"),
    password: conninfo.get("password"),
    database: conninfo.get("dbname"),
    options: conninfo.get("options"),
  };
  return {
    ...Object.fromEntries(Object.entries(values).filter(([, value]) => value !== undefined)),
    port,
    application_name: conninfo.get("application_name") ?? defaults.applicationName,
    ssl: tlsOf(conninfo),
    keepAlive: true,
    connectionTimeoutMillis: 1000 * (Number(conninfo.get("connect_timeout") ?? 0) || CONNECT_SECONDS),
  };
}
