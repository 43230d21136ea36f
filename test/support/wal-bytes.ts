// WAL as PostgreSQL lays it out, as far as the checks at the door look: page headers with random bytes between them.
import { randomBytes } from "node:crypto";
import { segmentStart, timelineOf } from "../../src/domain/wal-segment.ts";

export const SYSTEM_ID = "7300000000000000001";

export type WalBytesOptions = {
  systemId?: string;
  magic?: number;
  /** Pages before this one carry the timeline before. */
  switchedAtPage?: number;
  /** Pages from here on are zeros. */
  zerosFromPage?: number;
  /** Repeat one byte instead of random ones. */
  fill?: number;
  littleEndian?: boolean;
};

/** A whole segment. */
export function walSegment(name: string, segmentBytes: number, options: WalBytesOptions = {}): Buffer {
  const { systemId = SYSTEM_ID, magic = 0xd118, littleEndian = true } = options;
  const start = segmentStart(name, segmentBytes);
  const bytes = options.fill === undefined ? randomBytes(segmentBytes) : Buffer.alloc(segmentBytes, options.fill);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  for (let page = 0; page * 8192 < segmentBytes; page++) {
    const at = page * 8192;
    if (options.zerosFromPage !== undefined && page >= options.zerosFromPage) {
      bytes.fill(0, at);
      break;
    }
    view.setUint16(at, magic, littleEndian);
    view.setUint16(at + 2, page === 0 ? 2 : 0, littleEndian);
    view.setUint32(at + 4, timelineOf(name) - (page < (options.switchedAtPage ?? 0) ? 1 : 0), littleEndian);
    view.setBigUint64(at + 8, start + BigInt(at), littleEndian);
    if (page > 0) continue;
    view.setBigUint64(at + 24, BigInt(systemId), littleEndian);
    view.setUint32(at + 32, segmentBytes, littleEndian);
    view.setUint32(at + 36, 8192, littleEndian);
  }
  return bytes;
}
