// The IO of one walIngest: blocks from a call into the store. `Put` and `Stream` differ only in what they answer.
import { requireClusterName } from "../../domain/cluster-name.ts";
import type { Report } from "../../domain/facts.ts";
import { type Failure, failureOf } from "../../domain/outcome.ts";
import { systemIdIn, WalPageCheck } from "../../domain/wal-page.ts";
import { isSegmentSize, MAX_SEGMENT_BYTES, requireWalName } from "../../domain/wal-segment.ts";
import { errorText, KlioError } from "../../errors.ts";
import type { ReceiveOutcome, SealOutcome } from "../../machines/wal-ingest.machine.ts";
import { decodePut, type PutMessage } from "../../wire/wal-message.ts";
import { zstdUnpack } from "../../wire/zstd.ts";
import type { WalStore } from "../spool/wal-store.ts";
import type { WalWriter } from "../spool/wal-writer.ts";
import type { Inbox } from "./inbox.ts";

/** A sender is held back when so much of its file waits for the disk, until it is less than the half. */
const WAITING_LIMIT_BYTES = 8 << 20;
/** History and backup label files are small; a sender must not fill a disk through them. */
const MAX_TEXT_BYTES = 16 << 20;

export type IntakeOptions = {
  store: WalStore;
  inbox: Inbox<Buffer>;
  first: PutMessage;
  /** `Stream` says where each block belongs; `Put` begins at the first byte, and may carry data that is no WAL. */
  method: "Put" | "Stream";
  report: Report;
  /** Raw bytes of the file that are durable; may repeat. */
  onDurable: (rawBytes: number) => void;
};

/** Throws KLIO-NAME-INVALID or KLIO-USAGE for a message that cannot begin a file. */
export function requireFirst(message: PutMessage): PutMessage {
  requireClusterName(message.cluster);
  const { kind } = requireWalName(message.walName);
  if (kind === "partial")
    throw new KlioError("KLIO-NAME-INVALID", `${message.walName}: a file is sent under its final name`);
  const limit = kind === "segment" ? MAX_SEGMENT_BYTES : MAX_TEXT_BYTES;
  if (message.segmentBytes < 1 || message.segmentBytes > limit)
    throw new KlioError("KLIO-USAGE", `segment_size of ${message.walName} is ${message.segmentBytes}`);
  return message;
}

/**
 * The raw bytes of a block, which for a compressed one are good until the next block of any stream is unpacked. Throws
 * KLIO-USAGE for a block that does not give what it says.
 */
function unpackBlock({ walName, block, packedFrom: rawBytes }: PutMessage): Buffer {
  if (rawBytes === undefined) return block;
  // What comes is stored as it is, and a frame is never longer than what it holds.
  if (block.length >= rawBytes)
    throw new KlioError("KLIO-USAGE", `${walName}: a block of ${block.length} bytes for ${rawBytes} raw ones`);
  try {
    return zstdUnpack(block, rawBytes);
  } catch (cause) {
    throw new KlioError("KLIO-USAGE", `${walName}: ${errorText(cause)}`, { cause });
  }
}

export class WalIntake {
  readonly #options: IntakeOptions;
  #writer: WalWriter | undefined;
  #message: PutMessage;
  /** Where the next block belongs. */
  #offset: number;

  constructor(options: IntakeOptions) {
    this.#options = options;
    this.#message = options.first;
    this.#offset = options.method === "Stream" ? options.first.offset : 0;
  }

  get method(): "Put" | "Stream" {
    return this.#options.method;
  }
  /** Raw bytes that came, those before the first offset included. */
  get receivedBytes(): number {
    return this.#offset;
  }

