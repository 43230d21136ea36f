// The envelope of tier 2's master key, in the bucket.
import { envelopeKey, walRoot } from "../../domain/object-key.ts";
import { unwrap } from "../../domain/outcome.ts";
import { KlioError } from "../../errors.ts";
import { createEnvelope, type MasterKey, openMasterKey } from "../keys/master-key.ts";
import type { ObjectStore } from "./object-store.ts";

type Place = { objects: ObjectStore; prefix: string; passPhrase: string };

/** An envelope is a page of JSON. */
const MAX_ENVELOPE_BYTES = 1 << 20;

/**
 * The master key below this prefix, or undefined when nothing is there yet. Writes nothing. Rejects with KLIO-KEY-MISMATCH,
 * with KLIO-REPOSITORY when WAL is there but no envelope, or with the KLIO-S3-… code of what the store answered.
 */
export async function verifyTier2Key({ objects, prefix, passPhrase }: Place): Promise<MasterKey | undefined> {
  const object = unwrap(await objects.get(envelopeKey(prefix)));
  if (object === undefined) {
    const [first] = unwrap(await objects.folders(walRoot(prefix)));
    if (first === undefined) return undefined;
    throw new KlioError(
      "KLIO-REPOSITORY",
      `${objects.bucket}/${walRoot(prefix)} holds WAL of ${first}, but no repository.config`,
    );
  }
  const parts: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of object.body as AsyncIterable<Buffer>) {
    bytes += chunk.length;
    if (bytes > MAX_ENVELOPE_BYTES) throw new KlioError("KLIO-REPOSITORY", "repository.config of tier 2 is too large");
    parts.push(chunk);
  }
  return openMasterKey(passPhrase, Buffer.concat(parts).toString("utf8"));
}

/** Makes the key of a new archive. When another server was faster, its key is taken. Rejects like `verifyTier2Key`. */
export async function createTier2Key(place: Place): Promise<MasterKey> {
  const { text, masterKey } = await createEnvelope(place.passPhrase);
  const put = await place.objects.put(envelopeKey(place.prefix), Buffer.from(text), { condition: { kind: "absent" } });
  if (unwrap(put).kind === "stored") return masterKey;
  const existing = await verifyTier2Key(place);
  if (existing === undefined) throw new KlioError("KLIO-REPOSITORY", "repository.config of tier 2 came and went");
  return existing;
}
