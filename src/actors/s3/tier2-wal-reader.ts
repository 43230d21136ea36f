// The WAL archive of tier 2 as a WalReader: the same files as on tier 1, as objects.
import { clusterRoot, walKey, walNameOf, walRoot } from "../../domain/object-key.ts";
import { unwrap } from "../../domain/outcome.ts";
import type { OpenWal, StoredWal, WalReader } from "../../domain/wal-reader.ts";
import { KlioError } from "../../errors.ts";
import { decodeWalFile } from "../../wire/wal-file.ts";
import type { MasterKey } from "../../wire/wal-file-header.ts";
import { classifyS3 } from "./classify.ts";
import type { ObjectStore, OpenObject } from "./object-store.ts";

export type Tier2Reader = WalReader & {
  readonly tier: "tier2";
  /** Also what lies below the cluster's root and is no WAL file there. */
  listAll(cluster: string, signal?: AbortSignal): Promise<{ files: StoredWal[]; foreign: string[] }>;
};

/** Every method rejects with the KLIO-S3-… code of what the store answered. */
export function openTier2WalReader(options: {
  objects: ObjectStore;
  prefix: string;
  masterKey: MasterKey;
}): Tier2Reader {
  const { objects, prefix, masterKey: master } = options;
  const listAll: Tier2Reader["listAll"] = async (cluster, signal) => {
    const found = unwrap(await objects.list(clusterRoot(prefix, cluster), signal));
    const files: StoredWal[] = [];
    const foreign: string[] = [];
    for (const { key, bytes: storedBytes, mtimeMs } of found) {
      const name = walNameOf(prefix, cluster, key);
      if (name === undefined) foreign.push(key);
      else files.push({ name, storedBytes, mtimeMs });
    }
    return { files: files.toSorted((a, b) => (a.name < b.name ? -1 : 1)), foreign };
  };
  return {
    tier: "tier2",
    async clusters() {
      return unwrap(await objects.folders(walRoot(prefix))).toSorted();
    },
    async list(cluster) {
      return (await listAll(cluster)).files;
    },
    listAll,
    async open(cluster, name, signal): Promise<OpenWal | undefined> {
      const key = walKey(prefix, cluster, name);
      const object = unwrap(await objects.get(key, signal));
      if (object === undefined) return undefined;
      const body = bodyOf(object, key, signal);
      return decodeWalFile(body, { master, cluster, name, ...(signal !== undefined && { signal }) });
    },
  };
}

/** The object's bytes; a connection that breaks is told as such, never as a file that ends early. */
async function* bodyOf({ bytes, body }: OpenObject, key: string, signal?: AbortSignal): AsyncGenerator<Uint8Array> {
  let read = 0;
  try {
    for await (const chunk of body as AsyncIterable<Buffer>) {
      read += chunk.length;
      yield chunk;
    }
  } catch (error) {
    const { code, reason } = classifyS3(error, `reading ${key} broke off after ${read} bytes`, signal);
    throw new KlioError(code, reason, { cause: error });
  } finally {
    body.destroy();
  }
  if (read < bytes) throw new KlioError("KLIO-S3-DOWN", `reading ${key} broke off: ${read} of ${bytes} bytes`);
}
