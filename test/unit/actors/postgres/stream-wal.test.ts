// One START_REPLICATION over a connection in the test's hands: what PostgreSQL is told, and when it ends.
import type { Socket } from "node:net";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { createActor, setup } from "xstate";
import type { RawReplication, SourceSession } from "../../../../src/actors/postgres/source-session.ts";
import { streamWal } from "../../../../src/actors/postgres/stream-wal.actor.ts";
import type { PipeSegment, WalPipe } from "../../../../src/actors/postgres/wal-pipe.ts";

beforeEach(() => vi.useFakeTimers());
afterEach(() => vi.useRealTimers());

const START = 0x500_0000n;
const SEGMENT = "000000010000000000000005";

function frame(kind: string, body: Buffer = Buffer.alloc(0)): Buffer {
  const head = Buffer.alloc(5);
  head.write(kind, 0);
  head.writeUInt32BE(body.length + 4, 1);
  return Buffer.concat([head, body]);
}
function wal(start: bigint, bytes: number): Buffer {
  const head = Buffer.alloc(25);
  head.write("w", 0);
  head.writeBigUInt64BE(start, 1);
  head.writeBigUInt64BE(start + BigInt(bytes), 9);
  return frame("d", Buffer.concat([head, Buffer.alloc(bytes, 7)]));
}
function keepalive(replyRequested: boolean): Buffer {
  const body = Buffer.alloc(18);
  body.write("k", 0);
  body[17] = replyRequested ? 1 : 0;
  return frame("d", body);
}

type Status = { written: bigint; flushed: bigint; applied: bigint; replyRequested: boolean };

const ends = (events: readonly { type: string; failure?: { code: string } }[]) =>
  events.filter(({ type }) => type === "stream.ended").map(({ failure }) => failure?.code);

/** A stream that has just been told to begin. `send` plays PostgreSQL; `told` are our status messages. */
function begin({ isAnswered = true, flushLsn = "0/5000000" } = {}) {
  const told: Status[] = [];
  const socket = {
    isPaused: false,
    pause: () => {
      socket.isPaused = true;
    },
    resume: () => {
      socket.isPaused = false;
    },
  };
  let send: (chunk: Buffer) => void = () => undefined;
  const raw: RawReplication = {
    socket: socket as unknown as Socket,
    command: () => undefined,
    copyDone: () => undefined,
    giveBack: () => undefined,
    copyData: (content) => {
      told.push({
        written: content.readBigUInt64BE(1) - START,
        flushed: content.readBigUInt64BE(9) - START,
        applied: content.readBigUInt64BE(17) - START,
        replyRequested: content[33] === 1,
      });
    },
  };
  const session: SourceSession = {
    command: () => new Promise(() => undefined),
    gone: new Promise(() => undefined),
    close: async () => undefined,
    take: (onData) => {
      send = onData;
      return raw;
    },
  };
  let pipe: WalPipe | undefined;
  const logic = streamWal({
    session: () => session,
    onPipe: (made) => {
      pipe = made;
    },
    watch: { sourceAt: () => undefined, flushedAt: () => undefined },
    blockBytes: 8192,
    statusEveryMs: () => 10_000,
    stallLimitMs: 30_000,
    silenceLimitMs: 60_000,
    highBytes: 32_768,
    lowBytes: 16_384,
  });
  const events: { type: string; failure?: { code: string } }[] = [];
  const owner = setup({ actors: { streamWal: logic } }).createMachine({
    invoke: {
      src: "streamWal",
      input: { slot: "klio", startLsn: "0/5000000", flushLsn, timeline: 1, segmentBytes: 1 << 24, method: "stream" },
    },
    on: { "*": { actions: ({ event }) => events.push(event) } },
  });
  createActor(owner, { id: "owner" }).start();
  const carry = (): PipeSegment => {
    const segment = pipe?.segment(SEGMENT);
    if (segment === undefined) throw new Error("there is no pipe");
    segment.connect({ block: ({ release }) => release(), ended: () => undefined });
    return segment;
  };
  if (isAnswered) {
    send(frame("W", Buffer.from([0, 0, 0])));
    expect(told).toHaveLength(1); // the copy began
  }
  return { told, socket, events, carry, send: (chunk: Buffer) => send(chunk) };
}

