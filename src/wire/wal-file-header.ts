// The head of a stored WAL file: what it is, and its own data key, wrapped by the tier's master key.
//
//   offset  bytes  field (numbers little-endian)
//        0      8  "KLIOWAL" and the format version (1)
//        8      2  length of the header
//       10     16  id of the master key
//       26      8  size of the complete file in raw bytes
//       34   1 + n cluster name, length first
//            1 + n WAL name, length first (never with .partial)
//            12    nonce of the wrapped data key
//            32    data key, AES-256-GCM, everything before the nonce as additional data
//            16    tag
//
// All but the data key can be read without a key. Another tier gets the file by a new header and the same frames.
import { createCipheriv, createDecipheriv, createHash, createSecretKey, type KeyObject } from "node:crypto";
import { KlioError } from "../errors.ts";

/** The key of a tier. `id` (32 hexadecimal digits) names it without telling anything about it. */
export type MasterKey = { id: string; key: KeyObject };

export type WalFileIdentity = { cluster: string; name: string; segmentBytes: number };
/** A file's own key, and what all its frames are bound to. */
export type FileKey = { dataKey: KeyObject; identity: Buffer };
export type WalFileHeader = WalFileIdentity & { keyId: string; bytes: number };

const MAGIC = Buffer.from("KLIOWAL\x01", "latin1");
const FIXED_BYTES = 34;
const KEY_BYTES = 32;
const NONCE_BYTES = 12;
const TAG_BYTES = 16;
const WRAP_BYTES = NONCE_BYTES + KEY_BYTES + TAG_BYTES;
/** Longest header that can be: both names at their limit of 255 bytes. */
export const MAX_HEADER_BYTES = FIXED_BYTES + 2 * 256 + WRAP_BYTES;
const MIN_HEADER_BYTES = FIXED_BYTES + 2 + WRAP_BYTES;

/** `key`: 32 random bytes, which the caller may wipe afterwards. */
export function masterKeyOf(key: Uint8Array): MasterKey {
  if (key.length !== KEY_BYTES) throw new KlioError("KLIO-BUG", `a master key has 32 bytes, not ${key.length}`);
  const id = createHash("sha256").update("klio wal master key id\0").update(key).digest("hex").slice(0, 32);
  return { id, key: createSecretKey(key) };
}

function shortText(text: string): Buffer {
  const bytes = Buffer.from(text, "utf8");
  if (bytes.length > 255) throw new KlioError("KLIO-NAME-INVALID", `name of ${bytes.length} bytes is too long`);
  return Buffer.concat([Buffer.from([bytes.length]), bytes]);
}

/** What frames are bound to, on every tier: a file cannot take another one's place. */
function identityOf({ cluster, name, segmentBytes }: WalFileIdentity): Buffer {
  const size = Buffer.alloc(8);
  size.writeBigUInt64LE(BigInt(segmentBytes));
  return createHash("sha256")
    .update("klio wal file\0")
    .update(size)
    .update(shortText(cluster))
    .update(shortText(name))
    .digest();
}

export function fileKeyOf(identity: WalFileIdentity, dataKey: Uint8Array): FileKey {
  return { dataKey: createSecretKey(dataKey), identity: identityOf(identity) };
}

/** The header's bytes. `nonce`: 12 random bytes, never used before with this master key. */
export function encodeHeader(identity: WalFileIdentity, dataKey: KeyObject, master: MasterKey, nonce: Buffer): Buffer {
  const names = Buffer.concat([shortText(identity.cluster), shortText(identity.name)]);
  const fixed = Buffer.alloc(FIXED_BYTES);
  MAGIC.copy(fixed);
  fixed.writeUInt16LE(FIXED_BYTES + names.length + WRAP_BYTES, 8);
  fixed.write(master.id, 10, 16, "hex");
  fixed.writeBigUInt64LE(BigInt(identity.segmentBytes), 26);
  const clear = Buffer.concat([fixed, names]);
  const cipher = createCipheriv("aes-256-gcm", master.key, nonce).setAAD(clear);
  const wrapped = Buffer.concat([cipher.update(dataKey.export()), cipher.final()]);
  return Buffer.concat([clear, nonce, wrapped, cipher.getAuthTag()]);
}

function damaged(reason: string): KlioError {
  return new KlioError("KLIO-WAL-DAMAGED", reason);
}

/** The header at the start of `bytes`, or undefined when there are too few of them. Throws KLIO-WAL-DAMAGED. */
export function parseHeader(bytes: Buffer): WalFileHeader | undefined {
  if (bytes.length < 10) return undefined;
  const magic = bytes.subarray(0, 8);
  if (!magic.equals(MAGIC))
    throw magic.subarray(0, 7).equals(MAGIC.subarray(0, 7))
      ? damaged(`format version ${magic[7]} is not known`)
      : damaged("not a WAL file of Klio");
  const length = bytes.readUInt16LE(8);
  if (length < MIN_HEADER_BYTES || length > MAX_HEADER_BYTES) throw damaged(`header of ${length} bytes`);
  if (bytes.length < length) return undefined;
  const segmentBytes = Number(bytes.readBigUInt64LE(26));
  const clusterEnd = FIXED_BYTES + 1 + (bytes[FIXED_BYTES] ?? 0);
  const nameEnd = clusterEnd + 1 + (bytes[clusterEnd] ?? 0);
  if (nameEnd + WRAP_BYTES !== length || !Number.isSafeInteger(segmentBytes)) throw damaged("header does not add up");
  return {
    cluster: bytes.toString("utf8", FIXED_BYTES + 1, clusterEnd),
    name: bytes.toString("utf8", clusterEnd + 1, nameEnd),
    segmentBytes,
    keyId: bytes.toString("hex", 10, 26),
    bytes: length,
  };
}

/**
 * The file's key, from the bytes that `parseHeader` took the header from. Throws KLIO-WAL-DAMAGED for a header that was
 * changed, KLIO-KEY-MISMATCH for one that another master key wrapped.
 */
export function unwrapHeader(header: WalFileHeader, bytes: Buffer, master: MasterKey): FileKey {
  const clearEnd = header.bytes - WRAP_BYTES;
  const nonce = bytes.subarray(clearEnd, clearEnd + NONCE_BYTES);
  const wrapped = bytes.subarray(clearEnd + NONCE_BYTES, clearEnd + NONCE_BYTES + KEY_BYTES);
  const decipher = createDecipheriv("aes-256-gcm", master.key, nonce, { authTagLength: TAG_BYTES })
    .setAAD(bytes.subarray(0, clearEnd))
    .setAuthTag(bytes.subarray(header.bytes - TAG_BYTES, header.bytes));
  try {
    return fileKeyOf(header, Buffer.concat([decipher.update(wrapped), decipher.final()]));
  } catch (cause) {
    if (header.keyId !== master.id)
      throw new KlioError("KLIO-KEY-MISMATCH", `${header.name} was written with key ${header.keyId}`, { cause });
    throw damaged(`the header of ${header.name} was changed`);
  }
}
