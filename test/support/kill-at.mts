// Kills its own process (-9) at a named point: `node --import kill-at.mts`, KLIO_TEST_KILL_FILE names a file with the point's name.
// It is read at the start and at each SIGUSR2, which is answered by a file `.armed`, and removed before the kill.
import fs from "node:fs";
import { createRequire, syncBuiltinESMExports } from "node:module";
import net from "node:net";
import type { AnyMachineSnapshot, AnyStateMachine } from "xstate";

const file = process.env.KLIO_TEST_KILL_FILE ?? "";
let armed = "";

function arm(): void {
  armed = fs.existsSync(file) ? fs.readFileSync(file, "utf8").trim() : "";
}

/** The process has come to a point. */
function at(point: string): void {
  if (point !== armed) return;
  fs.rmSync(file, { force: true });
  process.kill(process.pid, "SIGKILL");
}

const { promises } = fs;
const { open, rename } = promises;
promises.open = async (...args) => {
  const [path, flags] = args;
  const isNew = typeof flags === "number" && (flags & fs.constants.O_CREAT) !== 0 && String(path).endsWith(".partial");
  if (isNew) at("before a file is made");
  const handle = await open(...args);
  if (isNew) at("after a file is made");
  if (/\/[0-9A-F]{16}$/.test(String(path))) {
    const sync = handle.sync.bind(handle);
    handle.sync = async () => {
      at("before names are synced");
      await sync();
      at("after names are synced");
    };
  }
  return handle;
};
promises.rename = async (...args) => {
  const isWal = /\/[0-9A-F]{24}$/.test(String(args[1]));
  if (isWal) at("before a file is renamed");
  await rename(...args);
  if (isWal) at("after a file is renamed");
};

type Done = (error: Error | null, written: number, pieces: Uint8Array[]) => void;
const writev = fs.writev as (fd: number, pieces: Uint8Array[], position: number, done: Done) => void;
Object.assign(fs, {
  writev: (fd: number, pieces: Uint8Array[], position: number, done: Done) => {
    at("before a write");
    writev(fd, pieces, position, (...answer) => {
      at("after a write");
      done(...answer);
    });
    at("during a write");
  },
});

/** By what goes to PostgreSQL, the states of the stream are known. */
const COMMANDS = ["IDENTIFY_SYSTEM", "pg_replication_slots", "START_REPLICATION"];

function toPostgres(chunk: unknown): string | undefined {
  if (!(chunk instanceof Uint8Array)) return undefined;
  const bytes = Buffer.from(chunk.buffer, chunk.byteOffset, chunk.length);
  if (bytes.length === 39 && bytes[0] === 0x64 && bytes[5] === 0x72) return "a status";
  return bytes.length < 4096 ? COMMANDS.find((command) => bytes.includes(command)) : undefined;
}

const { write } = net.Socket.prototype;
net.Socket.prototype.write = function (this: net.Socket, chunk: unknown, ...rest: never[]) {
  const what = armed === "" ? undefined : toPostgres(chunk);
  if (what !== undefined) at(`before ${what}`);
  const result = write.call(this, chunk as Uint8Array, ...rest);
  if (what !== undefined) at(`after ${what}`);
  return result;
};

/** `segmentShipment/active.opening`: a statechart has entered the state, and nothing that the state is there for has begun. */
function entered(id: string, now: AnyMachineSnapshot, before?: AnyMachineSnapshot): void {
  for (const node of now._nodes)
    if (armed.startsWith(`${id}/`) && before?._nodes.includes(node) !== true) at(`${id}/${node.path.join(".")}`);
}

const [, main] = process.argv;
if (main !== undefined) {
  const { StateMachine } = createRequire(main)("xstate") as { StateMachine: { prototype: AnyStateMachine } };
  const { start, transition, getInitialSnapshot } = StateMachine.prototype;
  StateMachine.prototype.getInitialSnapshot = function (this: AnyStateMachine, scope, input) {
    // A test must not wait for its next look.
    return getInitialSnapshot.call(this, scope, this.id === "slotGuard" ? { ...input, pollMs: 200 } : input);
  };
  StateMachine.prototype.start = function (this: AnyStateMachine, ...args) {
    const [snapshot] = args;
    entered(this.id, snapshot);
    start.apply(this, args);
  };
  StateMachine.prototype.transition = function (this: AnyStateMachine, ...args) {
    const next = transition.apply(this, args);
    entered(this.id, next, args[0]);
    return next;
  };
}

syncBuiltinESMExports();
process.on("SIGUSR2", () => {
  arm();
  fs.writeFileSync(`${file}.armed`, armed);
});
arm();
