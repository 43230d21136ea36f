// What a killed run left behind: temporary files, files that were whole but had not got their final name, and writes of which
// a power loss let only some sectors through.
//   E7. Whoever reads an unfinished file gets all that was confirmed, whatever became of the write behind it, and also when
//       nobody goes on writing. What was confirmed and is damaged is never cut.
import { type FileHandle, open, rm } from "node:fs/promises";
import { basename, join } from "node:path";
import type { Log } from "../../domain/log.ts";
import { KlioError } from "../../errors.ts";
import { FRAME_HEAD_BYTES, holdsWriteStart, parseFrameHead, SALT_BYTES } from "../../wire/wal-file-frame.ts";
import type { MasterKey } from "../../wire/wal-file-header.ts";
import { isTemporary, renameDurably, syncDirectory } from "./durable-file.ts";
import { walkDirectories } from "./wal-directory.ts";
import { readChunks, scanFrames } from "./wal-scan.ts";

const PARTIAL = /^[0-9A-Fa-f]{8}[0-9A-Fa-f.a-z]*\.partial$/;
/** Length of a footer frame, with a salt when it is the first frame of its opening. */
const FOOTER_BYTES = FRAME_HEAD_BYTES + 40 + 16;

type Partial = { path: string; cluster: string; name: string };

/**
 * `isAfterCrash`: the last run did not end by itself. Rejects with KLIO-KEY-MISMATCH or system errors; damaged files are
 * left for whoever opens them.
 */
export async function recoverStore(root: string, master: MasterKey, log: Log, isAfterCrash: boolean): Promise<void> {
  let removed = 0;
  for await (const { directory, files } of walkDirectories(root)) {
    // The last run may have ended between a new name and its durability: nothing is told of it before.
    if (isAfterCrash) await syncDirectory(directory);
    for (const file of files) {
      const path = join(directory, file);
      if (isTemporary(file)) {
        await rm(path, { force: true });
        removed++;
      } else if (directory !== root && PARTIAL.test(file)) {
        const [cluster = ""] = path
          .slice(root.length)
          .split("/")
          .filter((part) => part !== "");
        await recoverPartial({ path, cluster, name: basename(path, ".partial") }, master, log, isAfterCrash);
      }
    }
  }
  if (removed > 0) log.info("wal.cleaned", `removed ${removed} temporary files of an earlier run`, { removed });
}

async function recoverPartial(partial: Partial, master: MasterKey, log: Log, isAfterCrash: boolean): Promise<void> {
  const handle = await open(partial.path, "r+");
  try {
    const isFinished = (await endsWithFooter(handle)) && (await finishIfWhole(handle, partial, master, log));
    if (isAfterCrash && !isFinished) await cutTornWrite(handle, partial, master, log);
  } finally {
    await handle.close();
  }
}

/** Killed between the footer and the final name. False: it is not whole. */
async function finishIfWhole(handle: FileHandle, partial: Partial, master: MasterKey, log: Log): Promise<boolean> {
  const { path, cluster, name } = partial;
  const { footer, damage } = await scanFrames(handle, master, partial);
  if (footer === undefined || damage !== undefined) return false;
  await handle.sync();
  await renameDurably(path, path.slice(0, -".partial".length));
  log.info("wal.finished", `${name} was whole and has its final name now`, { cluster });
  return true;
}

/** The last write may have holes, with sectors behind them that are whole. It was not confirmed: E7. */
async function cutTornWrite(handle: FileHandle, partial: Partial, master: MasterKey, log: Log): Promise<void> {
  const { cluster, name } = partial;
  const found = await scanFrames(handle, master, partial).catch(leaveForeign);
  if (found?.damage === undefined) return;
  const { wholeBytes, fileBytes, rawBytes } = found;
  if (await isWrittenOn(handle, wholeBytes, fileBytes)) return;
  await handle.truncate(wholeBytes);
  await handle.sync();
  log.info("wal.torn", `${name}: ${fileBytes - wholeBytes} bytes of a torn write were cut`, { cluster, rawBytes });
}

/** A file under another key is for whoever opens it, like a damaged one. */
function leaveForeign(error: unknown): undefined {
  if (!(error instanceof KlioError) || error.code !== "KLIO-KEY-MISMATCH") throw error;
}

/** Was anything written after the frame at `from` was durable? Then it is damaged, not torn. */
async function isWrittenOn(handle: FileHandle, from: number, to: number): Promise<boolean> {
  let rest: Buffer = Buffer.alloc(0);
  for await (const chunk of readChunks(handle, from + 1, to)) {
    const bytes = Buffer.concat([rest, chunk]);
    if (holdsWriteStart(bytes)) return true;
    rest = bytes.subarray(-(FRAME_HEAD_BYTES - 1));
  }
  return false;
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
