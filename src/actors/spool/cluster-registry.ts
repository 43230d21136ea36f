// Which cluster a name belongs to: metadata read, written and changed one change at a time.
import { systemIdIn } from "../../domain/wal-page.ts";
import { KlioError } from "../../errors.ts";
import type { MasterKey } from "../../wire/wal-file-header.ts";
import { type ClusterMetadata, readMetadata, type WalGap, writeMetadata } from "./cluster-metadata.ts";
import { makeDirectory, syncDirectory } from "./durable-file.ts";
import { clusterDirectory } from "./wal-directory.ts";

export class ClusterRegistry {
  readonly #root: string;
  readonly #master: MasterKey;
  /** Last change of each cluster. */
  readonly #changes = new Map<string, Promise<unknown>>();

  constructor(root: string, master: MasterKey) {
    this.#root = root;
    this.#master = master;
  }

  async metadata(cluster: string): Promise<ClusterMetadata | undefined> {
    return readMetadata(clusterDirectory(this.#root, cluster), cluster, this.#master);
  }

  /** `firstPage`: first bytes of WAL that is stored already, if any: it must be of the same system. */
  register(
    cluster: string,
    systemId: string,
    firstPage: () => Promise<Uint8Array | undefined>,
  ): Promise<ClusterMetadata> {
    requireSystemId(systemId);
    return this.#change(cluster, async () => {
      const directory = clusterDirectory(this.#root, cluster);
      const known = await this.metadata(cluster);
      if (known !== undefined) {
        requireSame(cluster, known, systemId);
        // Whoever wrote it may have failed before its entry was durable.
        await makeDirectory(directory);
        await syncDirectory(directory);
        return known;
      }
      const page = await firstPage();
      const stored = page === undefined ? undefined : systemIdIn(page);
      if (stored !== undefined) requireSame(cluster, { systemId: stored, gaps: [] }, systemId);
      const metadata = { systemId, gaps: [] };
      await makeDirectory(directory);
      await writeMetadata(directory, cluster, this.#master, metadata);
      return metadata;
    });
  }

  recordGap(cluster: string, systemId: string, next: string, latest: () => Promise<string>): Promise<WalGap> {
    return this.#change(cluster, async () => {
      const known = await this.metadata(cluster);
      if (known === undefined) throw new KlioError("KLIO-CLUSTER-UNKNOWN", `no WAL of ${cluster} was ever sent`);
      requireSame(cluster, known, systemId);
      const start = await latest();
      if (start === "") throw new KlioError("KLIO-USAGE", `no WAL of ${cluster} is stored, so there is no gap`);
      if (next <= start)
        throw new KlioError("KLIO-USAGE", `${next} does not lie behind ${start}, the last WAL of ${cluster}`);
      const gap = { atMs: Date.now(), start, end: next };
      const metadata = { ...known, gaps: [...known.gaps, gap] };
      await writeMetadata(clusterDirectory(this.#root, cluster), cluster, this.#master, metadata);
      return gap;
    });
  }

  #change<T>(cluster: string, work: () => Promise<T>): Promise<T> {
    const before = this.#changes.get(cluster) ?? Promise.resolve();
    const change = before.then(work, work);
    this.#changes.set(cluster, change);
    const forget = () => {
      if (this.#changes.get(cluster) === change) this.#changes.delete(cluster);
    };
    change.then(forget, forget);
    return change;
  }
}

function requireSystemId(systemId: string): void {
  if (!/^[0-9]{1,20}$/.test(systemId))
    throw new KlioError("KLIO-USAGE", `not a system identifier: ${JSON.stringify(systemId)}`);
}

function requireSame(cluster: string, known: ClusterMetadata, systemId: string): ClusterMetadata {
  if (known.systemId === systemId) return known;
  throw new KlioError("KLIO-SYSTEM-ID", `${cluster} is system ${known.systemId}, the caller is ${systemId}`);
}
