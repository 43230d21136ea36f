// The master key of a tier in its envelope: a JSON document that keeps it encrypted under the pass-phrase. The key is
// random and stays; the pass-phrase stays, too; only the age wrapping of the pass-phrase can be changed.
import { createCipheriv, createDecipheriv, pbkdf2, randomBytes } from "node:crypto";
import { promisify } from "node:util";
import { KlioError } from "../../errors.ts";
import { type MasterKey, masterKeyOf } from "../../wire/wal-file-header.ts";

export type { MasterKey } from "../../wire/wal-file-header.ts";

const KIND = "KlioRepositoryConfig";
const API_VERSION = "v1";
const ITERATIONS = 600_000;
/** A document that asks for more would only keep a start busy. */
const MAX_ITERATIONS = 20_000_000;
const SALT_BYTES = 128;
const KEY_BYTES = 32;
const NONCE_BYTES = 12;
const TAG_BYTES = 16;

/** Byte fields in hexadecimal digits; `cipherText` ends with the tag. */
type Entry = { nonce: Buffer; cipherText: Buffer; salt: Buffer; iterations: number };

const stretch = promisify(pbkdf2);

function invalid(reason: string): KlioError {
  return new KlioError("KLIO-REPOSITORY", `repository.config is damaged: ${reason}`);
}

function parseEntry(value: unknown): Entry {
  const bytes = (key: string): Buffer => {
    const text: unknown = typeof value === "object" && value !== null ? Reflect.get(value, key) : undefined;
    if (typeof text !== "string" || !/^(?:[0-9a-fA-F]{2})+$/.test(text)) throw invalid(`${key} is not hexadecimal`);
    return Buffer.from(text, "hex");
  };
  const entry = { nonce: bytes("nonce"), cipherText: bytes("cipherText"), salt: bytes("salt") };
  const iterations: unknown = Reflect.get(value as object, "iterations");
  if (typeof iterations !== "number" || !Number.isInteger(iterations) || iterations < 1 || iterations > MAX_ITERATIONS)
    throw invalid(`iterations is ${JSON.stringify(iterations)}`);
  if (entry.nonce.length !== NONCE_BYTES || entry.cipherText.length !== KEY_BYTES + TAG_BYTES)
    throw invalid("an encrypted key has another length");
  return { ...entry, iterations };
}

function parseEnvelope(text: string): Entry[] {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw invalid("it is not JSON");
  }
  if (typeof value !== "object" || value === null) throw invalid("it is no object");
  const kind: unknown = Reflect.get(value, "kind");
  const version: unknown = Reflect.get(value, "apiVersion");
  if (kind !== KIND || version !== API_VERSION) throw invalid(`it is a ${String(kind)} of version ${String(version)}`);
  const entries: unknown = Reflect.get(value, "encryptionKeys");
  if (!Array.isArray(entries) || entries.length === 0) throw invalid("it holds no key");
  return entries.map(parseEntry);
}

/**
 * The master key, from the first entry that the pass-phrase opens. Rejects with KLIO-KEY-MISMATCH when it opens none,
 * KLIO-REPOSITORY when the document is damaged.
 */
export async function openMasterKey(passPhrase: string, envelopeText: string): Promise<MasterKey> {
  const entries = parseEnvelope(envelopeText);
  for (const { nonce, cipherText, salt, iterations } of entries) {
    const key = await stretch(passPhrase, salt, iterations, KEY_BYTES, "sha256");
    const decipher = createDecipheriv("aes-256-gcm", key, nonce, { authTagLength: TAG_BYTES });
    decipher.setAuthTag(cipherText.subarray(KEY_BYTES));
    const opened = decipher.update(cipherText.subarray(0, KEY_BYTES));
    try {
      decipher.final();
    } catch {
      continue; // another pass-phrase's entry
    }
    const master = masterKeyOf(opened);
    opened.fill(0);
    return master;
  }
  throw new KlioError(
    "KLIO-KEY-MISMATCH",
    `the pass-phrase opens none of the ${entries.length} keys of this repository`,
  );
}

/** A new random master key and the text of its envelope. */
export async function createEnvelope(passPhrase: string): Promise<{ text: string; masterKey: MasterKey }> {
  const raw = randomBytes(KEY_BYTES);
  const salt = randomBytes(SALT_BYTES);
  const nonce = randomBytes(NONCE_BYTES);
  const key = await stretch(passPhrase, salt, ITERATIONS, KEY_BYTES, "sha256");
  const cipher = createCipheriv("aes-256-gcm", key, nonce);
  const cipherText = Buffer.concat([cipher.update(raw), cipher.final(), cipher.getAuthTag()]);
  const hex = (bytes: Buffer) => bytes.toString("hex");
  const entry = { nonce: hex(nonce), cipherText: hex(cipherText), salt: hex(salt), iterations: ITERATIONS };
  const text = `${JSON.stringify({ kind: KIND, apiVersion: API_VERSION, encryptionKeys: [entry] }, null, 2)}\n`;
  const masterKey = masterKeyOf(raw);
  raw.fill(0);
  return { text, masterKey };
}
