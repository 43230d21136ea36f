// Page headers of WAL as PostgreSQL writes them, put onto bytes of any content: what makes a file look like a segment to
// every check of domain/wal-page.ts.
import { segmentStart, timelineOf } from "../domain/wal-segment.ts";

const PAGE_BYTES = 8192;
const LONG_HEADER_FLAG = 0x0002;

export type PageOptions = {
  /** Decimal. */
  systemId: string;
  /** One of `pageMagic`. */
  magic: number;
  /** Pages before this one carry the timeline before; default 0. */
  switchedAtPage?: number;
  /** Pages from here on are made of zeros. */
  zerosFromPage?: number;
  /** Byte order of the machine that writes; default true. */
  littleEndian?: boolean;
};

/** Writes the header of each page of segment `name` into `bytes`, a whole segment (a multiple of 8192 bytes). */
export function stampPages(bytes: Uint8Array, name: string, options: PageOptions): void {
  const { systemId, magic, switchedAtPage = 0, zerosFromPage, littleEndian = true } = options;
  const start = segmentStart(name, bytes.length);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  for (let page = 0; page * PAGE_BYTES < bytes.length; page++) {
    const at = page * PAGE_BYTES;
    if (zerosFromPage !== undefined && page >= zerosFromPage) {
      bytes.fill(0, at);
      return;
    }
    view.setUint16(at, magic, littleEndian);
    view.setUint16(at + 2, page === 0 ? LONG_HEADER_FLAG : 0, littleEndian);
    view.setUint32(at + 4, timelineOf(name) - (page < switchedAtPage ? 1 : 0), littleEndian);
    view.setBigUint64(at + 8, start + BigInt(at), littleEndian);
    view.setBigUint64(at + 16, 0n, littleEndian); // no record goes on from the page before, and the padding
    if (page > 0) continue;
    view.setBigUint64(at + 24, BigInt(systemId), littleEndian);
    view.setUint32(at + 32, bytes.length, littleEndian);
    view.setUint32(at + 36, PAGE_BYTES, littleEndian);
  }
}
