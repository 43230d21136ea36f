// A store in a directory of its own, with what tests do to it again and again.
import { randomBytes } from "node:crypto";
import { WalStore } from "../../src/actors/spool/wal-store.ts";
import type { Fact } from "../../src/domain/facts.ts";
import type { WalReader } from "../../src/domain/wal-reader.ts";
import { type MasterKey, masterKeyOf } from "../../src/wire/wal-file-header.ts";
import { type TestLog, testLog } from "./test-log.ts";

export const SEGMENT_BYTES = 1 << 20;
export const newMasterKey = (): MasterKey => masterKeyOf(randomBytes(32));

export type TestStore = { store: WalStore; log: TestLog; facts: Fact[]; masterKey: MasterKey };

export async function openStore(directory: string, masterKey = newMasterKey()): Promise<TestStore> {
  const log = testLog();
  const facts: Fact[] = [];
  const store = await WalStore.open({ directory, masterKey, log, report: (fact) => facts.push(fact) });
  return { store, log, facts, masterKey };
}

/** Appends `bytes[from, to)` in blocks of `block` bytes and waits until all is durable. */
export async function append(
  writer: Awaited<ReturnType<WalStore["openWriter"]>>,
  bytes: Uint8Array,
  { from = 0, to = bytes.length, block = 100_000 } = {},
): Promise<void> {
  for (let at = from; at < to; at += block) writer.append(bytes.subarray(at, Math.min(to, at + block)), at);
  await writer.durable();
}

/** Writes a whole file. */
export async function put(store: WalStore, cluster: string, name: string, bytes: Uint8Array): Promise<void> {
  const writer = await store.openWriter({ cluster, name, segmentBytes: bytes.length, fromOffset: 0 });
  try {
    await append(writer, bytes);
    await writer.complete();
  } finally {
    await writer.close();
  }
}

/** The raw bytes of a stored file; undefined when it is not there. */
export async function read(reader: WalReader, cluster: string, name: string): Promise<Buffer | undefined> {
  const opened = await reader.open(cluster, name);
  if (opened === undefined) return undefined;
  const parts: Uint8Array[] = [];
  for await (const part of opened.blocks) parts.push(part);
  return Buffer.concat(parts);
}
