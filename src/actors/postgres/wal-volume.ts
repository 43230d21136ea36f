// The volume of pg_wal, where this process shares it with PostgreSQL.
import { open } from "node:fs/promises";
import { endianness } from "node:os";
import { join } from "node:path";
import { volumeSpace } from "../spool/volume-space.ts";

/** The control file begins with the system identifier, an unsigned 64-bit integer in the byte order of the machine. */
export async function systemIdIn(dataDirectory: string): Promise<string> {
  await using file = await open(join(dataDirectory, "global", "pg_control"));
  const { buffer, bytesRead } = await file.read(Buffer.alloc(8), 0, 8, 0);
  if (bytesRead < 8) return "nothing";
  return (endianness() === "LE" ? buffer.readBigUInt64LE() : buffer.readBigUInt64BE()).toString();
}

/**
 * Free bytes of the volume of pg_wal; null when the data directory is not here: on another host, not readable, or that of
 * another database system. Never rejects.
 */
export async function freeWalVolumeBytes(dataDirectory: string, systemId: string): Promise<number | null> {
  if (dataDirectory === "") return null;
  try {
    if ((await systemIdIn(dataDirectory)) !== systemId) return null;
    const space = await volumeSpace(join(dataDirectory, "pg_wal"));
    return space.kind === "ok" ? space.value.freeBytes : null;
  } catch {
    return null; // whatever is in the way, what cannot be seen is not known
  }
}
