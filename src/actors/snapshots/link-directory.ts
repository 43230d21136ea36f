// The place of one run: a directory of links to what is backed up. Its path is new for each run, so the snapshot program
// finds no earlier snapshot of it, compares nothing by time and size, and reads every byte.
import { randomBytes } from "node:crypto";
import { mkdir, mkdtemp, rm, symlink } from "node:fs/promises";
import { join } from "node:path";
import type { SnapshotSource } from "../../domain/snapshots.ts";

export type LinkDirectory = {
  path: string;
  /** Links a source and returns the path that names its snapshot. */
  link(source: SnapshotSource): Promise<string>;
  remove(): Promise<void>;
};

/** Name of a source's link; the catalogue reads the oid back from it. */
function linkName({ content, tablespaceOid }: SnapshotSource): string {
  return content === "tablespace" ? `tablespace-${tablespaceOid ?? 0}` : content;
}

export async function makeLinkDirectory(parent: string, backup: string): Promise<LinkDirectory> {
  const root = await mkdtemp(join(parent, "klio-backup-"));
  // mkdtemp's six letters alone could come again in years of backups.
  const path = join(root, `${backup}-${randomBytes(8).toString("hex")}`);
  await mkdir(path, { mode: 0o700 });
  return {
    path,
    async link(source) {
      const link = join(path, linkName(source));
      await symlink(source.path, link);
      return link;
    },
    remove: () => rm(root, { recursive: true, force: true }),
  };
}
