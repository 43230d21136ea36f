// Connection files of the snapshot program: where a repository is and how it is cached. They hold no password, no keys.
import { readFile } from "node:fs/promises";
import { type Failure, failure } from "../../domain/outcome.ts";
import type { CommandResult } from "../process/run-command.ts";
import { failureOfCommand } from "./classify.ts";
import { type Kopia, runKopia } from "./kopia.ts";
import { writePrivateFile } from "./private-file.ts";
import { REPOSITORY_HOST, REPOSITORY_USER } from "./repository-rules.ts";
import { type SnapshotStorage, storageArgs, storageEnvironment, storagePeer, storageText } from "./storage.ts";

/** Sizes in MB, soft limits. No cache: whoever reads sees the stored bytes, so damage shows. */
type CacheSizes = { contentMB: number; metadataMB: number; directory: string } | "none";

export type DirectConnection = { configFile: string; cache: CacheSizes; readOnly: boolean };

const ABSENT = /repository not initialized in the provided storage/i;

/** Another process may have written since we last looked: a listing is never answered from a cache. */
const NO_LIST_CACHE = "--max-list-cache-duration=0s";

/** Writes the connection file. "absent": there is no repository (for S3 also: no such bucket, or no such key). */
export async function connectDirect(
  kopia: Kopia,
  storage: SnapshotStorage,
  password: string,
  { configFile, cache, readOnly }: DirectConnection,
): Promise<"connected" | "absent" | Failure> {
  const caching =
    cache === "none"
      ? ["--content-cache-size-mb=0", "--metadata-cache-size-mb=0"]
      : [
          `--content-cache-size-mb=${cache.contentMB}`,
          `--metadata-cache-size-mb=${cache.metadataMB}`,
          `--cache-directory=${cache.directory}`,
        ];
  const result = await runKopia(kopia, {
    args: [
      "repository",
      "connect",
      ...storageArgs(storage),
      `--override-username=${REPOSITORY_USER}`,
      `--override-hostname=${REPOSITORY_HOST}`,
      "--no-persist-credentials",
      NO_LIST_CACHE,
      ...caching,
      ...(readOnly ? ["--readonly"] : []),
    ],
    configFile,
    password,
    env: storageEnvironment(storage),
  });
  if (result.code === 0) return (await secretsIn(configFile)) ?? "connected";
  if (ABSENT.test(result.stderr)) return "absent";
  return failureOfCommand(result, storagePeer(storage), `cannot open the repository in ${storageText(storage)}`);
}

/**
 * The same connection in another file beside it (paths in it may be relative): without caches, or unable to write. What the
 * first one proved of storage and pass-phrase holds for it, so the program is not asked again.
 */
export async function narrowConnection(
  from: string,
  { configFile, cache, readOnly }: { configFile: string; cache: "same" | "none"; readOnly: boolean },
): Promise<void> {
  const config = JSON.parse(await readFile(from, "utf8")) as Record<string, unknown>;
  const narrowed = { ...config, ...(cache === "none" && { caching: {} }), ...(readOnly && { readonly: true }) };
  await writePrivateFile(configFile, JSON.stringify(narrowed));
}

/** The program keeps the keys it was given in the file; we give it none, and look that it stays so. */
async function secretsIn(configFile: string): Promise<Failure | undefined> {
  const { storage } = JSON.parse(await readFile(configFile, "utf8")) as {
    storage?: { config?: { accessKeyID?: string; secretAccessKey?: string } };
  };
  if ((storage?.config?.accessKeyID ?? "") === "" && (storage?.config?.secretAccessKey ?? "") === "") return undefined;
  return failure("KLIO-REPOSITORY", `${configFile} holds keys of the object store`);
}

/** Creates an empty repository. Its format is for ever. */
export async function createRepository(
  kopia: Kopia,
  storage: SnapshotStorage,
  password: string,
  configFile: string,
): Promise<Failure | undefined> {
  const result: CommandResult = await runKopia(kopia, {
    args: [
      "repository",
      "create",
      ...storageArgs(storage),
      "--create-only",
      "--object-splitter=FIXED-512K",
      "--block-hash=BLAKE3-256-128",
      "--encryption=AES256-GCM-HMAC-SHA256",
    ],
    configFile,
    password,
    env: storageEnvironment(storage),
  });
  if (result.code === 0) return undefined;
  return failureOfCommand(result, storagePeer(storage), `cannot create a repository in ${storageText(storage)}`);
}
