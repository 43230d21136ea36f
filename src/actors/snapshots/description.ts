// What a snapshot says of itself: one line of JSON in its description, which survives the copy to another repository (tags
// and pins do not). The metadata of a backup fit in, compressed, so that a listing needs no further reads.
import { deflateRawSync, inflateRawSync } from "node:zlib";
import { formatBackupMetadata, parseBackupMetadata } from "../../domain/backup-metadata.ts";
import type { SnapshotDescription } from "../../domain/snapshot-catalogue.ts";
import type { SnapshotContent } from "../../domain/snapshots.ts";

/** The snapshot program accepts 1024 characters. */
export const DESCRIPTION_LIMIT = 1000;
/** A description that unfolds to more is not ours. */
const METADATA_LIMIT_BYTES = 1 << 20;

const contents: Readonly<Record<string, SnapshotContent>> = {
  tablespace: "tablespace",
  pgdata: "pgdata",
  controldata: "controldata",
  metadata: "metadata",
  tombstone: "tombstone",
};

/** Metadata that do not fit are left out: they are then read from the snapshot itself. */
export function formatDescription({ metadata, ...rest }: SnapshotDescription): string {
  const short = JSON.stringify({ klio: 1, ...rest });
  if (metadata === undefined) return short;
  const packed = deflateRawSync(formatBackupMetadata(metadata)).toString("base64url");
  const full = JSON.stringify({ klio: 1, ...rest, metadata: packed });
  return full.length <= DESCRIPTION_LIMIT ? full : short;
}

/** undefined for a description that is not ours. */
export function parseDescription(text: string): SnapshotDescription | undefined {
  if (!text.startsWith("{")) return undefined;
  let value: Record<string, unknown>;
  try {
    value = JSON.parse(text) as Record<string, unknown>;
  } catch {
    return undefined; // somebody else's
  }
  const { klio, backup, host, of, metadata } = value;
  const content = contents[String(value.content)];
  if (klio !== 1 || typeof backup !== "string" || content === undefined) return undefined;
  return {
    backup,
    content,
    host: typeof host === "string" ? host : "",
    ...(typeof of === "string" && { of }),
    ...(typeof metadata === "string" && unpack(metadata)),
  };
}

/** A cluster's user writes its descriptions: metadata that cannot be read are none, and no listing fails for them. */
function unpack(packed: string): Pick<SnapshotDescription, "metadata"> {
  try {
    const bytes = inflateRawSync(Buffer.from(packed, "base64url"), { maxOutputLength: METADATA_LIMIT_BYTES });
    return { metadata: parseBackupMetadata(bytes.toString("utf8")) };
  } catch {
    return {}; // whoever needs them reads them from the snapshot, and is told
  }
}
