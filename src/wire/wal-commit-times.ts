// When the transactions of a WAL segment ended: reads the records of a raw segment and takes the times out of commits and
// aborts, which is what PostgreSQL compares with a target time. Layout as of PostgreSQL 15 to 18 (little endian).
//   X1. Only a record whose last byte was read counts: a recovery would not replay a torn one.
//   X2. Blocks may be cut anywhere; nothing is kept of a record but its first bytes.

const PAGE_BYTES = 8192;
const SHORT_HEADER_BYTES = 24;
const LONG_HEADER_BYTES = 40;
const FIRST_IS_CONTINUED = 0x0001;
const LONG_HEADER = 0x0002;
const RECORD_HEADER_BYTES = 24;
/** Record header, origin, top-level xid, length of the main data and the 8 bytes of a time: all that is looked at. */
const HEAD_BYTES = RECORD_HEADER_BYTES + 3 + 5 + 5 + 8;

const RM_XACT = 1;
const XACT_OPERATION = 0x70;
/** Commit, abort, commit of a prepared transaction, abort of one. */
const ENDS = [0x00, 0x20, 0x30, 0x40];
const BLOCK_ID = { topLevelXid: 0xfc, origin: 0xfd, longData: 0xfe, shortData: 0xff } as const;
/** Microseconds from 1970 to PostgreSQL's epoch, 2000-01-01. */
const EPOCH_US = 946_684_800_000_000;

/** Microseconds since 1970 of the transaction that a record ends, undefined for any other record. */
function endTime(head: Buffer): number | undefined {
  if (head[17] !== RM_XACT || !ENDS.includes((head[16] ?? 0) & XACT_OPERATION)) return undefined;
  for (let at = RECORD_HEADER_BYTES; at < head.length; ) {
    const id = head[at];
    if (id === BLOCK_ID.origin) at += 3;
    else if (id === BLOCK_ID.topLevelXid) at += 5;
    else if (id === BLOCK_ID.shortData || id === BLOCK_ID.longData) {
      const data = at + (id === BLOCK_ID.shortData ? 2 : 5);
      return data + 8 <= head.length ? Number(head.readBigInt64LE(data)) + EPOCH_US : undefined;
    } else return undefined;
  }
  return undefined;
}

export type CommitScan = {
  /** Takes the next bytes of the segment; the first call begins at its first byte. */
  push(block: Uint8Array): void;
  /** Latest end of a transaction so far, microseconds since 1970. */
  readonly latestUs: number | undefined;
};

export function scanCommits(): CommitScan {
  let latestUs: number | undefined;
  /** Position in the segment. */
  let at = 0;
  let hasEnded = false;
  /** Page header being gathered, and how long it is once its first bytes told. */
  const page = Buffer.alloc(LONG_HEADER_BYTES);
  let pageGot = 0;
  let pageBytes = SHORT_HEADER_BYTES;
  /** Record being read: its first bytes, and how many are still to come. */
  const head = Buffer.alloc(HEAD_BYTES);
  let headGot = 0;
  let recordLeft = 0;
  let padding = 0;
  /** The record began in an earlier segment: its first bytes were never seen. */
  let isForeign = false;

  const endPageHeader = () => {
    if (page.readUInt16LE(0) === 0) {
      hasEnded = true; // zeros behind the last record
      return;
    }
    const isContinued = (page.readUInt16LE(2) & FIRST_IS_CONTINUED) !== 0;
    if (isContinued && at === pageBytes) {
      isForeign = true;
      recordLeft = page.readUInt32LE(16);
    } else if (!isContinued) {
      // A record that was torn by a crash is not continued: PostgreSQL went on with another one.
      recordLeft = 0;
      headGot = 0;
    }
  };
  const endRecord = () => {
    const time = isForeign ? undefined : endTime(head.subarray(0, headGot));
    if (time !== undefined && time > (latestUs ?? Number.NEGATIVE_INFINITY)) latestUs = time;
    isForeign = false;
    headGot = 0;
    padding = (8 - (at % 8)) % 8;
  };
  /** Bytes of a record that begins or goes on in `bytes`, up to the end of the page; returns how many were taken. */
  const takeRecord = (bytes: Buffer): number => {
    if (recordLeft === 0) {
      // The total length, four bytes; it never lies across two pages.
      const taken = Math.min(4 - headGot, bytes.length);
      bytes.copy(head, headGot, 0, taken);
      headGot += taken;
      at += taken;
      if (headGot < 4) return taken;
      const total = head.readUInt32LE(0);
      if (total < RECORD_HEADER_BYTES) hasEnded = true;
      else recordLeft = total - 4;
      return taken;
    }
    const taken = Math.min(recordLeft, bytes.length);
    if (!isForeign && headGot < HEAD_BYTES) {
      const kept = Math.min(taken, HEAD_BYTES - headGot);
      bytes.copy(head, headGot, 0, kept);
      headGot += kept;
    }
    recordLeft -= taken;
    at += taken;
    if (recordLeft === 0) endRecord();
    return taken;
  };

  return {
    push(block) {
      let bytes = Buffer.from(block.buffer, block.byteOffset, block.byteLength);
      while (bytes.length > 0 && !hasEnded) {
        const inPage = at % PAGE_BYTES;
        if (inPage < pageBytes) {
          if (inPage === 0) {
            pageGot = 0;
            pageBytes = SHORT_HEADER_BYTES;
          }
          const taken = Math.min(pageBytes - pageGot, bytes.length);
          bytes.copy(page, pageGot, 0, taken);
          pageGot += taken;
          at += taken;
          bytes = bytes.subarray(taken);
          if (pageGot >= 4 && (page.readUInt16LE(2) & LONG_HEADER) !== 0) pageBytes = LONG_HEADER_BYTES;
          if (pageGot === pageBytes) endPageHeader();
          continue;
        }
        const upToPage = bytes.subarray(0, PAGE_BYTES - inPage);
        if (padding > 0) {
          const skipped = Math.min(padding, upToPage.length);
          padding -= skipped;
          at += skipped;
          bytes = bytes.subarray(skipped);
          continue;
        }
        bytes = bytes.subarray(takeRecord(upToPage));
      }
    },
    get latestUs() {
      return latestUs;
    },
  };
}
