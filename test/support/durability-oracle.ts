// P1, judged by the system calls alone: what a trace of server and sidecar says was on disk, against what the sidecar told
// PostgreSQL at that moment. Knows the layout of the store and of its frames, and nothing of the code that writes them.
import { existsSync, readdirSync, readFileSync, statSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { formatLsn } from "../../src/domain/lsn.ts";
import { segmentStart } from "../../src/domain/wal-segment.ts";
import { parseFrameHead } from "../../src/wire/wal-file-frame.ts";
import { parseHeader } from "../../src/wire/wal-file-header.ts";
import { descriptorOf, pathsOf, type SystemCall, stringsOf, traceEvents } from "./strace.ts";

const STATUS_BYTES = 39;
const PARTIAL = ".partial";

/** Sizes of files that were there, and durable, before the trace began: by name without `.partial`. */
export type StoredSizes = ReadonlyMap<string, number>;

export type Verdict = {
  /** Status messages whose flushed position was further than in any before. */
  advances: number;
  /** Files made, and files completed, within the trace. */
  created: number;
  completed: number;
  /** What was told too early. */
  violations: string[];
};

export function storedSizes(directory: string): Map<string, number> {
  const sizes = new Map<string, number>();
  for (const name of existsSync(directory) ? readdirSync(directory, { recursive: true, encoding: "utf8" }) : []) {
    const path = join(directory, name);
    if (statSync(path).isFile() && isSegment(basename(name))) sizes.set(bare(basename(name)), statSync(path).size);
  }
  return sizes;
}

function isSegment(name: string): boolean {
  return /^[0-9A-F]{24}(\.partial)?$/.test(name);
}

function bare(path: string): string {
  return path.endsWith(PARTIAL) ? path.slice(0, -PARTIAL.length) : path;
}

/** Raw bytes in the first so many bytes of a stored file. */
class FrameTable {
  readonly segmentBytes: number;
  readonly #frames: { fileEnd: number; rawEnd: number }[] = [];

  constructor(path: string) {
    const bytes = readFileSync(existsSync(path) ? path : `${path}${PARTIAL}`);
    const header = parseHeader(bytes);
    this.segmentBytes = header?.segmentBytes ?? 0;
    let rawEnd = 0;
    for (let at = header?.bytes ?? bytes.length; at + 16 <= bytes.length; ) {
      const head = parseFrameHead(bytes.subarray(at, at + 16));
      if (head === undefined) throw new Error(`${path} has no frame at ${at}`);
      at += head.bytes;
      if (head.kind === "data") rawEnd += head.rawBytes;
      this.#frames.push({ fileEnd: at, rawEnd });
    }
  }

  rawBytesIn(fileBytes: number): number {
    let rawBytes = 0;
    for (const { fileEnd, rawEnd } of this.#frames) {
      if (fileEnd > fileBytes) break;
      rawBytes = rawEnd;
    }
    return rawBytes;
  }
}

type TracedFile = {
  frames: FrameTable;
  start: bigint;
  isThrough: boolean;
  /** Bytes from the start that are durable, and that are only written. */
  durableBytes: number;
  writtenBytes: number;
  behindHoles: { at: number; end: number }[];
  isEntryDurable: boolean;
  /** The final name is there; `isComplete`: for good. */
  isRenamed: boolean;
  isComplete: boolean;
};

class Oracle {
  readonly #directory: string;
  readonly #postgres: string;
  readonly #files = new Map<string, TracedFile>();
  /** Directories made, whose own entry is not durable yet. */
  readonly #looseDirectories = new Set<string>();
  /** What a directory's sync that is under way will make durable. */
  readonly #syncing = new Map<SystemCall, (() => void)[]>();
  #confirmed = 0n;
  readonly verdict: Verdict = { advances: 0, created: 0, completed: 0, violations: [] };

  constructor(directory: string, postgresPort: number, known: StoredSizes) {
    this.#directory = directory;
    this.#postgres = `->127.0.0.1:${postgresPort}]`;
    for (const [name, bytes] of known) {
      const path = this.#pathOf(name);
      const isComplete = existsSync(path);
      Object.assign(this.#newFile(path, true) ?? {}, {
        durableBytes: bytes,
        writtenBytes: bytes,
        isEntryDurable: true,
        isRenamed: isComplete,
        isComplete,
      });
    }
  }

  #pathOf(name: string): string {
    const found = readdirSync(this.#directory, { recursive: true, encoding: "utf8" }).find(
      (path) => bare(basename(path)) === name,
    );
    if (found === undefined) throw new Error(`${name} is gone`);
    return bare(join(this.#directory, found));
  }

  /** Undefined: nothing is in it, even now. */
  #newFile(path: string, isThrough: boolean): TracedFile | undefined {
    const frames = new FrameTable(path);
    if (frames.segmentBytes === 0) return undefined;
    const file: TracedFile = {
      frames,
      start: segmentStart(basename(path), frames.segmentBytes),
      isThrough,
      durableBytes: 0,
      writtenBytes: 0,
      behindHoles: [],
      isEntryDurable: false,
      isRenamed: false,
      isComplete: false,
    };
    this.#files.set(path, file);
    return file;
  }

  begin(call: SystemCall): void {
    if (call.name === "fsync" || call.name === "fdatasync") this.#beginSync(call);
    else if (
      ["write", "writev", "sendto", "sendmsg"].includes(call.name) &&
      descriptorOf(call).includes(this.#postgres)
    )
      for (const { bytes, isCut } of stringsOf(call)) this.#told(bytes, isCut);
  }

  end(call: SystemCall, result: number): void {
    // The ring that polls for changes is none that writes files.
    if (call.name === "io_uring_setup" && call.args.includes("IORING_SETUP_SQPOLL"))
      throw new Error("files are written through io_uring, which strace does not see");
    if (result < 0) return void this.#syncing.delete(call);
    if (call.name === "openat") this.#opened(call);
    else if (call.name === "pwritev" || call.name === "pwrite64") this.#wrote(call, result);
    else if (call.name === "mkdir") this.#madeDirectory(call);
    else if (call.name === "rename") this.#renamed(call);
    for (const effect of this.#syncing.get(call) ?? []) effect();
    this.#syncing.delete(call);
  }

  #isOurs(path: string | undefined): path is string {
    return path?.startsWith(`${this.#directory}/`) === true;
  }

  #opened(call: SystemCall): void {
    const [path] = pathsOf(call);
    if (!this.#isOurs(path) || !isSegment(basename(path))) return;
    const isThrough = /\bO_D?SYNC\b/.test(call.args);
    const known = this.#files.get(bare(path));
    if (known !== undefined) {
      if (/O_RDWR|O_WRONLY/.test(call.args)) known.isThrough = isThrough;
    } else if (call.args.includes("O_CREAT") && this.#newFile(bare(path), isThrough) !== undefined)
      this.verdict.created++;
  }

  #wrote(call: SystemCall, bytes: number): void {
    const file = this.#files.get(bare(descriptorOf(call)));
    if (file === undefined) return;
    const at = Number(/, (\d+)$/.exec(call.args)?.[1]);
    file.behindHoles.push({ at, end: at + bytes });
    for (const range of file.behindHoles.toSorted((a, b) => a.at - b.at))
      if (range.at <= file.writtenBytes) file.writtenBytes = Math.max(file.writtenBytes, range.end);
    file.behindHoles = file.behindHoles.filter(({ end }) => end > file.writtenBytes);
    if (file.isThrough) file.durableBytes = file.writtenBytes;
  }

  #madeDirectory(call: SystemCall): void {
    const [path] = pathsOf(call);
    if (this.#isOurs(path)) this.#looseDirectories.add(path);
  }

  #renamed(call: SystemCall): void {
    const [from, to] = pathsOf(call);
    const file = this.#isOurs(to) && from === `${to}${PARTIAL}` ? this.#files.get(to) : undefined;
    if (file === undefined) return;
    file.isRenamed = true;
    this.verdict.completed++;
  }

  /** A sync covers what was done before it began. */
  #beginSync(call: SystemCall): void {
    const path = descriptorOf(call);
    const effects: (() => void)[] = [];
    const file = this.#files.get(bare(path));
    if (file !== undefined) {
      const { writtenBytes } = file;
      effects.push(() => {
        file.durableBytes = Math.max(file.durableBytes, writtenBytes);
      });
    }
    for (const directory of this.#looseDirectories)
      if (dirname(directory) === path) effects.push(() => void this.#looseDirectories.delete(directory));
    for (const [name, inside] of this.#files)
      if (dirname(name) === path) {
        const { isRenamed } = inside;
        effects.push(() => {
          inside.isEntryDurable = true;
          inside.isComplete ||= isRenamed;
        });
      }
    this.#syncing.set(call, effects);
  }

  #told(bytes: Buffer, isCut: boolean): void {
    for (let at = 0; at < bytes.length; at += STATUS_BYTES) {
      if (bytes[at] !== 0x64 || bytes[at + 5] !== 0x72) return; // a query, or the end of the copy
      if (isCut || bytes.length < at + STATUS_BYTES) throw new Error("a status message is cut off in the trace");
      const flushed = bytes.readBigUInt64BE(at + 14);
      if (flushed <= this.#confirmed) continue;
      this.#confirmed = flushed;
      this.verdict.advances++;
      const durable = this.#durable();
      // Where the stream begins is told first: nothing before it is Klio's to keep.
      if (this.verdict.advances > 1 && flushed > durable)
        this.verdict.violations.push(`${formatLsn(flushed)} was told, ${formatLsn(durable)} was durable`);
    }
  }

  /** Position up to which every byte, and every name that leads to it, is durable. */
  #durable(): bigint {
    const files = [...this.#files].toSorted(([a], [b]) => (basename(a) < basename(b) ? -1 : 1));
    let position = files[0]?.[1].start ?? 0n;
    for (const [path, file] of files) {
      const isLoose = [...this.#looseDirectories].some((directory) => path.startsWith(`${directory}/`));
      if (file.start > position || !file.isEntryDurable || isLoose) break;
      const raw = file.frames.rawBytesIn(file.durableBytes);
      // The last byte of a segment counts with its final name.
      const isWhole = raw === file.frames.segmentBytes;
      position = file.start + BigInt(raw) - (isWhole && !file.isComplete ? 1n : 0n);
      if (!isWhole || !file.isComplete) break;
    }
    return position;
  }
}

/**
 * Judges a whole trace. `directory`: the store's; its files are read as they are now, so nothing may have been removed.
 * Throws when the trace cannot be judged.
 */
export function judge(options: {
  lines: Iterable<string>;
  directory: string;
  postgresPort: number;
  known: StoredSizes;
}): Verdict {
  const oracle = new Oracle(options.directory, options.postgresPort, options.known);
  for (const event of traceEvents(options.lines)) {
    if (event.kind === "begin") oracle.begin(event.call);
    else oracle.end(event.call, event.result);
  }
  return oracle.verdict;
}
