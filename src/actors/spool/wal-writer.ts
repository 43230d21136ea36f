// One WAL file that is being written, with group commit.
//   E1. Bytes count as durable when they, and every directory entry that leads to them, are synced: not before.
//   E2. Confirmed bytes are never cut or overwritten: bytes that come again are compared with what is stored.
//   E3. A file gets its final name only when all its bytes and its footer are durable.
//   E5. One write is in flight; everything that arrives meanwhile goes into the next one.
import { createHash, type Hash } from "node:crypto";
import { writev } from "node:fs";
import type { FileHandle } from "node:fs/promises";
import type { WalPageCheck } from "../../domain/wal-page.ts";
import { KlioError } from "../../errors.ts";
import { sealFooter } from "../../wire/wal-file.ts";
import {
  ASYNC_COMPRESS_BYTES,
  type FrameSealer,
  MAX_FRAME_RAW_BYTES,
  type Packed,
  pack,
  packSync,
} from "../../wire/wal-file-frame.ts";
import { storeError } from "./classify.ts";

/** Frames that are compressed at the same time: enough to use the pool, few enough to bound memory. */
const MAX_PACKING = 3;

export type WriterState = {
  /** Opened with O_DSYNC; owned by the writer. Undefined: the file is complete, bytes are only compared. */
  handle: FileHandle | undefined;
  sealer: FrameSealer | undefined;
  /** Bytes of the file that are durable. */
  fileBytes: number;
  /** Raw bytes that are durable, and the hash of all of them. */
  rawBytes: number;
  hash: Hash;
  /** Where the sender begins, and the hash of the stored bytes from there on (E2). */
  fromOffset: number;
  digest: Buffer;
  /** Header of a new file: goes out with the first group. */
  header: Buffer | undefined;
  pages: WalPageCheck | undefined;
};

export type WriterOptions = {
  cluster: string;
  name: string;
  segmentBytes: number;
  /** Raw bytes that are durable, after each group. Must not throw. */
  onDurable: (rawBytes: number) => void;
  /** Stored bytes that became durable. */
  onStored: (bytes: number) => void;
  /** Gives the file its final name, for good. */
  finish: () => Promise<void>;
  /** What becomes of a file that was closed unfinished. */
  abandon: () => Promise<void>;
  /** Frees the file for other writers. Called once. */
  release: () => void;
};

type Slot = { packed: Packed | undefined; rawBytes: number };
type Waiter = { isMet: () => boolean; resolve: () => void; reject: (error: KlioError) => void };

export class WalWriter {
  readonly #state: WriterState;
  readonly #options: WriterOptions;
  /** Hash of what came so far of the bytes that are stored already; undefined when they are compared. */
  #compared: Hash | undefined;
  #receivedBytes: number;
  #pending: Uint8Array[] = [];
  #pendingBytes = 0;
  #slots: Slot[] = [];
  #packing = 0;
  /** Sealed pieces that wait for the next write; `#sealedBytes` counts the raw bytes up to their end. */
  #out: Buffer[];
  #sealedBytes: number;
  #isWriting = false;
  #isComplete = false;
  #failure: KlioError | undefined;
  #waiters: Waiter[] = [];
  #closing: Promise<void> | undefined;
  #onIdle: (() => void) | undefined;

  constructor(state: WriterState, options: WriterOptions) {
    this.#state = state;
    this.#options = options;
    this.#receivedBytes = state.fromOffset;
    this.#sealedBytes = state.rawBytes;
    this.#out = state.header === undefined ? [] : [state.header];
    this.#compared = state.fromOffset < state.rawBytes ? createHash("sha256") : undefined;
  }

