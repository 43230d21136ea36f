// Is the data directory that PostgreSQL names here, readable, and the one of that PostgreSQL?
import { constants } from "node:fs";
import { access } from "node:fs/promises";
import { failure, type Outcome, ok } from "../../domain/outcome.ts";
import { errorText } from "../../errors.ts";
import { systemIdIn } from "../postgres/wal-volume.ts";

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
