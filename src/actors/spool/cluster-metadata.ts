// What is kept about a cluster beside its WAL: whose it is, and where its WAL has gaps on purpose.
//   E6. Metadata that is there but cannot be read is an error, never an unknown cluster: else another cluster could take
//       the name, and its WAL be mixed in.

import { randomBytes } from "node:crypto";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { buffer } from "node:stream/consumers";
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { timestampFromMs, timestampMs } from "@bufbuild/protobuf/wkt";
import { errorText, KlioError } from "../../errors.ts";
import { ClusterMetadataSchema } from "../../proto/generated/klio/wal/v1/wal_pb.ts";
import { decodeWalFile } from "../../wire/wal-file.ts";
import { encodeWalFile } from "../../wire/wal-file-encode.ts";
import type { MasterKey } from "../../wire/wal-file-header.ts";
import { isMissing, storeError } from "./classify.ts";
import { replaceFile } from "./durable-file.ts";

/** The WAL from `start` to before `end` (segment names) is missing, and may be. */
export type WalGap = { atMs: number; start: string; end: string };
export type ClusterMetadata = { systemId: string; gaps: WalGap[] };

/** Stored as a WAL file of this name. */
const NAME = "metadata";

function unreadable(cluster: string, cause: unknown): KlioError {
  return new KlioError("KLIO-STORE-IO", `metadata of ${cluster} cannot be read: ${errorText(cause)}`, {
    cause,
    hint: "restore the cluster's metadata file from a copy of the volume; nothing is accepted for this cluster until then",
  });
}

/** Undefined: no such cluster. Rejects with KLIO-STORE-IO. */
export async function readMetadata(
  clusterDirectory: string,
  cluster: string,
  master: MasterKey,
): Promise<ClusterMetadata | undefined> {
  let file: Buffer;
  try {
    file = await readFile(join(clusterDirectory, NAME));
  } catch (error) {
    if (isMissing(error)) return undefined;
    throw unreadable(cluster, error);
  }
  try {
    const opened = await decodeWalFile(asSource(file), { master, cluster, name: NAME });
    if (opened === undefined) throw new KlioError("KLIO-WAL-DAMAGED", "the file is empty"); // E6
    const { systemId, gaps } = fromBinary(ClusterMetadataSchema, await buffer(opened.blocks));
    return {
      systemId,
      gaps: gaps.map(({ ts, start, end }) => ({ atMs: ts === undefined ? 0 : timestampMs(ts), start, end })),
    };
  } catch (error) {
    throw unreadable(cluster, error);
  }
}

async function* asSource(file: Buffer): AsyncGenerator<Buffer> {
  yield file;
}

/** Replaces the metadata for good, all or nothing. Rejects with KLIO-DISK-FULL or KLIO-STORE-IO. */
export async function writeMetadata(
  clusterDirectory: string,
  cluster: string,
  master: MasterKey,
  { systemId, gaps }: ClusterMetadata,
): Promise<void> {
  const message = create(ClusterMetadataSchema, {
    systemId,
    gaps: gaps.map(({ atMs, start, end }) => ({ ts: timestampFromMs(atMs), start, end })),
  });
  const raw = toBinary(ClusterMetadataSchema, message);
  if (raw.length === 0) throw new KlioError("KLIO-BUG", `metadata of ${cluster} is empty`);
  const identity = { cluster, name: NAME, segmentBytes: raw.length };
  const pieces: Buffer[] = [];
  for await (const piece of encodeWalFile(identity, master, randomBytes, [raw], true)) pieces.push(piece);
  try {
    await replaceFile(join(clusterDirectory, NAME), Buffer.concat(pieces));
  } catch (error) {
    throw storeError(error, `cannot write metadata of ${cluster}`);
  }
}
