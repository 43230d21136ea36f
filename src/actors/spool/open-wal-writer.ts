// Opening a WAL file for writing: a new one, one that an earlier run left unfinished, or one that is complete already.
import { createHash, randomBytes } from "node:crypto";
import { constants } from "node:fs";
import { copyFile, type FileHandle, open, rm } from "node:fs/promises";
import { dirname, join } from "node:path";
import type { Log } from "../../domain/log.ts";
import { WalPageCheck } from "../../domain/wal-page.ts";
import { requireWalName } from "../../domain/wal-segment.ts";
import { KlioError } from "../../errors.ts";
import { FrameSealer, SALT_BYTES } from "../../wire/wal-file-frame.ts";
import { encodeHeader, fileKeyOf, type MasterKey } from "../../wire/wal-file-header.ts";
import { isMissing } from "./classify.ts";
import { FILE_MODE, makeDirectory, renameDurably, syncDirectory, temporaryFor } from "./durable-file.ts";
import { walFile } from "./wal-directory.ts";
import { type FullScan, scanRaw } from "./wal-scan.ts";
import type { WriterState } from "./wal-writer.ts";

export type WriteRequest = {
  cluster: string;
  /** Without `.partial`. */
  name: string;
  segmentBytes: number;
  /** Raw offset of the first block that will be appended. */
  fromOffset: number;
  /** Of the cluster, when it is known; then every page must be its own. */
  systemId?: string;
  /** Take data that is no WAL for a cluster that is not known. */
  allowForeign?: boolean;
};

/** `finish` gives the file its final name; `abandon` is for a file that was not finished. */
export type OpenedFile = { state: WriterState; finish: () => Promise<void>; abandon: () => Promise<void> };
export type StoreFrame = { root: string; master: MasterKey; log: Log };

const nothingToDo = { finish: () => Promise.resolve(), abandon: () => Promise.resolve() };

const WRITE = constants.O_RDWR | constants.O_DSYNC;
const CREATE = WRITE | constants.O_CREAT | constants.O_EXCL;

/** Where bytes are kept that were found damaged, beside what was whole before them: for a person to look at. */
function asidePath(path: string): string {
  return `${path}.damaged`;
}

function newPages(request: WriteRequest): WalPageCheck | undefined {
  const { name, segmentBytes, systemId, allowForeign } = request;
  if (requireWalName(name).kind !== "segment") return undefined;
  return new WalPageCheck({
    name,
    segmentBytes,
    ...(systemId !== undefined && { systemId }),
    ...(allowForeign !== undefined && { allowForeign }),
  });
}

function requireReached(request: WriteRequest, rawBytes: number): void {
  if (request.fromOffset <= rawBytes) return;
  throw new KlioError(
    "KLIO-WAL-MISMATCH",
    `${request.name} of ${request.cluster}: offset ${request.fromOffset}, but only ${rawBytes} bytes are stored`,
  );
}

async function openIfThere(path: string, flags: number): Promise<FileHandle | undefined> {
  try {
    return await open(path, flags);
  } catch (error) {
    if (isMissing(error)) return undefined;
    throw error;
  }
}

function scan(handle: FileHandle, frame: StoreFrame, request: WriteRequest, pages: WalPageCheck | undefined) {
  return scanRaw(handle, frame.master, request, request.fromOffset, (raw, offset) => pages?.check(raw, offset));
}

function requireSameSize(request: WriteRequest, { header }: FullScan): void {
  if (header === undefined || header.segmentBytes === request.segmentBytes) return;
  throw new KlioError(
    "KLIO-WAL-MISMATCH",
    `${request.name} of ${request.cluster} has ${header.segmentBytes} bytes, not ${request.segmentBytes}`,
  );
}

/** A file that is complete takes no bytes; those that come are compared with it. Undefined when it is damaged. */
async function openComplete(
  handle: FileHandle,
  frame: StoreFrame,
  request: WriteRequest,
): Promise<OpenedFile | undefined> {
  try {
    const found = await scan(handle, frame, request, undefined);
    requireSameSize(request, found);
    if (found.damage !== undefined || found.footer === undefined) {
      frame.log.error("wal.damaged", `${request.name} is damaged; it is replaced when it comes again whole`, {
        cluster: request.cluster,
        reason: found.damage?.message ?? "it has no footer",
      });
      return undefined;
    }
    requireReached(request, found.rawBytes);
    return { state: stateOf(undefined, undefined, found, request, undefined), ...nothingToDo };
  } finally {
    await handle.close();
  }
}

function stateOf(
  handle: FileHandle | undefined,
  sealer: FrameSealer | undefined,
  found: FullScan,
  request: WriteRequest,
  pages: WalPageCheck | undefined,
): WriterState {
  const { wholeBytes: fileBytes, rawBytes, hash, digest } = found;
  const { fromOffset } = request;
  return { handle, sealer, fileBytes, rawBytes, hash, digest, fromOffset, header: undefined, pages };
}

