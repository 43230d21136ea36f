// Cluster names are path components, object key parts, queue subjects and certificate names at once.
import { KlioError } from "../errors.ts";

/** Throws KLIO-NAME-INVALID unless ASCII letters, digits, '-', '_' and '.' (not first), 1 to 255 characters. */
export function requireClusterName(name: string): string {
  if (/^[A-Za-z0-9_-][A-Za-z0-9_.-]{0,254}$/.test(name)) return name;
  throw new KlioError("KLIO-NAME-INVALID", `not a cluster name: ${JSON.stringify(name)}`, {
    hint: "use letters, digits, '-', '_' and '.', not beginning with '.', at most 255 characters",
  });
}

/** Splits a certificate's CN `user@cluster`; undefined when it has not exactly this form. */
export function parseCommonName(cn: string): { user: string; cluster: string } | undefined {
  const match = /^([^@\s]+)@([^@\s]+)$/.exec(cn);
  return match?.[1] === undefined || match[2] === undefined ? undefined : { user: match[1], cluster: match[2] };
}