  get cluster(): string {
    return this.#options.cluster;
  }
  get name(): string {
    return this.#options.name;
  }
  get segmentBytes(): number {
    return this.#options.segmentBytes;
  }
  /** Raw offset that the next block must have. */
  get receivedBytes(): number {
    return this.#receivedBytes;
  }
  /** Raw bytes of the file that are durable; while bytes come again, only those before them. */
  get durableBytes(): number {
    return this.#compared === undefined ? this.#state.rawBytes : this.#state.fromOffset;
  }
  /** Raw bytes that wait for the disk: what a sender must be held back by. */
  get waitingBytes(): number {
    return Math.max(0, this.#receivedBytes - this.#state.rawBytes);
  }
  get isComplete(): boolean {
    return this.#isComplete;
  }

  /**
   * Takes a block; it must not change until it is durable. Throws KLIO-WAL-MISMATCH for a block that does not follow, or
   * does not belong here, and the failure of an earlier write (KLIO-DISK-FULL, KLIO-STORE-IO).
   */
  append(block: Uint8Array, offset: number): void {
    const fresh = this.#check(block, offset);
    if (fresh.length > 0) this.#wait(fresh);
  }

  /** The same for a block of at most a frame that came compressed: `payload` is stored as it is, `block` not kept. */
  appendPacked(block: Uint8Array, offset: number, packed: Packed): void {
    const fresh = this.#check(block, offset);
    if (fresh.length === 0) return;
    if (fresh.length < block.length) {
      this.#wait(Buffer.from(fresh)); // the rest is stored already
      return;
    }
    // What came before it goes into frames of its own.
    while (this.#pendingBytes > 0) {
      const { pieces, bytes } = this.#take(MAX_FRAME_RAW_BYTES);
      this.#slots.push({ packed: packSync(pieces), rawBytes: bytes });
    }
    this.#slots.push({ packed, rawBytes: packed.rawBytes });
    this.#pump();
  }

  /** What of the block is new. */
  #check(block: Uint8Array, offset: number): Uint8Array {
    if (this.#failure !== undefined) throw this.#failure;
    if (this.#closing !== undefined) throw new KlioError("KLIO-BUG", `${this.name} is closed`);
    if (offset !== this.#receivedBytes)
      throw this.#mismatch(`block at offset ${offset}, expected ${this.#receivedBytes}`);
    if (offset + block.length > this.segmentBytes)
      throw this.#mismatch(`${offset + block.length} bytes for a file of ${this.segmentBytes}`);
    const known = Math.min(block.length, Math.max(0, this.#state.rawBytes - offset));
    if (this.#compared !== undefined && block.length > 0) this.#compare(this.#compared, block.subarray(0, known));
    const fresh = block.subarray(known);
    if (fresh.length > 0) this.#state.pages?.check(fresh, offset + known);
    this.#receivedBytes += block.length;
    if (fresh.length > 0) this.#state.hash.update(fresh);
    return fresh;
  }

  #wait(fresh: Uint8Array): void {
    this.#pending.push(fresh);
    this.#pendingBytes += fresh.length;
    this.#pump();
  }

  /** Resolves when all that was appended is durable. Rejects with the failure of a write. */
  async durable(): Promise<{ rawBytes: number }> {
    const upTo = this.#receivedBytes;
    await this.#until(() => this.#state.rawBytes >= upTo);
    return { rawBytes: this.durableBytes };
  }

  /** Resolves when less than `bytes` wait for the disk. Rejects with the failure of a write. */
  async whenBelow(bytes: number): Promise<void> {
    if (this.waitingBytes >= bytes) await this.#until(() => this.waitingBytes < bytes);
  }

  /** All bytes are in: makes them durable, then the file complete (E3). Rejects with the failure of a write. */
  async complete(): Promise<void> {
    if (this.#isComplete) return;
    if (this.#receivedBytes !== this.segmentBytes)
      throw new KlioError("KLIO-BUG", `${this.name} has ${this.#receivedBytes} of ${this.segmentBytes} bytes`);
    await this.durable();
    const { handle, sealer, hash, rawBytes } = this.#state;
    if (handle !== undefined && sealer !== undefined) {
      this.#out.push(...sealFooter(sealer, { rawBytes, sha256: hash.digest() }));
      this.#pump();
      await this.#until(() => this.#out.length === 0 && !this.#isWriting);
      await this.#options.finish().catch((error: unknown) => {
        throw storeError(error, `cannot complete ${this.name}`);
      });
    }
    this.#isComplete = true;
  }

  /** Makes durable what was appended, if that can be, and closes the file. Never rejects. Safe to call twice. */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    try {
      await this.durable();
    } catch {
      // The failure was given to whoever waited for durability; here only the end of the write matters.
    }
    try {
      await this.#idle();
      // Whole frames of a write that failed may lie in memory only: a later opening must not take them for durable (E1).
      if (this.#failure !== undefined) await this.#state.handle?.truncate(this.#state.fileBytes);
    } catch {
      // The next opening looks through the file anyway.
    }
    await this.#state.handle?.close().catch(() => undefined);
    if (!this.#isComplete) await this.#options.abandon().catch(() => undefined);
    this.#options.release();
  }

  #compare(compared: Hash, again: Uint8Array): void {
    compared.update(again);
    if (this.#receivedBytes + again.length < this.#state.rawBytes) return;
    if (!compared.digest().equals(this.#state.digest)) {
      this.#failure = this.#mismatch(`the first ${this.#state.rawBytes} bytes are stored already, and differ`);
      throw this.#failure;
    }
    this.#compared = undefined;
    this.#options.onDurable(this.#state.rawBytes);
  }

  /** Moves bytes one step on, as far as they can go: pending -> packed -> sealed -> written. */
  #pump(): void {
    if (this.#failure !== undefined) return;
    while (this.#pendingBytes > 0) {
      const isLarge = this.#pendingBytes >= ASYNC_COMPRESS_BYTES;
      if (isLarge ? this.#packing >= MAX_PACKING : this.#isWriting || this.#slots.length > 0) break;
      const { pieces, bytes } = this.#take(MAX_FRAME_RAW_BYTES);
      if (isLarge) this.#packInPool(pieces, bytes);
      else this.#slots.push({ packed: packSync(pieces), rawBytes: bytes });
    }
    for (let slot = this.#slots[0]; slot?.packed !== undefined; slot = this.#slots[0]) {
      this.#slots.shift();
      if (this.#state.sealer === undefined) throw new KlioError("KLIO-BUG", `${this.name} cannot be written`);
      const startsWrite = this.#out.length === 0; // E5
      this.#out.push(...this.#state.sealer.seal("data", slot.packed, this.#sealedBytes, startsWrite));
      this.#sealedBytes += slot.rawBytes;
    }
    if (!this.#isWriting && this.#out.length > 0 && this.#sealedBytes > this.#headerOnly()) this.#write();
  }

  /** A header alone is not worth a write: it goes with the first bytes. */
  #headerOnly(): number {
    return this.#state.header !== undefined && this.#state.fileBytes === 0 ? 0 : -1;
  }

  #take(limit: number): { pieces: Uint8Array[]; bytes: number } {
    const pieces: Uint8Array[] = [];
    let bytes = 0;
    while (bytes < limit) {
      const piece = this.#pending[0];
      if (piece === undefined) break;
      const taken = piece.subarray(0, limit - bytes);
      pieces.push(taken);
      bytes += taken.length;
      if (taken.length === piece.length) this.#pending.shift();
      else this.#pending[0] = piece.subarray(taken.length);
    }
    this.#pendingBytes -= bytes;
    return { pieces, bytes };
  }

  #packInPool(pieces: Uint8Array[], bytes: number): void {
    const slot: Slot = { packed: undefined, rawBytes: bytes };
    this.#slots.push(slot);
    this.#packing++;
    pack(pieces).then(
      (packed) => {
        slot.packed = packed;
        this.#packing--;
        this.#pump();
      },
      (error: unknown) => {
        this.#packing--;
        this.#fail(storeError(error, `cannot compress ${this.name}`));
      },
    );
  }

  #write(): void {
    const { handle } = this.#state;
    if (handle === undefined) throw new KlioError("KLIO-BUG", `${this.name} cannot be written`);
    const group = this.#out; // E5
    const rawBytes = this.#sealedBytes;
    const bytes = group.reduce((sum, piece) => sum + piece.length, 0);
    this.#out = [];
    this.#isWriting = true;
    writev(handle.fd, group, this.#state.fileBytes, (error, written) => {
      this.#isWriting = false;
      if (error !== null) return this.#fail(storeError(error, `cannot write ${this.name} of ${this.cluster}`));
      if (written < bytes) return this.#writeRest(group, written, rawBytes);
      this.#written(bytes, rawBytes);
    });
  }

  /** A short write: the disk took a part; trying the rest tells why. */
  #writeRest(group: Buffer[], written: number, rawBytes: number): void {
    const rest = Buffer.concat(group).subarray(written);
    this.#isWriting = true;
    writev(this.#state.handle?.fd ?? -1, [rest], this.#state.fileBytes + written, (error, more) => {
      this.#isWriting = false;
      if (error !== null) return this.#fail(storeError(error, `cannot write ${this.name} of ${this.cluster}`));
      if (more < rest.length) {
        const cause = Object.assign(new Error(`short write of ${more} bytes`), { code: "ENOSPC" });
        return this.#fail(storeError(cause, `cannot write ${this.name} of ${this.cluster}`));
      }
      this.#written(written + more, rawBytes);
    });
  }

  #written(bytes: number, rawBytes: number): void {
    this.#state.fileBytes += bytes;
    this.#state.rawBytes = rawBytes;
    this.#options.onStored(bytes);
    if (this.#compared === undefined) this.#options.onDurable(rawBytes);
    this.#wake();
    this.#pump();
  }

  #fail(error: KlioError): void {
    this.#failure ??= error;
    this.#wake();
  }

  #until(isMet: () => boolean): Promise<void> {
    if (this.#failure !== undefined) return Promise.reject(this.#failure);
    if (isMet()) return Promise.resolve();
    return new Promise((resolve, reject) => this.#waiters.push({ isMet, resolve, reject }));
  }

  #wake(): void {
    if (!this.#isWriting) this.#onIdle?.();
    const waiting = this.#waiters;
    this.#waiters = [];
    for (const waiter of waiting) {
      if (this.#failure !== undefined) waiter.reject(this.#failure);
      else if (waiter.isMet()) waiter.resolve();
      else this.#waiters.push(waiter);
    }
  }

  /** Resolves when no write is under way, failed or not. */
  #idle(): Promise<void> {
    if (!this.#isWriting) return Promise.resolve();
    return new Promise((resolve) => {
      this.#onIdle = resolve;
    });
  }

  #mismatch(reason: string): KlioError {
    return new KlioError("KLIO-WAL-MISMATCH", `${this.name} of ${this.cluster}: ${reason}`);
  }
}
