import { randomBytes } from "node:crypto";
import { rename, writeFile } from "node:fs/promises";

/** Replaces a file at once; only its owner reads it. */
export async function writePrivateFile(file: string, text: string): Promise<void> {
  const temporary = `${file}.${randomBytes(4).toString("hex")}.tmp`;
  await writeFile(temporary, text, { mode: 0o600, flag: "wx" });
  await rename(temporary, file);
}
