// What a killed run left behind: temporary files, and files that were whole but had not got their final name.
import { type FileHandle, open, rm } from "node:fs/promises";
import { basename, join } from "node:path";
import type { Log } from "../../domain/log.ts";
import { FRAME_HEAD_BYTES, parseFrameHead, SALT_BYTES } from "../../wire/wal-file-frame.ts";
import type { MasterKey } from "../../wire/wal-file-header.ts";
import { isTemporary, renameDurably } from "./durable-file.ts";
import { walkDirectories } from "./wal-directory.ts";
import { scanFrames } from "./wal-scan.ts";

const PARTIAL = /^[0-9A-Fa-f]{8}[0-9A-Fa-f.a-z]*\.partial$/;
/** Length of a footer frame, with a salt when it is the first frame of its opening. */
const FOOTER_BYTES = FRAME_HEAD_BYTES + 40 + 16;

/** Rejects with KLIO-KEY-MISMATCH or system errors; damaged files are left for whoever opens them. */
export async function recoverStore(root: string, master: MasterKey, log: Log): Promise<void> {
  let removed = 0;
  for await (const { directory, files } of walkDirectories(root))
    for (const file of files) {
      const path = join(directory, file);
      if (isTemporary(file)) {
        await rm(path, { force: true });
        removed++;
      } else if (directory !== root && PARTIAL.test(file)) await finishIfWhole(path, root, master, log);
    }
  if (removed > 0) log.info("wal.cleaned", `removed ${removed} temporary files of an earlier run`, { removed });
}

/** Killed between the footer and the final name. */
async function finishIfWhole(path: string, root: string, master: MasterKey, log: Log): Promise<void> {
  const handle = await open(path, "r+");
  try {
    if (!(await endsWithFooter(handle))) return;
    const name = basename(path).slice(0, -".partial".length);
    const cluster =
      path
        .slice(root.length)
        .split("/")
        .find((part) => part !== "") ?? "";
    const { footer, damage } = await scanFrames(handle, master, { cluster, name });
    if (footer === undefined || damage !== undefined) return;
    await handle.sync();
    await renameDurably(path, path.slice(0, -".partial".length));
    log.info("wal.finished", `${name} was whole and has its final name now`, { cluster });
  } finally {
    await handle.close();
  }
}

/** A cheap look, so that opening a store does not read every unfinished file. */
async function endsWithFooter(handle: FileHandle): Promise<boolean> {
  const { size } = await handle.stat();
  for (const length of [FOOTER_BYTES, FOOTER_BYTES + SALT_BYTES]) {
    if (size < length) continue;
    const { buffer } = await handle.read(Buffer.alloc(FRAME_HEAD_BYTES), 0, FRAME_HEAD_BYTES, size - length);
    const head = parseFrameHead(buffer);
    if (head?.kind === "footer" && head.bytes === length) return true;
  }
  return false;
}
