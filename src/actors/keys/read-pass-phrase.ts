// The pass-phrase of a tier: age-encrypted in the key file, opened by the identity file.
import { readFile, stat } from "node:fs/promises";
import { armor, Decrypter } from "age-encryption";
import { errorText, KlioError } from "../../errors.ts";

/** Paths. Key file: age, binary or ASCII armor. Identity file: lines of AGE-SECRET-KEY-1…, '#' begins a comment. */
export type KeyFiles = { encryptionKeyFile: string; identityFile: string };

function keyError(reason: string, cause?: unknown): KlioError {
  return new KlioError("KLIO-KEY-FILE", reason, { cause });
}

async function read(path: string): Promise<Buffer> {
  try {
    return await readFile(path);
  } catch (cause) {
    throw keyError(`cannot read ${path}: ${errorText(cause)}`, cause);
  }
}

async function readIdentities(path: string): Promise<string[]> {
  const text = (await read(path)).toString("utf8");
  // The group may read it (volumes are given to a group), others never.
  const { mode } = await stat(path);
  if ((mode & 0o007) !== 0)
    throw keyError(`${path} is open to other users (mode ${(mode & 0o777).toString(8)}); use chmod o-rwx`);
  const lines = text.split("\n").map((line) => line.trim());
  const identities = lines.filter((line) => line !== "" && !line.startsWith("#"));
  if (identities.length === 0) throw keyError(`${path} holds no identity`);
  const foreign = identities.findIndex((line) => !/^AGE-SECRET-KEY-1[0-9A-Z]+$/.test(line));
  if (foreign >= 0) throw keyError(`identity ${foreign + 1} in ${path} is no AGE-SECRET-KEY-1`);
  return identities;
}

/** What is not binary age must be its armor. */
function unarmored(file: Buffer, path: string): Uint8Array {
  if (file.subarray(0, 22).toString("latin1") === "age-encryption.org/v1\n") return file;
  try {
    return armor.decode(file.toString("utf8"));
  } catch (cause) {
    throw keyError(`${path} is not encrypted with age`, cause);
  }
}

/** The pass-phrase, without blanks at its ends. Rejects with KLIO-KEY-FILE; no message tells anything secret. */
export async function readPassPhrase(files: KeyFiles): Promise<string> {
  const identities = await readIdentities(files.identityFile);
  const encrypted = unarmored(await read(files.encryptionKeyFile), files.encryptionKeyFile);
  let text: string;
  try {
    const decrypter = new Decrypter();
    for (const identity of identities) decrypter.addIdentity(identity);
    text = (await decrypter.decrypt(encrypted, "text")).trim();
  } catch {
    // No cause: what a library says about an identity may hold it.
    throw keyError(`no identity in ${files.identityFile} opens ${files.encryptionKeyFile}`);
  }
  if (text === "") throw keyError(`${files.encryptionKeyFile} holds an empty pass-phrase`);
  return text;
}
