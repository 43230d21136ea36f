// The envelope of a directory's master key: `repository.config`.
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { KlioError } from "../../errors.ts";
import { isMissing, storeError } from "../spool/classify.ts";
import { replaceFile } from "../spool/durable-file.ts";
import { createEnvelope, type MasterKey, openMasterKey } from "./master-key.ts";

export const ENVELOPE_NAME = "repository.config";

/**
 * The master key of the WAL directory, or undefined when there is no repository yet (the directory is missing or empty).
 * Writes nothing. Rejects with KLIO-KEY-MISMATCH, or KLIO-REPOSITORY when files are there but no envelope.
 */
export async function verifyRepositoryKey(directory: string, passPhrase: string): Promise<MasterKey | undefined> {
  const path = join(directory, ENVELOPE_NAME);
  let text: string;
  try {
    text = await readFile(path, "utf8");
  } catch (error) {
    if (!isMissing(error)) throw storeError(error, `cannot read ${path}`);
    const found = await entriesOf(directory);
    if (found.length > 0)
      throw new KlioError("KLIO-REPOSITORY", `${directory} holds ${found[0]}, but no ${ENVELOPE_NAME}`);
    return undefined;
  }
  return openMasterKey(passPhrase, text);
}

/** What a new volume may hold is not counted. */
async function entriesOf(directory: string): Promise<string[]> {
  try {
    return (await readdir(directory)).filter((name) => !name.startsWith(".") && name !== "lost+found");
  } catch (error) {
    if (isMissing(error)) return [];
    throw storeError(error, `cannot read ${directory}`);
  }
}

/** Makes the key of a new repository and writes its envelope (0600) for good. The directory must be there. */
export async function createRepositoryKey(directory: string, passPhrase: string): Promise<MasterKey> {
  const { text, masterKey } = await createEnvelope(passPhrase);
  await replaceFile(join(directory, ENVELOPE_NAME), Buffer.from(text));
  return masterKey;
}
