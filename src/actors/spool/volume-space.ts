// How much room a volume has.
import { statfs } from "node:fs/promises";
import { failure, type Outcome, ok } from "../../domain/outcome.ts";
import { errorText } from "../../errors.ts";

/** `freeBytes`: what a process without privileges can still write. */
export type VolumeSpace = { freeBytes: number; totalBytes: number };

/** Of the volume that a path is on; a retryable KLIO-STORE-IO when the system does not tell. */
export async function volumeSpace(path: string): Promise<Outcome<VolumeSpace>> {
  try {
    const { bavail, blocks, bsize } = await statfs(path);
    return ok({ freeBytes: bavail * bsize, totalBytes: blocks * bsize });
  } catch (error) {
    return failure("KLIO-STORE-IO", `no free space is told for ${path}: ${errorText(error)}`);
  }
}
