// WAL as PostgreSQL lays it out, as far as the checks at the door look: page headers with random bytes between them.
import { randomBytes } from "node:crypto";
import { pageMagic } from "../../src/domain/wal-page.ts";
import { type PageOptions, stampPages } from "../../src/wire/wal-pages.ts";

export const SYSTEM_ID = "7300000000000000001";

export type WalBytesOptions = Partial<PageOptions> & {
  /** Repeat one byte instead of random ones. */
  fill?: number;
};

/** A whole segment. */
export function walSegment(name: string, segmentBytes: number, options: WalBytesOptions = {}): Buffer {
  const { fill, ...pages } = options;
  const bytes = fill === undefined ? randomBytes(segmentBytes) : Buffer.alloc(segmentBytes, fill);
  stampPages(bytes, name, { systemId: SYSTEM_ID, magic: pageMagic[18], ...pages });
  return bytes;
}
