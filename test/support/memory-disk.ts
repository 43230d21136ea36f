// A disk in this process that keeps only what it was made to keep: what was not synced when the power goes is kept, lost, or
// kept in part, sector by sector and in any order; directory entries likewise. Sharper than any real file system, so what
// survives here survives there.
//   - A write through O_DSYNC is durable when it returned; other writes and truncations after an fsync of the file that
//     began when they had returned.
//   - An entry of a directory (file made, renamed, linked, removed) is durable after an fsync of that directory. A rename is
//     in one piece.
import { constants } from "node:fs";
import type { Random } from "./random.ts";

const SECTOR = 512;

type Change<T> = T & { isDurable: boolean };
type FileChange = Change<{ at: number; bytes: Buffer } | { size: number }>;
type EntryChange = Change<{ name: string; inode: Inode | undefined; from?: string }>;

export class FileInode {
  readonly kind = "file";
  live: Buffer;
  base: Buffer;
  changes: FileChange[] = [];
  constructor(content: Buffer = Buffer.alloc(0)) {
    this.live = content;
    this.base = content;
  }

  change(change: Omit<FileChange, "isDurable"> & ({ at: number; bytes: Buffer } | { size: number })): FileChange {
    const kept = { ...change, isDurable: false };
    this.changes.push(kept);
    this.live = applied(this.live, kept);
    return kept;
  }
}

export class DirectoryInode {
  readonly kind = "directory";
  live = new Map<string, Inode>();
  base = new Map<string, Inode>();
  changes: EntryChange[] = [];

  change(change: Omit<EntryChange, "isDurable">): EntryChange {
    const kept = { ...change, isDurable: false };
    this.changes.push(kept);
    enter(this.live, kept);
    return kept;
  }
}
type Inode = FileInode | DirectoryInode;

function applied(content: Buffer, change: FileChange): Buffer {
  if ("size" in change) {
    const sized = Buffer.alloc(change.size);
    content.copy(sized);
    return sized;
  }
  const end = change.at + change.bytes.length;
  const grown = Buffer.alloc(Math.max(content.length, end));
  content.copy(grown);
  change.bytes.copy(grown, change.at);
  return grown;
}

function enter(entries: Map<string, Inode>, { name, inode, from }: EntryChange): void {
  if (from !== undefined) entries.delete(from);
  if (inode === undefined) entries.delete(name);
  else entries.set(name, inode);
}

export function systemError(code: string, call: string, path: string): Error {
  return Object.assign(new Error(`${code}: ${call} '${path}'`), { code, syscall: call, path });
}

/** What a disk does not do although it says so: to see that a test would notice. */
export type Lie = "write-through" | "file-sync" | "directory-sync";
export type DiskOptions = { random: Random; lie?: Lie /** Share of writes that find no room. */; fullShare?: number };

/** The tree, and its rules. Paths are absolute within it. Calls are made through `attachDisk`. */
export class MemoryDisk {
  readonly #random: Random;
  readonly #lie: Lie | undefined;
  readonly #fullShare: number;
  readonly #options: DiskOptions;
  #root = new DirectoryInode();
  #inFlight: { effect: () => void; done: () => void }[] = [];
  #callsLeft = Infinity;
  #isOff = false;
  readonly #off = Promise.withResolvers<void>();

  constructor(options: DiskOptions) {
    const { random, lie, fullShare = 0 } = options;
    this.#options = options;
    this.#random = random;
    this.#lie = lie;
    this.#fullShare = fullShare;
  }

  /** Resolves when the power goes, which it does after so many calls from now. */
  powerFailsAfter(calls: number): Promise<void> {
    this.#callsLeft = calls;
    return this.#off.promise;
  }

