// A random pass-phrase in an age-encrypted file with its identity, as an operator would make it with `age-keygen`.
import { randomBytes } from "node:crypto";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { Encrypter, generateX25519Identity, identityToRecipient } from "age-encryption";
import type { KeyFiles } from "../config/config.ts";

/** Writes `<name>.age` and `<name>.identity` (0600) into `directory`. */
export async function createKeyFiles(directory: string, name: string): Promise<KeyFiles> {
  mkdirSync(directory, { recursive: true });
  const identity = await generateX25519Identity();
  const encrypter = new Encrypter();
  encrypter.addRecipient(await identityToRecipient(identity));
  const encryptionKeyFile = join(directory, `${name}.age`);
  const identityFile = join(directory, `${name}.identity`);
  writeFileSync(encryptionKeyFile, await encrypter.encrypt(randomBytes(32).toString("base64url")), { mode: 0o600 });
  writeFileSync(identityFile, `${identity}\n`, { mode: 0o600 });
  return { encryptionKeyFile, identityFile };
}
