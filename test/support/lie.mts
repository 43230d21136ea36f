// Makes a process tell more than is true, so that a test can see itself fail: `node --import lie.mts`, KLIO_TEST_LIE says how.
import fs from "node:fs";
import { syncBuiltinESMExports } from "node:module";
import net from "node:net";

type Done = (error: Error | null, written: number, pieces: Uint8Array[]) => void;

const lies: Readonly<Record<string, () => void>> = {
  /** A write counts as done before it is begun. */
  "early-write": () => {
    const writev = fs.writev as (fd: number, pieces: Uint8Array[], at: number, done: Done) => void;
    Object.assign(fs, {
      writev: (fd: number, pieces: Uint8Array[], at: number, done: Done) => {
        const bytes = pieces.reduce((sum, piece) => sum + piece.length, 0);
        done(null, bytes, pieces);
        setTimeout(() => writev(fd, pieces, at, () => undefined), 5);
      },
    });
  },
  /** New names are never synced. */
  "no-directory-sync": () => {
    const { open } = fs.promises;
    fs.promises.open = async (...args) => {
      const handle = await open(...args);
      if ((await handle.stat()).isDirectory()) handle.sync = () => Promise.resolve();
      return handle;
    };
  },
  /** What was sent is told as flushed. */
  "early-status": () => {
    const { write } = net.Socket.prototype;
    net.Socket.prototype.write = function (this: net.Socket, chunk: unknown, ...rest: never[]) {
      if (!(chunk instanceof Uint8Array) || chunk.length !== 39 || chunk[0] !== 0x64 || chunk[5] !== 0x72)
        return write.call(this, chunk as Uint8Array, ...rest);
      const status = Buffer.from(chunk);
      status.copy(status, 14, 6, 14);
      return write.call(this, status, ...rest);
    };
  },
};

lies[process.env.KLIO_TEST_LIE ?? ""]?.();
syncBuiltinESMExports();
