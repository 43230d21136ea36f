// Is the data directory that PostgreSQL names here, readable, and the one of that PostgreSQL?
import { constants } from "node:fs";
import { access, open } from "node:fs/promises";
import { endianness } from "node:os";
import { join } from "node:path";
import { failure, type Outcome, ok } from "../../domain/outcome.ts";
import { errorText } from "../../errors.ts";

/** The control file begins with the system identifier, an unsigned 64-bit integer in the byte order of the machine. */
async function systemIdIn(dataDirectory: string): Promise<string> {
  const file = await open(join(dataDirectory, "global", "pg_control"));
  try {
    const { buffer, bytesRead } = await file.read(Buffer.alloc(8), 0, 8, 0);
    if (bytesRead < 8) return "nothing";
    return (endianness() === "LE" ? buffer.readBigUInt64LE() : buffer.readBigUInt64BE()).toString();
  } finally {
    await file.close();
  }
}

/** Fails with KLIO-BACKUP-FAILED. Never rejects. */
export async function checkDataDirectory(dataDirectory: string, systemId: string): Promise<Outcome<null>> {
  try {
    await access(dataDirectory, constants.R_OK | constants.X_OK);
    const found = await systemIdIn(dataDirectory);
    if (found === systemId) return ok(null);
    return failure(
      "KLIO-BACKUP-FAILED",
      `${dataDirectory} is of database system ${found}, PostgreSQL is ${systemId}: the backup must run where the files of that PostgreSQL are`,
    );
  } catch (error) {
    return failure(
      "KLIO-BACKUP-FAILED",
      `cannot read the data directory ${dataDirectory}: ${errorText(error)}; the backup must run where the files of PostgreSQL are, as a user who may read them`,
    );
  }
}
