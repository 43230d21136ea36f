// Frames of PostgreSQL's streaming replication: a reader that never assembles a WAL message, and the messages we send.
//   A1. The sink sees each byte of WAL once and in order, wherever the socket's chunks are cut.
//   A2. A payload is shown as a view of the chunk, good only during the call: whoever keeps it copies it.
//   A3. A message that cannot be (length, kind) is refused before any of it is kept.
import { KlioError } from "../errors.ts";

/** Fields of an error or a notice: severity, SQLSTATE, message, and what else the server sent (by its field letter). */
export type ServerNotice = { severity: string; code: string; message: string; detail: string; hint: string };

/** `serverEnd`: end of WAL on the server; `sentAtMs`: its clock, milliseconds since 1970. */
type WalHeader = { start: bigint; length: number; serverEnd: bigint; sentAtMs: number };
type Keepalive = { serverEnd: bigint; sentAtMs: number; replyRequested: boolean };

/** What the reader tells. A method that throws ends the reading: the error comes out of `push`. */
export interface FrameSink {
  /** CopyBothResponse: WAL follows. */
  copyStarted(): void;
  /** The next `length` bytes of WAL begin at position `start`; they come through `walBytes`. */
  walHeader(header: WalHeader): void;
  /** `chunk[from, to)` is WAL (A2). */
  walBytes(chunk: Buffer, from: number, to: number): void;
  keepalive(keepalive: Keepalive): void;
  /** The server sends no more WAL of this timeline. */
  copyDone(): void;
  /** A row of a result, columns as text. */
  row(columns: (string | null)[]): void;
  serverError(error: ServerNotice): void;
  serverNotice(notice: ServerNotice): void;
  /** ReadyForQuery: the command is over. */
  ready(): void;
}

const EPOCH_2000_MS = 946_684_800_000;
/** Type and length; with the header of a WAL message; with a keepalive. */
const FRAME_BYTES = 5;
const WAL_HEADER_BYTES = FRAME_BYTES + 25;
const KEEPALIVE_BYTES = FRAME_BYTES + 18;
/** PostgreSQL sends at most 128 KiB of WAL in a message; 1 GiB is its own limit for any. */
const MAX_WAL_BYTES = 1 << 30;
/** Errors, notices and result rows are short. */
const MAX_SMALL_BYTES = 1 << 20;

const letter = (text: string) => text.charCodeAt(0);
const type = {
  copyBoth: letter("W"),
  copyData: letter("d"),
  copyDone: letter("c"),
  rowDescription: letter("T"),
  dataRow: letter("D"),
  commandComplete: letter("C"),
  error: letter("E"),
  notice: letter("N"),
  ready: letter("Z"),
  parameter: letter("S"),
  notification: letter("A"),
} as const;
const known: ReadonlySet<number> = new Set(Object.values(type));
const WAL = letter("w");
const KEEPALIVE = letter("k");

function malformed(reason: string): KlioError {
  return new KlioError("KLIO-SOURCE-DOWN", `the server's replication stream is not understood: ${reason}`);
}

/** Microseconds since 2000 as PostgreSQL counts, to milliseconds since 1970. */
function clockMs(micros: bigint): number {
  return Number(micros / 1000n) + EPOCH_2000_MS;
}

/** Reads what comes over a connection on which START_REPLICATION was sent. Throws KLIO-SOURCE-DOWN (A3), or what the sink threw. */
export class FrameReader {
  readonly #sink: FrameSink;
  #head = Buffer.alloc(256);
  #have = 0;
  #need = FRAME_BYTES;
  /** Bytes of WAL that are still to come of the current message. */
  #payload = 0;

  constructor(sink: FrameSink) {
    this.#sink = sink;
  }

