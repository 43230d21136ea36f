// The WAL of tier 1 in a directory of its own: what the server writes, serves, hands to tier 2 and removes.
//   E4. Two writers of one file, and two servers of one directory, exclude each other.
// Metadata per cluster is E6 (cluster-metadata.ts), durability E1, E2, E3 and E5 (wal-writer.ts).
import { constants } from "node:fs";
import { type FileHandle, open, rm, rmdir } from "node:fs/promises";
import { basename, dirname } from "node:path";
import type { Report } from "../../domain/facts.ts";
import type { Log } from "../../domain/log.ts";
import type { OpenWal, StoredWal, WalReader } from "../../domain/wal-reader.ts";
import { requireWalName } from "../../domain/wal-segment.ts";
import { KlioError } from "../../errors.ts";
import { decodeWalFile } from "../../wire/wal-file.ts";
import type { MasterKey } from "../../wire/wal-file-header.ts";
import { isMissing, storeError } from "./classify.ts";
import type { ClusterMetadata } from "./cluster-metadata.ts";
import { ClusterRegistry } from "./cluster-registry.ts";
import { type DirectoryLock, lockDirectory } from "./directory-lock.ts";
import { makeDirectory, syncDirectory } from "./durable-file.ts";
import { type ExportedWal, exportWal } from "./export-wal.ts";
import { ChunkBuffers } from "./file-body.ts";
import { openForWriting, type WriteRequest } from "./open-wal-writer.ts";
import { recoverStore } from "./recover-store.ts";
import { clusterDirectory, listClusters, listFiles, segmentsFromLast, walFile } from "./wal-directory.ts";
import { findPosition, type WalPosition } from "./wal-position.ts";
import { readChunks } from "./wal-scan.ts";
import { WalWriter } from "./wal-writer.ts";

export type WalStoreOptions = {
  /** Made when it is missing (its parent must be there). */
  directory: string;
  masterKey: MasterKey;
  log: Log;
  report: Report;
};

const PARTIAL = ".partial";

function stem(name: string): string {
  return name.endsWith(PARTIAL) ? name.slice(0, -PARTIAL.length) : name;
}

/** Every method that touches the disk rejects with KLIO-DISK-FULL or KLIO-STORE-IO when the system refuses. */
export class WalStore implements WalReader {
  readonly tier = "tier1";
  readonly #root: string;
  readonly #chunkBuffers = new ChunkBuffers();
  readonly #master: MasterKey;
  readonly #log: Log;
  readonly #report: Report;
  readonly #lock: DirectoryLock;
  readonly #registry: ClusterRegistry;
  /** Files that are being written or opened for it, by `cluster/name` (E4). */
  readonly #writers = new Map<string, WalWriter | undefined>();

  private constructor(options: WalStoreOptions, lock: DirectoryLock) {
    this.#root = options.directory;
    this.#master = options.masterKey;
    this.#log = options.log;
    this.#report = options.report;
    this.#lock = lock;
    this.#registry = new ClusterRegistry(options.directory, options.masterKey);
  }

  /** Rejects with KLIO-DATA-LOCKED when another server uses the directory. The caller closes the store. */
  static async open(options: WalStoreOptions): Promise<WalStore> {
    const { directory, log } = options;
    try {
      await makeDirectory(directory);
      const lock = await lockDirectory(directory); // E4
      try {
        await recoverStore(directory, options.masterKey, log, lock.isTakenOver);
        return new WalStore(options, lock);
      } catch (error) {
        await lock.release();
        throw error;
      }
    } catch (error) {
      throw storeError(error, `cannot open ${directory}`);
    }
  }

  clusters(): Promise<string[]> {
    return this.#guarded("cannot list clusters", () => listClusters(this.#root));
  }

  list(cluster: string): Promise<StoredWal[]> {
    return this.#guarded(`cannot list ${cluster}`, () => listFiles(this.#root, cluster));
  }

