// Where a repository lies, as arguments and environment of the snapshot program.
import { readdir } from "node:fs/promises";
import type { Peer } from "./classify.ts";

export type SnapshotStorage =
  | { kind: "directory"; path: string }
  | {
      kind: "s3";
      bucket: string;
      region: string;
      /** URL; without one AWS. */
      endpoint?: string;
      /** Key prefix without slashes at its ends; may be empty. */
      prefix: string;
      accessKeyId?: string;
      secretAccessKey?: string;
      sessionToken?: string;
      customCaBundleFile?: string;
    };

export function storagePeer(storage: SnapshotStorage): Peer {
  return storage.kind;
}

export function storageText(storage: SnapshotStorage): string {
  return storage.kind === "directory" ? storage.path : `bucket ${storage.bucket}, prefix "${storage.prefix}"`;
}

/** Arguments behind `repository create|connect`. They hold no secret; the keys are empty, so the environment is asked. */
export function storageArgs(storage: SnapshotStorage): string[] {
  if (storage.kind === "directory") return ["filesystem", `--path=${storage.path}`];
  const endpoint = storage.endpoint === undefined ? undefined : new URL(storage.endpoint);
  return [
    "s3",
    `--bucket=${storage.bucket}`,
    `--region=${storage.region}`,
    ...(storage.prefix === "" ? [] : [`--prefix=${storage.prefix}/`]),
    ...(endpoint === undefined ? [] : [`--endpoint=${endpoint.host}`]),
    ...(endpoint?.protocol === "http:" ? ["--disable-tls"] : []),
    ...(storage.customCaBundleFile === undefined ? [] : [`--root-ca-pem-path=${storage.customCaBundleFile}`]),
    "--access-key=",
    "--secret-access-key=",
  ];
}

/** Credentials of the storage; without static keys the surroundings' own chain decides. */
export function storageEnvironment(storage: SnapshotStorage): Record<string, string> {
  if (storage.kind === "directory" || storage.accessKeyId === undefined || storage.secretAccessKey === undefined)
    return {};
  return {
    AWS_ACCESS_KEY_ID: storage.accessKeyId,
    AWS_SECRET_ACCESS_KEY: storage.secretAccessKey,
    AWS_SESSION_TOKEN: storage.sessionToken ?? "", // another one, of the surroundings, would go with these keys
  };
}

/** What an interrupted creation may leave in a directory before the repository exists, and what file systems put there. */
const HARMLESS = new Set([".shards", "kopia.blobcfg.f", "lost+found"]);

/** The file that makes a directory a repository; written last when one is created. */
const FORMAT_FILE = "kopia.repository.f";

/** What a directory is; `foreign`: a name in it that no repository put there. A directory that does not exist is empty. */
export async function inspectDirectory(
  directory: string,
): Promise<{ kind: "repository" } | { kind: "empty" } | { kind: "other"; foreign: string }> {
  const names = await readdir(directory).catch((error: NodeJS.ErrnoException): string[] => {
    if (error.code === "ENOENT") return [];
    throw error;
  });
  if (names.includes(FORMAT_FILE)) return { kind: "repository" };
  const foreign = names.find((name) => !HARMLESS.has(name) && !name.includes(".tmp."));
  return foreign === undefined ? { kind: "empty" } : { kind: "other", foreign };
}