test("P1, V1: written is what was sent, flushed and applied what the server confirmed, and never more", () => {
  const { told, carry, send } = begin();
  send(wal(START, 8192));
  send(keepalive(true));
  expect(told.at(-1)).toMatchObject({ written: 0n, flushed: 0n, applied: 0n });
  const segment = carry();
  segment.sent(8192);
  send(keepalive(true));
  expect(told.at(-1)).toMatchObject({ written: 8192n, flushed: 0n, applied: 0n });
  segment.durable(4096, false);
  expect(told.at(-1)).toMatchObject({ written: 8192n, flushed: 4096n, applied: 4096n });
  segment.durable(2048, false);
  send(keepalive(true));
  expect(told.at(-1)).toMatchObject({ written: 8192n, flushed: 4096n, applied: 4096n });
});

test("V4: where there is WAL to send, no position is told before it comes; else at once", () => {
  const nowhere = { written: -START, flushed: -START, applied: -START };
  const there = { written: 0n, flushed: 0n, applied: 0n };
  const { told, send } = begin({ flushLsn: "0/5000001" });
  expect(told).toMatchObject([nowhere]);
  vi.advanceTimersByTime(10_000);
  send(keepalive(true));
  expect(told).toMatchObject([nowhere, nowhere, nowhere]);
  send(wal(START, 100));
  expect(told).toMatchObject([nowhere, nowhere, nowhere, there]);
  expect(begin({ flushLsn: "0/5000000" }).told).toMatchObject([there]);
});

test("V2: a status at each move of the flushed position, when asked for, and on time while the socket waits", () => {
  const { told, carry, send, socket } = begin();
  send(wal(START, 16_384));
  send(wal(START + 16_384n, 16_384));
  expect(socket.isPaused).toBe(true);
  const segment = carry();
  const before = told.length;
  segment.durable(8192, false);
  expect(told.length).toBe(before + 1);
  segment.durable(8192, false);
  expect(told.length).toBe(before + 1);
  send(keepalive(false));
  expect(told.length).toBe(before + 1);
  send(keepalive(true));
  expect(told.length).toBe(before + 2);
  expect(socket.isPaused).toBe(true);
  vi.advanceTimersByTime(10_000);
  expect(told.length).toBe(before + 3);
  segment.durable(32_768, false);
  expect(socket.isPaused).toBe(false);
});

test("V3: a server that confirms nothing while bytes wait ends the stream, and no sooner than at the limit", () => {
  const { carry, send, events } = begin();
  send(wal(START, 8192));
  const segment = carry();
  vi.advanceTimersByTime(20_000);
  segment.durable(4096, false);
  vi.advanceTimersByTime(29_000);
  expect(ends(events)).toEqual([]);
  vi.advanceTimersByTime(4_000);
  expect(ends(events)).toEqual(["KLIO-SERVER-DOWN"]);
});

test("V3: a silent source ends the stream, but not while we are the ones who do not read", () => {
  const { send, events, told } = begin();
  vi.advanceTimersByTime(45_000);
  expect(told.at(-1)).toMatchObject({ replyRequested: true });
  send(keepalive(false));
  vi.advanceTimersByTime(59_000);
  expect(ends(events)).toEqual([]);
  vi.advanceTimersByTime(3_000);
  expect(ends(events)).toEqual(["KLIO-SOURCE-DOWN"]);
  const paused = begin();
  paused.send(wal(START, 32_768));
  expect(paused.socket.isPaused).toBe(true);
  vi.advanceTimersByTime(29_000);
  const segment = paused.carry();
  for (let bytes = 1; bytes <= 4; bytes++) {
    segment.durable(bytes, false);
    vi.advanceTimersByTime(25_000);
  }
  expect(paused.socket.isPaused).toBe(true);
  expect(ends(paused.events)).toEqual([]);
});

test("V3: a source that owes an answer, to the command or at the end of a timeline, ends the stream by its silence", async () => {
  const unanswered = begin({ isAnswered: false });
  vi.advanceTimersByTime(62_000);
  expect(ends(unanswered.events)).toEqual(["KLIO-SOURCE-DOWN"]);
  const switching = begin();
  vi.advanceTimersByTime(30_000);
  switching.send(frame("c"));
  await vi.advanceTimersByTimeAsync(59_000);
  expect(ends(switching.events)).toEqual([]);
  await vi.advanceTimersByTimeAsync(3_000);
  expect(ends(switching.events)).toEqual(["KLIO-SOURCE-DOWN"]);
});

test("KLIO-WAL-GAP: WAL that does not follow ends the stream", () => {
  const { send, events } = begin();
  send(wal(START + 1n, 10));
  expect(ends(events)).toEqual(["KLIO-WAL-GAP"]);
});