  async open(cluster: string, name: string, signal?: AbortSignal): Promise<OpenWal | undefined> {
    const path = walFile(this.#root, cluster, name);
    return this.#guarded(`cannot read ${name}`, async () => {
      const handle = await this.#openIfThere(path);
      if (handle === undefined) return undefined;
      const master = this.#master;
      const opened = await decodeWalFile(closing(handle), { master, cluster, name, ...(signal && { signal }) });
      if (opened === undefined) await handle.close();
      return opened;
    });
  }

  /** Undefined: no such cluster. Rejects with KLIO-STORE-IO when it cannot be read (E6). */
  metadata(cluster: string): Promise<ClusterMetadata | undefined> {
    return this.#registry.metadata(cluster);
  }

  /** The first contact of a cluster: its name belongs to this system from now on. Rejects with KLIO-SYSTEM-ID. */
  registerCluster(cluster: string, systemId: string): Promise<ClusterMetadata> {
    return this.#guarded(`cannot register ${cluster}`, () =>
      this.#registry.register(cluster, systemId, () => this.#storedSystemId(cluster)),
    );
  }

  /**
   * Accepts that the WAL between what is stored and `next` (a segment name) will never come. Returns the gap. Rejects with
   * KLIO-CLUSTER-UNKNOWN, KLIO-SYSTEM-ID, or KLIO-USAGE when nothing is stored, or `next` does not lie behind it.
   */
  resetStream(cluster: string, systemId: string, next: string): Promise<{ start: string; end: string }> {
    return this.#guarded(`cannot record a gap of ${cluster}`, () =>
      this.#registry.recordGap(cluster, systemId, next, async () => stem((await this.#latest(cluster)) ?? "")),
    );
  }

  /** Where a stream goes on: the file and its durable raw bytes; undefined when nothing is stored and no gap is known. */
  async position(cluster: string): Promise<WalPosition | undefined> {
    const metadata = await this.metadata(cluster);
    const gapEnd =
      metadata?.gaps
        .map((gap) => gap.end)
        .toSorted()
        .at(-1) ?? "";
    const writing = (name: string) => this.#writers.get(`${cluster}/${name}`)?.durableBytes;
    const find = () => findPosition({ root: this.#root, master: this.#master, cluster, gapEnd, writing });
    return this.#guarded(`cannot find the position of ${cluster}`, async () => {
      let found = await find();
      while (found?.full !== undefined) {
        await this.#finish(cluster, found.walName, found.full);
        found = await find();
      }
      return found && { walName: found.walName, resumeOffset: found.resumeOffset };
    });
  }

  /**
   * Opens a file for bytes from `fromOffset` on; a directory, and the name, are made when new. `onDurable`: see
   * WalWriter. Rejects with KLIO-WAL-BUSY when another writer has it, KLIO-WAL-MISMATCH when so many bytes are not
   * stored or the size is another one. The caller closes the writer.
   */
  async openWriter(request: WriteRequest, onDurable: (rawBytes: number) => void = () => undefined): Promise<WalWriter> {
    const { cluster, name, segmentBytes } = request;
    clusterDirectory(this.#root, cluster);
    if (requireWalName(name).kind === "partial")
      throw new KlioError("KLIO-NAME-INVALID", `${name}: a file is sent under its final name`);
    const key = `${cluster}/${name}`;
    if (this.#writers.has(key)) throw new KlioError("KLIO-WAL-BUSY", `${name} of ${cluster} is being written`); // E4
    this.#writers.set(key, undefined);
    const release = () => void this.#writers.delete(key);
    try {
      const frame = { root: this.#root, master: this.#master, log: this.#log };
      const { state, finish, abandon } = await openForWriting(frame, request);
      const onStored = (bytes: number) => this.#report({ type: "wal.durable", cluster, bytes });
      const options = { cluster, name, segmentBytes, onDurable, onStored, finish, abandon, release };
      const writer = new WalWriter(state, options);
      this.#writers.set(key, writer);
      return writer;
    } catch (error) {
      release();
      throw storeError(error, `cannot open ${name} of ${cluster}`);
    }
  }

  /**
   * The file for another tier, its header wrapped by `target`; see ExportedWal. `name` as stored. Undefined when it is not
   * there. Rejects with KLIO-WAL-DAMAGED before anything is handed out.
   */
  exportTo(cluster: string, name: string, target: MasterKey): Promise<ExportedWal | undefined> {
    const path = walFile(this.#root, cluster, name);
    const source = { path, cluster, name: stem(name), complete: !name.endsWith(PARTIAL) };
    return this.#guarded(`cannot read ${name}`, () => exportWal(source, this.#master, target, this.#chunkBuffers));
  }

  /** Removes files (names as stored) for good; those that are being written stay. Returns how many are gone now. */
  async remove(cluster: string, names: readonly string[]): Promise<number> {
    const paths = names
      .filter((name) => !this.#writers.has(`${cluster}/${stem(name)}`))
      .map((name) => walFile(this.#root, cluster, name));
    return this.#guarded(`cannot remove WAL of ${cluster}`, async () => {
      const directories = new Set<string>();
      for (const path of paths) {
        await rm(path, { force: true });
        await rm(`${stem(path)}${PARTIAL}.damaged`, { force: true });
        directories.add(dirname(path));
      }
      for (const directory of directories) await this.#tidy(directory, cluster);
      return paths.length;
    });
  }

  /** Closes all writers, with what they have, and frees the directory. Safe to call twice. */
  async close(): Promise<void> {
    await Promise.all([...this.#writers.values()].map((writer) => writer?.close()));
    await this.#lock.release();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  /** Killed between a file's last byte and its footer: no sender would come for nothing. */
  async #finish(cluster: string, name: string, segmentBytes: number): Promise<void> {
    const writer = await this.openWriter({ cluster, name, segmentBytes, fromOffset: segmentBytes });
    try {
      await writer.complete();
    } finally {
      await writer.close();
    }
  }

  /** Greatest segment as stored. */
  async #latest(cluster: string): Promise<string | undefined> {
    for await (const name of segmentsFromLast(this.#root, cluster)) return name;
    return undefined;
  }

  /** System identifier in the WAL that is stored, when there is any. */
  async #storedSystemId(cluster: string): Promise<Uint8Array | undefined> {
    const name = await this.#latest(cluster);
    if (name === undefined) return undefined;
    await using opened = await this.open(cluster, name);
    for await (const block of opened?.blocks ?? []) return block;
    return undefined;
  }

  /** Makes removals durable; an empty directory goes, too. */
  async #tidy(directory: string, cluster: string): Promise<void> {
    try {
      await syncDirectory(directory);
      if (basename(directory) !== cluster) await rmdir(directory);
    } catch (error) {
      if (isMissing(error)) return;
      if (!(error instanceof Error && "code" in error && (error.code === "ENOTEMPTY" || error.code === "EEXIST")))
        throw error;
    }
  }

  async #openIfThere(path: string): Promise<FileHandle | undefined> {
    try {
      return await open(path, constants.O_RDONLY);
    } catch (error) {
      if (isMissing(error)) return undefined;
      throw error;
    }
  }

  async #guarded<T>(doing: string, work: () => Promise<T>): Promise<T> {
    try {
      return await work();
    } catch (error) {
      throw storeError(error, doing);
    }
  }
}

/** The file's bytes; closes it when they are read or given up. */
async function* closing(handle: FileHandle): AsyncGenerator<Buffer> {
  try {
    yield* readChunks(handle);
  } finally {
    await handle.close();
  }
}
