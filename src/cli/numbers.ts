// Numbers on the command line, with their units.
import { InvalidArgumentError } from "commander";

/** A parser of whole numbers from `min` to `max`. */
export function wholeNumber(min: number, max = Number.MAX_SAFE_INTEGER): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (!/^\d{1,16}$/.test(text) || value < min || value > max)
      throw new InvalidArgumentError(
        max === Number.MAX_SAFE_INTEGER ? `write a whole number from ${min} on.` : `write ${min} to ${max}.`,
      );
    return value;
  };
}

/** A number above 0. */
export function positiveNumber(text: string): number {
  const value = Number(text);
  if (!/^\d+(\.\d+)?$/.test(text) || !(value > 0)) throw new InvalidArgumentError("write a number above 0.");
  return value;
}

const UNITS: Readonly<Record<string, number>> = { "": 1, kB: 1 << 10, MB: 1 << 20 };

/** A parser of amounts of bytes from `min` to `max`, with PostgreSQL's units: 65536, 64kB, 2MB. */
export function byteSize(min: number, max: number): (text: string) => number {
  return (text) => {
    const match = /^(\d{1,12})(kB|MB|)$/.exec(text.trim());
    const value = Number(match?.[1]) * (UNITS[match?.[2] ?? ""] ?? 1);
    if (match === null || value < min || value > max)
      throw new InvalidArgumentError(`write ${min} to ${max} bytes, as 65536, 64kB or 2MB.`);
    return value;
  };
}

/** An unsigned 64-bit number, kept as text. */
export function systemIdentifier(text: string): string {
  if (!/^\d{1,20}$/.test(text) || BigInt(text) >= 1n << 64n)
    throw new InvalidArgumentError("write a decimal number below 2 to the power of 64.");
  return text;
}