  /** Takes a call; it happens, and returns, some time later, in any order with others that are under way. */
  call<T>(effect: () => T): Promise<T> {
    return new Promise((resolve, reject) => {
      let answer: { value: T } | { error: unknown } = { error: new Error("not done") };
      this.#inFlight.push({
        effect: () => {
          try {
            answer = { value: effect() };
          } catch (error) {
            answer = { error };
          }
        },
        done: () => ("value" in answer ? resolve(answer.value) : reject(answer.error)),
      });
      if (this.#inFlight.length === 1) setImmediate(() => this.#turn());
    });
  }

  #turn(): void {
    if (this.#isOff || this.#inFlight.length === 0) return;
    if (this.#callsLeft-- <= 0) {
      this.#isOff = true; // what is under way never returns
      this.#off.resolve();
      return;
    }
    const [next] = this.#inFlight.splice(this.#random.int(this.#inFlight.length), 1);
    next?.effect();
    next?.done();
    if (this.#inFlight.length > 0) setImmediate(() => this.#turn());
  }

  /**
   * The disk as it is when the power is back: what was durable is there, of the rest what chance left. This one stays off: no
   * call of the time before ever returns.
   */
  powerReturns(): MemoryDisk {
    this.#isOff = true;
    // A call that did not return may have had its effect all the same.
    for (const { effect } of this.#inFlight) if (this.#random.chance(0.5)) effect();
    const next = new MemoryDisk(this.#options);
    next.#root = this.#remainsOf(this.#root, new Map()) as DirectoryInode;
    return next;
  }

  #remainsOf(inode: Inode, kept: Map<Inode, Inode>): Inode {
    const known = kept.get(inode);
    if (known !== undefined) return known;
    if (inode.kind === "file") {
      let content = inode.base;
      for (const change of inode.changes) content = this.#perhaps(content, change);
      const file = new FileInode(content);
      kept.set(inode, file);
      return file;
    }
    const directory = new DirectoryInode();
    kept.set(inode, directory);
    const entries = new Map(inode.base);
    for (const change of inode.changes) if (change.isDurable || this.#random.chance(0.5)) enter(entries, change);
    for (const [name, child] of entries) directory.live.set(name, this.#remainsOf(child, kept));
    directory.base = new Map(directory.live);
    return directory;
  }

  #perhaps(content: Buffer, change: FileChange): Buffer {
    const how = change.isDurable ? "whole" : this.#random.pick(["whole", "lost", "torn"] as const);
    if (how === "lost") return content;
    if (how === "whole" || "size" in change) return applied(content, change);
    const end = change.at + change.bytes.length;
    let torn: Buffer = content;
    for (let at = change.at; at < end; at = Math.floor(at / SECTOR) * SECTOR + SECTOR) {
      const sectorEnd = Math.min(end, Math.floor(at / SECTOR) * SECTOR + SECTOR);
      if (this.#random.chance(0.5)) continue;
      const bytes = change.bytes.subarray(at - change.at, sectorEnd - change.at);
      torn = applied(torn, { at, bytes: Buffer.from(bytes), isDurable: true });
    }
    // The size may be known before the bytes: then zeros are read.
    return this.#random.chance(0.5) && torn.length < end ? applied(torn, { size: end, isDurable: true }) : torn;
  }

  find(path: string): Inode | undefined {
    let at: Inode | undefined = this.#root;
    for (const part of path.split("/").filter((name) => name !== "")) {
      if (at === undefined) return undefined;
      at = at.kind === "directory" ? at.live.get(part) : undefined;
    }
    return at;
  }

  require(path: string, call: string): Inode {
    const found = this.find(path);
    if (found === undefined) throw systemError("ENOENT", call, path);
    return found;
  }

  /** The directory above, and the last name. */
  place(path: string, call: string): { parent: DirectoryInode; name: string } {
    const cut = path.lastIndexOf("/");
    const parent = this.require(path.slice(0, cut), call);
    if (parent.kind !== "directory") throw systemError("ENOTDIR", call, path);
    return { parent, name: path.slice(cut + 1) };
  }

  open(path: string, flags: number): Inode {
    const found = this.find(path);
    if ((flags & constants.O_CREAT) === 0) return this.require(path, "open");
    if (found !== undefined && (flags & constants.O_EXCL) !== 0) throw systemError("EEXIST", "open", path);
    const { parent, name } = this.place(path, "open");
    if (found !== undefined) {
      if (found.kind === "file" && (flags & constants.O_TRUNC) !== 0) found.change({ size: 0 });
      return found;
    }
    const made = new FileInode();
    parent.change({ name, inode: made });
    return made;
  }

  /** How much was written. Throws ENOSPC when there was no room for any of it. */
  write(file: FileInode, at: number, bytes: Buffer, flags: number, path: string): number {
    let taken = bytes;
    if (this.#random.chance(this.#fullShare)) {
      taken = bytes.subarray(0, this.#random.int(bytes.length));
      if (taken.length === 0) throw systemError("ENOSPC", "write", path);
    }
    const change = file.change({ at, bytes: Buffer.from(taken) });
    const isThrough = (flags & (constants.O_DSYNC | constants.O_SYNC)) !== 0;
    if (isThrough && !this.#isOff && this.#lie !== "write-through") change.isDurable = true;
    return taken.length;
  }

  makeDirectory(path: string): void {
    const { parent, name } = this.place(path, "mkdir");
    if (parent.live.has(name)) throw systemError("EEXIST", "mkdir", path);
    parent.change({ name, inode: new DirectoryInode() });
  }

  /** Within a directory. */
  rename(from: string, to: string): void {
    const inode = this.require(from, "rename");
    const [source, target] = [this.place(from, "rename"), this.place(to, "rename")];
    if (source.parent !== target.parent) throw systemError("EXDEV", "rename", from);
    target.parent.change({ name: target.name, inode, from: source.name });
  }

  link(from: string, to: string): void {
    const inode = this.require(from, "link");
    const { parent, name } = this.place(to, "link");
    if (parent.live.has(name)) throw systemError("EEXIST", "link", to);
    parent.change({ name, inode });
  }

  remove(path: string, force: boolean): void {
    if (this.find(path) === undefined && force) return;
    this.require(path, "rm");
    const { parent, name } = this.place(path, "rm");
    parent.change({ name, inode: undefined });
  }

  removeDirectory(path: string): void {
    const inode = this.require(path, "rmdir");
    if (inode.kind !== "directory") throw systemError("ENOTDIR", "rmdir", path);
    if (inode.live.size > 0) throw systemError("ENOTEMPTY", "rmdir", path);
    this.remove(path, false);
  }

  sync(inode: Inode): void {
    if (this.#isOff || this.#lie === (inode.kind === "file" ? "file-sync" : "directory-sync")) return;
    if (inode.kind === "file") inode.base = inode.live;
    else inode.base = new Map(inode.live);
    inode.changes = [];
  }
}
