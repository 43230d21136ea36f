// Puts a MemoryDisk under a path of this process: what the modules under test call of node:fs goes there when it is about
// that path, and to the real disk otherwise. Only what the store uses is there; a call that is not made for the disk finds
// nothing under the path, and fails.
import fs, { constants } from "node:fs";
import { syncBuiltinESMExports } from "node:module";
import { type DirectoryInode, type FileInode, type MemoryDisk, systemError } from "./memory-disk.ts";

/** A handle does not survive the power of its disk. */
type Handle = { disk: MemoryDisk; path: string; inode: FileInode | DirectoryInode; flags: number };

const FLAGS: Readonly<Record<string, number>> = {
  r: constants.O_RDONLY,
  "r+": constants.O_RDWR,
  wx: constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL,
  w: constants.O_WRONLY | constants.O_CREAT | constants.O_TRUNC,
};
/** Far from those of the system; none is given twice, so that what is left of an earlier disk cannot reach a later one. */
let nextFd = 1 << 24;

function flagsOf(flags: unknown): number {
  const found = typeof flags === "number" ? flags : FLAGS[String(flags ?? "r")];
  if (found === undefined) throw new Error(`the disk does not know the flags ${String(flags)}`);
  return found;
}

function fileOf({ inode, path }: Pick<Handle, "inode" | "path">): FileInode {
  if (inode.kind !== "file") throw systemError("EISDIR", "read", path);
  return inode;
}

function writeAll(to: Handle & { inode: FileInode }, bytes: Buffer): void {
  const written = to.disk.write(to.inode, 0, bytes, to.flags, to.path);
  if (written < bytes.length) throw systemError("ENOSPC", "write", to.path);
}

/** Dispose to give node:fs back, the last attached one first. */
export function attachDisk(root: string, disk: MemoryDisk): Disposable {
  const handles = new Map<number, Handle>();
  const isOurs = (path: unknown): path is string =>
    typeof path === "string" && (path === root || path.startsWith(`${root}/`));
  const within = (path: string) => path.slice(root.length);

  const opened = (path: string, flags: number, inode: Handle["inode"]) => {
    const fd = nextFd++;
    const own: Handle = { disk, path, inode, flags };
    handles.set(fd, own);
    return {
      fd,
      read: (buffer: Buffer, offset: number, length: number, position: number) =>
        disk.call(() => {
          const bytesRead = fileOf(own).live.copy(buffer, offset, position, position + length);
          return { bytesRead, buffer };
        }),
      stat: () => disk.call(() => ({ size: fileOf(own).live.length })),
      truncate: (size: number) => disk.call(() => void fileOf(own).change({ size })),
      sync: () => disk.call(() => disk.sync(inode)),
      writeFile: (bytes: Uint8Array) => disk.call(() => writeAll({ ...own, inode: fileOf(own) }, Buffer.from(bytes))),
      close: () => disk.call(() => void handles.delete(fd)),
    };
  };

  const promised: Record<string, (...args: never[]) => unknown> = {
    open: (path: string, flags: unknown) => {
      const wanted = flagsOf(flags);
      return disk.call(() => opened(within(path), wanted, disk.open(within(path), wanted)));
    },
    stat: (path: string) =>
      disk.call(() => ({
        size: fileOf({ inode: disk.require(within(path), "stat"), path }).live.length,
        mtimeMs: 0,
      })),
    readdir: (path: string, options?: { withFileTypes?: boolean }) =>
      disk.call(() => {
        if (options?.withFileTypes !== true) throw new Error("the disk lists entries with their types only");
        const found = disk.require(within(path), "readdir");
        if (found.kind !== "directory") throw systemError("ENOTDIR", "readdir", path);
        return [...found.live].map(([name, { kind }]) => ({
          name,
          isFile: () => kind === "file",
          isDirectory: () => kind === "directory",
        }));
      }),
    readFile: (path: string, encoding?: BufferEncoding) =>
      disk.call(() => {
        const bytes = Buffer.from(fileOf({ inode: disk.require(within(path), "read"), path }).live);
        return encoding === undefined ? bytes : bytes.toString(encoding);
      }),
    writeFile: (path: string, content: string | Uint8Array, options: { flag?: string }) =>
      disk.call(() => {
        const flags = flagsOf(options.flag ?? "w");
        const inode = fileOf({ inode: disk.open(within(path), flags), path });
        writeAll({ disk, inode, flags, path }, Buffer.from(content as string));
      }),
    copyFile: (from: string, to: string) =>
      disk.call(() => {
        const source = fileOf({ inode: disk.require(within(from), "copyfile"), path: from });
        const inode = fileOf({ inode: disk.open(within(to), flagsOf("w")), path: to });
        writeAll({ disk, inode, flags: 0, path: to }, source.live);
      }),
    mkdir: (path: string) => disk.call(() => disk.makeDirectory(within(path))),
    rename: (from: string, to: string) => disk.call(() => disk.rename(within(from), within(to))),
    link: (from: string, to: string) => disk.call(() => disk.link(within(from), within(to))),
    rm: (path: string, options?: { force?: boolean }) =>
      disk.call(() => disk.remove(within(path), options?.force === true)),
    rmdir: (path: string) => disk.call(() => disk.removeDirectory(within(path))),
  };

  const promises = fs.promises as unknown as Record<string, (...args: unknown[]) => unknown>;
  const real = new Map<string, (...args: unknown[]) => unknown>();
  for (const [name, ours] of Object.entries(promised)) {
    const original = promises[name];
    if (original === undefined) throw new Error(`node:fs/promises has no ${name}`);
    real.set(name, original);
    promises[name] = (...args: unknown[]) => (isOurs(args[0]) ? ours(...(args as never[])) : original(...args));
  }
  const writev = fs.writev;
  const callbacks = fs as unknown as Record<"writev", unknown>;
  callbacks.writev = (
    fd: number,
    pieces: Uint8Array[],
    position: number,
    done: (error: Error | null, written: number) => void,
  ) => {
    const handle = handles.get(fd);
    if (handle === undefined) return writev(fd, pieces, position, done as never);
    const on = handle.disk;
    const bytes = Buffer.concat(pieces);
    on.call(() => on.write(fileOf(handle), position, bytes, handle.flags, handle.path)).then(
      (written) => done(null, written),
      (error: Error) => done(error, 0),
    );
  };
  syncBuiltinESMExports();
  return {
    [Symbol.dispose]() {
      for (const [name, original] of real) promises[name] = original;
      callbacks.writev = writev;
      syncBuiltinESMExports();
    },
  };
}
