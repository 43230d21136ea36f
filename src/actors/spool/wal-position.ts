// Where a stream goes on after everything that is stored.
import { constants } from "node:fs";
import { type FileHandle, open } from "node:fs/promises";
import { nextSegment } from "../../domain/wal-segment.ts";
import { KlioError } from "../../errors.ts";
import { MAX_HEADER_BYTES, type MasterKey, parseHeader } from "../../wire/wal-file-header.ts";
import { isMissing } from "./classify.ts";
import { segmentsFromLast, walFile } from "./wal-directory.ts";
import { scanFrames } from "./wal-scan.ts";

/** `walName` without `.partial`; `resumeOffset`: its raw bytes that are durable. */
export type WalPosition = { walName: string; resumeOffset: number };
/** `full`: size of a file that has all its bytes and wants only its footer and final name; nobody writes it. */
export type FoundPosition = WalPosition & { full?: number };

export type PositionQuestion = {
  root: string;
  master: MasterKey;
  cluster: string;
  /** Greatest end of a recorded gap; empty: none. */
  gapEnd: string;
  /** Durable raw bytes of a file that is being written now. */
  writing: (name: string) => number | undefined;
};

const PARTIAL = ".partial";

/**
 * Where a stream goes on so that no byte is missing behind it: at the first segment that is unfinished or not there, among
 * the last ones of the last timeline (a sender has several under way, and they do not end in their order); else behind the
 * last one, which may be recycled on the primary already. Never before the end of a recorded gap. Undefined when there is
 * nothing. Rejects with KLIO-WAL-DAMAGED when the size of a segment cannot be told.
 */
export async function findPosition(question: PositionQuestion): Promise<FoundPosition | undefined> {
  const stored = await afterLast(question);
  if (stored !== undefined && stored.walName >= question.gapEnd) return stored;
  return question.gapEnd === "" ? undefined : { walName: question.gapEnd, resumeOffset: 0 };
}

/** How far before the last segment an unfinished one is looked for: more than a sender ever has under way. */
const LOOK_BACK = 64;

type Stored = { name: string; isComplete: boolean };

async function afterLast(question: PositionQuestion): Promise<FoundPosition | undefined> {
  const stored = await lastSegments(question);
  const open = await firstOpen(question, stored);
  if (open !== undefined) return open;
  for (const { name, isComplete } of stored) {
    const found = (await behindComplete(question, name)) ?? (isComplete ? undefined : await partialEnd(question, name));
    if (found !== undefined) return found;
  }
  return undefined;
}

/** The last one first. */
async function lastSegments(question: PositionQuestion): Promise<Stored[]> {
  const stored: Stored[] = [];
  for await (const file of segmentsFromLast(question.root, question.cluster)) {
    const name = file.slice(0, 24);
    const isComplete = !file.endsWith(PARTIAL);
    const known = stored.at(-1);
    if (known?.name === name) known.isComplete ||= isComplete;
    else if (stored.length === LOOK_BACK) break;
    else stored.push({ name, isComplete });
  }
  return stored;
}

/** The first one that is unfinished, or not there, before the last one. */
async function firstOpen(question: PositionQuestion, stored: readonly Stored[]): Promise<FoundPosition | undefined> {
  const timeline = stored[0]?.name.slice(0, 8);
  const inOrder = stored.filter(({ name }) => name.slice(0, 8) === timeline && name >= question.gapEnd).toReversed();
  for (const [index, { name, isComplete }] of inOrder.slice(0, -1).entries()) {
    if (!isComplete) return partialEnd(question, name);
    const behind = await behindComplete(question, name);
    if (behind !== undefined && behind.walName !== inOrder[index + 1]?.name) return behind;
  }
  return undefined;
}

/** Undefined: it is not complete, or gone meanwhile. */
async function behindComplete(question: PositionQuestion, name: string): Promise<FoundPosition | undefined> {
  const handle = await openIfThere(walFile(question.root, question.cluster, name), constants.O_RDONLY);
  if (handle === undefined) return undefined;
  try {
    const { buffer, bytesRead } = await handle.read(Buffer.alloc(MAX_HEADER_BYTES), 0, MAX_HEADER_BYTES, 0);
    const header = parseHeader(buffer.subarray(0, bytesRead));
    if (header === undefined) throw new KlioError("KLIO-WAL-DAMAGED", `${name} of ${question.cluster} has no header`);
    return { walName: nextSegment(name, header.segmentBytes), resumeOffset: 0 };
  } finally {
    await handle.close();
  }
}

async function partialEnd(question: PositionQuestion, name: string): Promise<FoundPosition | undefined> {
  const { root, cluster, master } = question;
  const writing = question.writing(name);
  if (writing !== undefined) return { walName: name, resumeOffset: writing };
  const handle = await openIfThere(walFile(root, cluster, `${name}${PARTIAL}`), constants.O_RDWR);
  if (handle === undefined) return behindComplete(question, name); // finished meanwhile
  try {
    await handle.sync(); // what a killed process wrote may not be on disk yet
    const { rawBytes, footer, header } = await scanFrames(handle, master, { cluster, name });
    if (footer !== undefined) return { walName: nextSegment(name, footer.rawBytes), resumeOffset: 0 };
    const isFull = rawBytes > 0 && rawBytes === header?.segmentBytes;
    return { walName: name, resumeOffset: rawBytes, ...(isFull && { full: rawBytes }) };
  } finally {
    await handle.close();
  }
}

async function openIfThere(path: string, flags: number): Promise<FileHandle | undefined> {
  try {
    return await open(path, flags);
  } catch (error) {
    if (isMissing(error)) return undefined;
    throw error;
  }
}
