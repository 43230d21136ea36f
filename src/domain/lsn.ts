// Log sequence numbers. A bigint in memory, "H/H" text in context, on the wire and in messages.
import { KlioError } from "../errors.ts";

declare const brand: unique symbol;
/** A byte position in the WAL, 0 … 2^64-1. */
export type Lsn = bigint & { readonly [brand]: "Lsn" };

const MAX = 2n ** 64n - 1n;

export function lsn(value: bigint | number): Lsn {
  const position = BigInt(value);
  if (position < 0n || position > MAX) throw new KlioError("KLIO-USAGE", `LSN out of range: ${value}`);
  return position as Lsn;
}

/** Parses "16/B374D848" (hexadecimal, any case). Throws KLIO-USAGE. */
export function parseLsn(text: string): Lsn {
  const match = /^([0-9A-Fa-f]{1,8})\/([0-9A-Fa-f]{1,8})$/.exec(text);
  if (match === null)
    throw new KlioError("KLIO-USAGE", `not an LSN: ${JSON.stringify(text)}`, {
      hint: "write it as PostgreSQL does, e.g. 16/B374D848",
    });
  return ((BigInt(`0x${match[1]}`) << 32n) | BigInt(`0x${match[2]}`)) as Lsn;
}

export function formatLsn(value: bigint): string {
  return `${(value >> 32n).toString(16).toUpperCase()}/${(value & 0xffff_ffffn).toString(16).toUpperCase()}`;
}

export function maxLsn(a: Lsn, b: Lsn): Lsn {
  return a > b ? a : b;
}
