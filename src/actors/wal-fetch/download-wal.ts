// One WAL file from a tier into a temporary file, checked and made durable. The caller renames it into place.
//   A file that a server calls whole is taken only when exactly its number of bytes came; the server has compared them with
//   the file's footer by then. An unfinished one is as long as what came, and is padded with zeros to the segment's size.
import { open, rm } from "node:fs/promises";
import { type Failure, failureOf } from "../../domain/outcome.ts";
import type { OpenWal, Tier } from "../../domain/wal-reader.ts";
import { isSegmentSize, requireWalName } from "../../domain/wal-segment.ts";
import { KlioError } from "../../errors.ts";
import type { WalClient } from "../grpc/wal-client.ts";
import { fileError } from "./classify.ts";

export type DownloadOutcome =
  /** `bytes`: as they came, before padding. `segmentBytes`: 0 for a file that is no segment. */
  { kind: "stored"; tier: Tier; bytes: number; segmentBytes: number } | { kind: "missing" } | Failure;

export type DownloadOptions = {
  client: Pick<WalClient, "get" | "address">;
  tier: Tier;
  /** With `.partial` for an unfinished file. */
  name: string;
  /** Path of the temporary file; removed again unless the outcome is "stored". */
  into: string;
  signal?: AbortSignal;
  traceparent?: string;
  /** Gives up when no byte came for so long. Default 20 s. */
  stallMs?: number;
};

const STALL_MS = 20_000;

/** Never rejects but with a bug. Safe to repeat: the temporary file is written anew. */
export async function downloadWal(options: DownloadOptions): Promise<DownloadOutcome> {
  const { client, tier, name, into } = options;
  const stalled = new AbortController();
  const signal = options.signal === undefined ? stalled.signal : AbortSignal.any([options.signal, stalled.signal]);
  const watchdog = setTimeout(() => stalled.abort(), options.stallMs ?? STALL_MS).unref();
  let isStored = false;
  try {
    const trace = options.traceparent === undefined ? {} : { traceparent: options.traceparent };
    const opened = await client.get(name, { signal, reusesBlocks: true, ...trace });
    if (opened.kind !== "ok") throw new KlioError(opened.code, opened.reason);
    await using wal = opened.value;
    if (wal === undefined) return { kind: "missing" };
    const bytes = await writeWal(wal, name, into, () => watchdog.refresh());
    isStored = true;
    const isSegment = requireWalName(name).kind !== "history";
    return { kind: "stored", tier, bytes, segmentBytes: isSegment ? wal.segmentBytes : 0 };
  } catch (error) {
    const known = fileError(error, into);
    if (stalled.signal.aborted && !options.signal?.aborted && known instanceof KlioError)
      return {
        kind: "retryable",
        code: "KLIO-SERVER-DOWN",
        reason: `${client.address} sent nothing of ${name} for ${(options.stallMs ?? STALL_MS) / 1000} s`,
      };
    return failureOf(known);
  } finally {
    clearTimeout(watchdog);
    if (!isStored) await rm(into, { force: true });
  }
}

/** Returns the bytes that came. */
async function writeWal(wal: OpenWal, name: string, into: string, alive: () => void): Promise<number> {
  const { kind } = requireWalName(name);
  const isSegment = kind === "segment" || kind === "partial";
  if (isSegment && !isSegmentSize(wal.segmentBytes))
    throw new KlioError("KLIO-WAL-DAMAGED", `${name} says that a segment has ${wal.segmentBytes} bytes`);
  const file = await open(into, "w", 0o600);
  try {
    let bytes = 0;
    for await (const block of wal.blocks) {
      alive();
      for (let at = 0; at < block.length; ) at += (await file.write(block, at)).bytesWritten;
      bytes += block.length;
    }
    if (bytes > wal.segmentBytes || (kind !== "partial" && bytes !== wal.segmentBytes))
      throw new KlioError("KLIO-WAL-DAMAGED", `${name} has ${bytes} bytes instead of ${wal.segmentBytes}`);
    if (kind === "partial") await file.truncate(wal.segmentBytes);
    await file.sync();
    return bytes;
  } finally {
    await file.close();
  }
}
