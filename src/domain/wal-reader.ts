// Reading stored WAL, the same for every tier: what is there, and the raw bytes of a file.

export type Tier = "tier1" | "tier2";

/** `name` as stored: a file that is not complete carries `.partial`. `storedBytes`: after compression and encryption. */
export type StoredWal = { name: string; storedBytes: number; mtimeMs: number };

/**
 * A file that is being read. `segmentBytes`: its size when complete. `complete`: it is (its end is checked when the
 * blocks have been read). `blocks`: raw bytes from offset 0 in pieces of at most 1 MiB; throws KLIO-WAL-DAMAGED for
 * anything that is not exactly what was stored, KLIO-CANCELLED on abort; leaving the loop closes the file. Read once.
 * Whoever opens it disposes of it: while it is not read it holds a file or a connection.
 */
export type OpenWal = AsyncDisposable & {
  segmentBytes: number;
  complete: boolean;
  blocks: AsyncIterable<Uint8Array>;
  /** The same file without being unpacked, where it is read as it is stored; to be read instead of `blocks`. */
  stored?: StoredBlocks;
};

/**
 * Payloads as they are stored, authenticated and in their order: with `packedFrom` each is one zstd frame of so many raw
 * bytes. Whoever unpacks them compares the whole with `sha256`, which a complete file has when its last block was read.
 */
type StoredBlocks = {
  blocks: AsyncIterable<{ bytes: Uint8Array; packedFrom?: number }>;
  sha256(): Uint8Array | undefined;
};

export interface WalReader {
  readonly tier: Tier;
  /** Names of all clusters that have a directory, sorted. */
  clusters(): Promise<string[]>;
  /** All WAL files of a cluster, sorted by name; empty for an unknown one. */
  list(cluster: string): Promise<StoredWal[]>;
  /**
   * Opens `name` exactly as asked for: a complete file is never substituted by its `.partial`. Undefined when it is not
   * there (a file without a readable header that was never confirmed counts as not there).
   */
  open(cluster: string, name: string, signal?: AbortSignal): Promise<OpenWal | undefined>;
}
