// A whole WAL file at once, from its raw bytes: for cluster metadata, and for files that are packed anew on their way to
// another tier. The live path writes the same format piece by piece (actors/spool/wal-writer.ts).
import { createHash } from "node:crypto";
import { KlioError } from "../errors.ts";
import { sealFooter } from "./wal-file.ts";
import { FrameSealer, MAX_FRAME_RAW_BYTES, pack, SALT_BYTES } from "./wal-file-frame.ts";
import { encodeHeader, fileKeyOf, type MasterKey, type WalFileIdentity } from "./wal-file-header.ts";

/** Cuts and joins blocks of any size to pieces of `size`; the last one may be shorter. */
async function* regroup(
  blocks: AsyncIterable<Uint8Array> | Iterable<Uint8Array>,
  size: number,
): AsyncGenerator<{ pieces: Uint8Array[]; bytes: number }> {
  let pieces: Uint8Array[] = [];
  let bytes = 0;
  for await (const block of blocks) {
    for (let at = 0; at < block.length; ) {
      const piece = block.subarray(at, at + size - bytes);
      pieces.push(piece);
      bytes += piece.length;
      at += piece.length;
      if (bytes < size) continue;
      yield { pieces, bytes };
      pieces = [];
      bytes = 0;
    }
  }
  if (bytes > 0) yield { pieces, bytes };
}

/**
 * The file's bytes in pieces. `blocks`: raw bytes from the first one; with `complete` they must be all of them, and a
 * footer follows. `random(n)`: n bytes fit for keys.
 */
export async function* encodeWalFile(
  identity: WalFileIdentity,
  master: MasterKey,
  random: (bytes: number) => Buffer,
  blocks: AsyncIterable<Uint8Array> | Iterable<Uint8Array>,
  complete: boolean,
): AsyncGenerator<Buffer> {
  const fileKey = fileKeyOf(identity, random(32));
  yield encodeHeader(identity, fileKey.dataKey, master, random(12));
  const sealer = new FrameSealer(fileKey, random(SALT_BYTES));
  const hash = createHash("sha256");
  let rawBytes = 0;
  for await (const { pieces, bytes } of regroup(blocks, MAX_FRAME_RAW_BYTES)) {
    for (const piece of pieces) hash.update(piece);
    yield* sealer.seal("data", await pack(pieces), rawBytes, false);
    rawBytes += bytes;
  }
  if (!complete) return;
  if (rawBytes !== identity.segmentBytes)
    throw new KlioError("KLIO-BUG", `${identity.name} has ${rawBytes} of ${identity.segmentBytes} bytes`);
  yield* sealFooter(sealer, { rawBytes, sha256: hash.digest() });
}