  /** Takes blocks until the file is whole, the sender ends or hangs up, or `signal` says stop. Never rejects but for bugs. */
  async receive(signal: AbortSignal): Promise<ReceiveOutcome> {
    const { inbox } = this.#options;
    const stop = () => inbox.stop();
    signal.addEventListener("abort", stop, { once: true });
    try {
      this.#writer = await this.#open();
      this.#take(this.#message);
      while (!this.#isWhole() && !signal.aborted) {
        const next = await inbox.next();
        if (next.kind !== "message") break;
        this.#take(decodePut(next.message));
        if (this.#writer.waitingBytes > WAITING_LIMIT_BYTES) await this.#writer.whenBelow(WAITING_LIMIT_BYTES / 2);
      }
      return await this.drain();
    } catch (error) {
      return { ...failureOf(error), ...(await this.#remains()) };
    } finally {
      signal.removeEventListener("abort", stop);
    }
  }

  /** Makes durable what has come. Never rejects but for bugs. */
  async drain(): Promise<ReceiveOutcome> {
    try {
      await this.#writer?.durable();
      const remains = await this.#remains();
      return { kind: "ok", isWhole: this.#isWhole(), ...remains };
    } catch (error) {
      return { ...failureOf(error), ...(await this.#remains()) };
    }
  }

  async seal(): Promise<SealOutcome> {
    try {
      await this.#writer?.complete();
      return { kind: "ok" };
    } catch (error) {
      return failureOf(error);
    }
  }

  /** Ends the writing; what is durable stays. Never rejects. */
  async close(): Promise<void> {
    await this.#writer?.close();
  }

  /** After the file is whole: only empty messages may follow. Undefined, or what was wrong. */
  async end(): Promise<Failure | undefined> {
    try {
      for (;;) {
        const next = await this.#options.inbox.next();
        if (next.kind !== "message") return undefined;
        const { block, walName } = decodePut(next.message);
        if (block.length > 0)
          throw new KlioError("KLIO-WAL-MISMATCH", `${walName}: ${block.length} bytes behind the end of the file`);
      }
    } catch (error) {
      return failureOf(error);
    }
  }

  async #open(): Promise<WalWriter> {
    const { store, first, method, onDurable } = this.#options;
    const { cluster, walName: name, segmentBytes } = first;
    const isSegment = requireWalName(name).kind === "segment";
    const isPossible = !isSegment || isSegmentSize(segmentBytes);
    const systemId = isSegment && (isPossible || method === "Put") ? await this.#systemId() : undefined;
    const allowForeign = method === "Put" && systemId === undefined;
    if (!allowForeign && !isPossible)
      throw new KlioError("KLIO-USAGE", `segment_size of ${name} is ${segmentBytes}, no size of PostgreSQL's`);
    return store.openWriter(
      {
        cluster,
        name,
        segmentBytes,
        fromOffset: this.#offset,
        allowForeign,
        ...(systemId !== undefined && { systemId }),
      },
      onDurable,
    );
  }

  /** Of the cluster. A cluster that is not known becomes so by the first page of its first segment. */
  async #systemId(): Promise<string | undefined> {
    const { store, first } = this.#options;
    const known = await store.metadata(first.cluster);
    if (known !== undefined) return known.systemId;
    const found = this.#offset === 0 ? systemIdIn(unpackBlock(first)) : undefined;
    // A range that does not belong here must not give the name away.
    if (found !== undefined)
      new WalPageCheck({ name: first.walName, segmentBytes: first.segmentBytes }).check(unpackBlock(first), 0);
    return found === undefined ? undefined : (await store.registerCluster(first.cluster, found)).systemId;
  }

  #take(message: PutMessage): void {
    const { first, method, report } = this.#options;
    for (const field of ["cluster", "walName", "segmentBytes"] as const)
      if (message[field] !== first[field])
        throw new KlioError("KLIO-USAGE", `${field} changed: expected ${first[field]}, found ${message[field]}`);
    this.#message = message;
    const offset = method === "Stream" ? message.offset : this.#offset;
    const raw = unpackBlock(message);
    if (raw.length === 0) return;
    if (message.packedFrom === undefined) this.#writer?.append(raw, offset);
    else this.#writer?.appendPacked(raw, offset, { codec: "zstd", payload: message.block, rawBytes: raw.length });
    this.#offset = offset + raw.length;
    report({ type: "wal.received", cluster: first.cluster, bytes: raw.length });
  }

  #isWhole(): boolean {
    return this.#offset === this.#options.first.segmentBytes && this.#writer !== undefined;
  }

  /** What of the file is durable, after letting a write that is under way end. */
  async #remains(): Promise<{ rawBytes: number; sendToTier2: boolean }> {
    const { sendToTier2 } = this.#message;
    try {
      await this.#writer?.durable();
    } catch (error) {
      if (!(error instanceof KlioError)) throw new KlioError("KLIO-BUG", errorText(error), { cause: error });
    }
    return { rawBytes: this.#writer?.durableBytes ?? 0, sendToTier2 };
  }
}