  push(chunk: Buffer): void {
    let at = 0;
    while (at < chunk.length) {
      if (this.#payload > 0) {
        const end = Math.min(chunk.length, at + this.#payload);
        this.#payload -= end - at;
        this.#sink.walBytes(chunk, at, end); // A1
        at = end;
        continue;
      }
      const taken = Math.min(this.#need - this.#have, chunk.length - at);
      chunk.copy(this.#head, this.#have, at, at + taken);
      this.#have += taken;
      at += taken;
      while (this.#have === this.#need && this.#payload === 0) if (this.#step()) break;
    }
  }

  /** Looks at what was gathered: asks for more of it, or ends the message (true). */
  #step(): boolean {
    const head = this.#head;
    const kind = head[0] ?? 0;
    const length = head.readUInt32BE(1);
    if (this.#need === FRAME_BYTES) {
      if (!known.has(kind)) throw malformed(`message of type ${JSON.stringify(String.fromCharCode(kind))}`);
      if (length < 4 || length > (kind === type.copyData ? MAX_WAL_BYTES : MAX_SMALL_BYTES))
        throw malformed(`message ${String.fromCharCode(kind)} of ${length} bytes`);
      if (kind === type.copyData) return this.#more(FRAME_BYTES + 1, length);
      if (length > 4) return this.#more(1 + length, length);
    }
    if (kind === type.copyData) return this.#copyData(length);
    this.#small(kind, head.subarray(FRAME_BYTES, 1 + length));
    return this.#next();
  }

  #more(bytes: number, length: number): boolean {
    if (bytes > 1 + length) throw malformed(`message of ${length} bytes is too short`);
    if (bytes > this.#head.length) {
      const head = Buffer.alloc(bytes);
      this.#head.copy(head, 0, 0, this.#have);
      this.#head = head;
    }
    this.#need = bytes;
    return this.#have < bytes;
  }

  #next(): true {
    this.#have = 0;
    this.#need = FRAME_BYTES;
    return true;
  }

  #copyData(length: number): boolean {
    const head = this.#head;
    const kind = head[FRAME_BYTES];
    if (kind !== WAL && kind !== KEEPALIVE) throw malformed(`replication message of kind ${kind}`);
    const bytes = kind === WAL ? WAL_HEADER_BYTES : KEEPALIVE_BYTES;
    if (this.#have < bytes) return this.#more(bytes, length);
    if (kind === KEEPALIVE) {
      this.#next();
      if (length !== KEEPALIVE_BYTES - 1) throw malformed(`keepalive of ${length} bytes`);
      this.#sink.keepalive({
        serverEnd: head.readBigUInt64BE(6),
        sentAtMs: clockMs(head.readBigInt64BE(14)),
        replyRequested: head[22] === 1,
      });
      return true;
    }
    this.#next();
    this.#payload = 1 + length - WAL_HEADER_BYTES;
    this.#sink.walHeader({
      start: head.readBigUInt64BE(6),
      length: this.#payload,
      serverEnd: head.readBigUInt64BE(14),
      sentAtMs: clockMs(head.readBigInt64BE(22)),
    });
    return true;
  }

  #small(kind: number, body: Buffer): void {
    const sink = this.#sink;
    if (kind === type.copyBoth) sink.copyStarted();
    else if (kind === type.copyDone) sink.copyDone();
    else if (kind === type.dataRow) sink.row(columnsOf(body));
    else if (kind === type.error) sink.serverError(noticeOf(body));
    else if (kind === type.notice) sink.serverNotice(noticeOf(body));
    else if (kind === type.ready) sink.ready();
    // Descriptions, parameters, notifications and command tags say nothing that we need.
  }
}

function columnsOf(body: Buffer): (string | null)[] {
  const columns: (string | null)[] = [];
  const count = body.length < 2 ? 0 : body.readUInt16BE(0);
  let at = 2;
  for (let i = 0; i < count; i++) {
    if (at + 4 > body.length) throw malformed("a row ends early");
    const length = body.readInt32BE(at);
    at += 4;
    if (length > body.length - at) throw malformed("a column passes the end of its row");
    columns.push(length < 0 ? null : body.toString("utf8", at, at + length));
    at += Math.max(0, length);
  }
  return columns;
}

function noticeOf(body: Buffer): ServerNotice {
  const fields = new Map<string, string>();
  for (let at = 0; at < body.length && body[at] !== 0; ) {
    const end = body.indexOf(0, at + 1);
    if (end < 0) break;
    fields.set(String.fromCharCode(body[at] ?? 0), body.toString("utf8", at + 1, end));
    at = end + 1;
  }
  const field = (name: string) => fields.get(name) ?? "";
  return {
    severity: field("V") || field("S"),
    code: field("C"),
    message: field("M"),
    detail: field("D"),
    hint: field("H"),
  };
}

/** Positions of the next byte that is not yet written, flushed, applied. */
export type StandbyStatus = {
  written: bigint;
  flushed: bigint;
  applied: bigint;
  /** Our clock, milliseconds since 1970. */
  nowMs: number;
  /** Asks the server to answer at once. */
  replyRequested: boolean;
};

/** Standby status update, 34 bytes: the content of a CopyData message. */
export function encodeStatus(status: StandbyStatus): Buffer {
  const message = Buffer.allocUnsafe(34);
  message[0] = letter("r");
  message.writeBigUInt64BE(status.written, 1);
  message.writeBigUInt64BE(status.flushed, 9);
  message.writeBigUInt64BE(status.applied, 17);
  message.writeBigInt64BE(BigInt(Math.trunc(status.nowMs) - EPOCH_2000_MS) * 1000n, 25);
  message[33] = status.replyRequested ? 1 : 0;
  return message;
}

/** Slot names have no characters that need quoting; anything else is refused as KLIO-USAGE before it gets into a command. */
export function quoteSlot(slot: string): string {
  if (!/^[a-z0-9_]{1,63}$/.test(slot)) throw new KlioError("KLIO-USAGE", `not a slot name: ${JSON.stringify(slot)}`);
  return `"${slot}"`;
}

/** `position` as "H/H". */
export function startReplication(slot: string, position: string, timeline: number): string {
  return `START_REPLICATION SLOT ${quoteSlot(slot)} PHYSICAL ${position} TIMELINE ${timeline}`;
}