/** An unfinished file: cut behind its last whole frame, then written on. Undefined when it holds nothing. */
async function openPartial(
  handle: FileHandle,
  path: string,
  frame: StoreFrame,
  request: WriteRequest,
): Promise<{ found: FullScan; pages: WalPageCheck | undefined } | undefined> {
  const pages = newPages(request);
  const found = await scan(handle, frame, request, pages);
  requireSameSize(request, found);
  const { damage, wholeBytes, fileBytes, rawBytes } = found;
  if (damage !== undefined) {
    // Never without a copy: what is behind the damage may be good, and was confirmed once.
    await copyFile(path, asidePath(path));
    await syncDirectory(dirname(path));
    frame.log.error("wal.damaged", `${request.name} is damaged behind byte ${rawBytes}; it is asked for again`, {
      cluster: request.cluster,
      reason: damage.message,
      keptAs: asidePath(path),
    });
  }
  if (wholeBytes < fileBytes) {
    await handle.truncate(wholeBytes); // E2: behind the last whole frame nothing was confirmed
    frame.log.info("wal.torn", `${request.name}: ${fileBytes - wholeBytes} bytes of a torn write were cut`, {
      cluster: request.cluster,
      rawBytes,
    });
  }
  await handle.sync(); // what a killed process wrote may not be on disk yet (E1)
  return found.header === undefined ? undefined : { found, pages };
}

function newState(handle: FileHandle, frame: StoreFrame, request: WriteRequest): WriterState {
  const { cluster, name, segmentBytes } = request;
  requireReached(request, 0);
  const identity = { cluster, name, segmentBytes };
  const fileKey = fileKeyOf(identity, randomBytes(32));
  return {
    handle,
    sealer: new FrameSealer(fileKey, randomBytes(SALT_BYTES)),
    fileBytes: 0,
    rawBytes: 0,
    hash: createHash("sha256"),
    fromOffset: 0,
    digest: Buffer.alloc(0),
    header: encodeHeader(identity, fileKey.dataKey, frame.master, randomBytes(12)),
    pages: newPages(request),
  };
}

async function makeDirectories(path: string, root: string, cluster: string): Promise<void> {
  await makeDirectory(join(root, cluster));
  if (dirname(path) !== join(root, cluster)) await makeDirectory(dirname(path));
}

/** For a file that is there: whoever made it may have failed before its entry was durable. */
async function makeEntryDurable(path: string, root: string, cluster: string): Promise<void> {
  await makeDirectories(path, root, cluster);
  await syncDirectory(dirname(path));
}

/** Creates the file with all directories above it, every entry durable. */
async function createFile(path: string, root: string, cluster: string): Promise<FileHandle> {
  for (let attempt = 1; ; attempt++) {
    await makeDirectories(path, root, cluster);
    try {
      const handle = await open(path, CREATE, FILE_MODE);
      await syncDirectory(dirname(path));
      return handle;
    } catch (error) {
      // Retention may have removed the empty directory meanwhile.
      if (!isMissing(error) || attempt === 3) throw error;
    }
  }
}

/**
 * Opens the file for bytes from `fromOffset` on. The caller holds its lock, and closes `state.handle`. Rejects with
 * KLIO-WAL-MISMATCH (offset not reached, other size), KLIO-KEY-MISMATCH, KLIO-NAME-INVALID and system errors.
 */
export async function openForWriting(frame: StoreFrame, request: WriteRequest): Promise<OpenedFile> {
  const { cluster, name } = request;
  const final = walFile(frame.root, cluster, name);
  const partial = `${final}.partial`;
  const complete = await openIfThere(final, constants.O_RDONLY);
  let writeTo = partial;
  if (complete !== undefined) {
    const opened = await openComplete(complete, frame, request);
    // An earlier attempt may have failed between the final name and its durability.
    await syncDirectory(dirname(final));
    if (opened !== undefined) return opened;
    writeTo = temporaryFor(final);
  }
  const existing = await openIfThere(writeTo, WRITE);
  if (existing !== undefined) await makeEntryDurable(writeTo, frame.root, cluster);
  const handle = existing ?? (await createFile(writeTo, frame.root, cluster));
  const finish = async () => {
    await renameDurably(writeTo, final);
    await rm(asidePath(partial), { force: true });
  };
  // An unfinished file stays to be written on, but not one that was to replace a damaged one.
  const abandon = () => (writeTo === partial ? Promise.resolve() : rm(writeTo, { force: true }));
  try {
    const { size } = await handle.stat();
    const opened = size === 0 ? undefined : await openPartial(handle, writeTo, frame, request);
    if (opened === undefined) return { state: newState(handle, frame, request), finish, abandon };
    const { found, pages } = opened;
    requireReached(request, found.rawBytes);
    if (found.fileKey === undefined) throw new KlioError("KLIO-BUG", `${name} has a header and no key`);
    if (found.footer !== undefined) {
      // Killed between footer and rename.
      await finish();
      await handle.close();
      return { state: stateOf(undefined, undefined, found, request, undefined), ...nothingToDo };
    }
    const sealer = new FrameSealer(found.fileKey, randomBytes(SALT_BYTES));
    return { state: stateOf(handle, sealer, found, request, pages), finish, abandon };
  } catch (error) {
    await handle.close();
    throw error;
  }
}
