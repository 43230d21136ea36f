import { open, readdir } from "node:fs/promises";
import { dirname, join } from "node:path";

async function syncPath(path: string): Promise<void> {
  const handle = await open(path, "r");
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

async function syncBelow(directory: string): Promise<void> {
  for (const entry of await readdir(directory, { withFileTypes: true }))
    if (entry.isDirectory()) await syncBelow(join(directory, entry.name));
  await syncPath(directory);
}

/** Makes the entries of every directory of a tree durable, and the tree's own entry. Files are not synced. */
export async function syncDirectories(tree: string): Promise<void> {
  await syncBelow(tree);
  await syncPath(dirname(tree));
}

/** Makes the entry of a file durable. */
export function syncEntry(file: string): Promise<void> {
  return syncPath(dirname(file));
}
