// The checks at the door: does a range of bytes belong where its sender says? PostgreSQL writes at each 8 KiB page of WAL
// its address, its timeline, and at the first page of a segment whose cluster it is.
import { KlioError } from "../errors.ts";
import { formatLsn } from "./lsn.ts";
import { segmentStart, timelineOf } from "./wal-segment.ts";

const PAGE_BYTES = 8192;
const SHORT_HEADER_BYTES = 24;
const LONG_HEADER_BYTES = 40;
const LONG_HEADER_FLAG = 0x0002;
/** XLOG_PAGE_MAGIC by version of PostgreSQL, of those that are supported. */
export const pageMagic = { 15: 0xd110, 16: 0xd113, 17: 0xd116, 18: 0xd118 } as const;
const MAGIC: Readonly<Record<number, string>> = Object.fromEntries(
  Object.entries(pageMagic).map(([version, magic]) => [magic, version]),
);

export type PageCheckOptions = {
  /** Segment name. */
  name: string;
  segmentBytes: number;
  /** Decimal text; absent: not known, any is taken. */
  systemId?: string;
  /** Take a file whose first bytes are no WAL at all unchecked (test data of players). Never with a known system id. */
  allowForeign?: boolean;
};

/** Reads numbers in the byte order of the machine that wrote the page. */
class Header {
  readonly #view: DataView;
  readonly #isLittle: boolean;
  readonly version: string | undefined;
  constructor(bytes: Uint8Array) {
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.#isLittle = MAGIC[this.#view.getUint16(0, true)] !== undefined;
    this.version = MAGIC[this.#view.getUint16(0, this.#isLittle)];
  }
  u16 = (at: number) => this.#view.getUint16(at, this.#isLittle);
  u32 = (at: number) => this.#view.getUint32(at, this.#isLittle);
  u64 = (at: number) => this.#view.getBigUint64(at, this.#isLittle);
}

/** The system identifier in a segment's first bytes (40 at least), decimal; undefined when they are no WAL. */
export function systemIdIn(segment: Uint8Array): string | undefined {
  if (segment.length < LONG_HEADER_BYTES) return undefined;
  const header = new Header(segment.subarray(0, LONG_HEADER_BYTES));
  if (header.version === undefined || (header.u16(2) & LONG_HEADER_FLAG) === 0) return undefined;
  return header.u64(24).toString();
}

/** Follows one segment from its first byte; blocks may be cut anywhere. */
export class WalPageCheck {
  readonly #options: PageCheckOptions;
  readonly #start: bigint;
  readonly #timeline: number;
  /** A page header whose end is in a block to come. */
  #begun: { page: number; bytes: Uint8Array } | undefined;
  #isForeign = false;

  constructor(options: PageCheckOptions) {
    this.#options = options;
    this.#start = segmentStart(options.name, options.segmentBytes);
    this.#timeline = timelineOf(options.name);
  }

  /** `offset`: of the block in the segment; blocks follow each other without gaps. Throws KLIO-WAL-MISMATCH. */
  check(block: Uint8Array, offset: number): void {
    if (this.#isForeign) return;
    if (this.#begun !== undefined) {
      const { page, bytes } = this.#begun;
      const missing = headerBytes(page) - bytes.length;
      const header = join(bytes, block.subarray(0, missing));
      if (block.length < missing) {
        this.#begun = { page, bytes: header };
        return;
      }
      this.#begun = undefined;
      this.#checkHeader(header, page);
      if (this.#isForeign) return;
    }
    const end = offset + block.length;
    for (let page = Math.ceil(offset / PAGE_BYTES) * PAGE_BYTES; page < end; page += PAGE_BYTES) {
      const header = block.subarray(page - offset, page - offset + headerBytes(page));
      if (header.length < headerBytes(page)) this.#begun = { page, bytes: header.slice() };
      else this.#checkHeader(header, page);
      if (this.#isForeign) return;
    }
  }

  #checkHeader(bytes: Uint8Array, page: number): void {
    // Behind a switch to the next segment PostgreSQL sends zeros to the end.
    if (page > 0 && bytes.every((byte) => byte === 0)) return;
    const header = new Header(bytes);
    const { segmentBytes, systemId } = this.#options;
    if (header.version === undefined) {
      if (page === 0 && this.#options.allowForeign === true && systemId === undefined) {
        this.#isForeign = true;
        return;
      }
      throw this.#mismatch(page, "there is no page of WAL of PostgreSQL 15 to 18");
    }
    const address = header.u64(8);
    if (address !== this.#start + BigInt(page)) throw this.#mismatch(page, `the page is ${formatLsn(address)}`);
    // A segment in which a timeline began repeats pages of the older one.
    const timeline = header.u32(4);
    if (timeline === 0 || timeline > this.#timeline) throw this.#mismatch(page, `the page is of timeline ${timeline}`);
    if (page > 0) return;
    if ((header.u16(2) & LONG_HEADER_FLAG) === 0) throw this.#mismatch(page, "the page does not begin a segment");
    if (header.u32(32) !== segmentBytes || header.u32(36) !== PAGE_BYTES)
      throw this.#mismatch(page, `segments have ${header.u32(32)} bytes and pages ${header.u32(36)} there`);
    const found = header.u64(24).toString();
    if (systemId !== undefined && found !== systemId)
      throw this.#mismatch(page, `the page is of system ${found}, the cluster is ${systemId}`);
  }

  #mismatch(page: number, reason: string): KlioError {
    const position = formatLsn(this.#start + BigInt(page));
    return new KlioError("KLIO-WAL-MISMATCH", `${this.#options.name} at ${position}: ${reason}`);
  }
}

function headerBytes(page: number): number {
  return page === 0 ? LONG_HEADER_BYTES : SHORT_HEADER_BYTES;
}

function join(first: Uint8Array, second: Uint8Array): Uint8Array {
  const both = new Uint8Array(first.length + second.length);
  both.set(first);
  both.set(second, first.length);
  return both;
}
