// The links on both sides of the sidecar go wrong while commits wait for it: the stream recovers by itself, and what was
// acknowledged is stored.
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { startLoad } from "../../../src/demo/load.ts";
import { type LocalPostgres, startPostgres } from "../../../src/demo/local-postgres.ts";
import { parseLsn } from "../../../src/domain/lsn.ts";
import { segmentStart } from "../../../src/domain/wal-segment.ts";
import type { StreamTiming } from "../../../src/roles/wal-stream.ts";
import { eventually } from "../../support/eventually.ts";
import { type FaultyLink, startFaultyLink } from "../../support/faulty-link.ts";
import {
  caughtUp,
  compareWithPgWal,
  replication,
  startStream,
  streamConfig,
  switchSegment,
  type TestStream,
} from "../../support/streaming.ts";
import { temporaryDirectory } from "../../support/temporary-directory.ts";
import { startWalServer, type TestWalServer } from "../../support/wal-server.ts";

const SEGMENT_BYTES = 1 << 20;
/** The watchdogs, short; PostgreSQL's own is as short. */
const timing = { stallLimitMs: 1_500, silenceLimitMs: 1_500, connectLimitMs: 1_500 };

let directory: Awaited<ReturnType<typeof temporaryDirectory>>;
let postgres: LocalPostgres;
let server: TestWalServer;

beforeAll(async () => {
  directory = await temporaryDirectory();
  server = await startWalServer();
  postgres = await startPostgres({
    directory: join(directory.path, "pg"),
    version: 17,
    walSegmentMiB: 1,
    settings: { synchronous_standby_names: "klio", wal_sender_timeout: "2s", wal_keep_size: "1GB" },
  });
});

afterAll(async () => {
  await postgres?.[Symbol.asyncDispose]();
  await server?.[Symbol.asyncDispose]();
  await directory?.[Symbol.asyncDispose]();
});

type Links = { source: FaultyLink; target: FaultyLink };
type Scene = Links & {
  stream: TestStream;
  /** What must outlive the fault. */
  stack: AsyncDisposableStack;
  more(count?: number): Promise<void>;
};

function configThrough({ source, target }: Links) {
  const through = postgres.replicationDsn.replace(`:${postgres.port}/`, `:${source.port}/`);
  const dsn = `${through}&connect_timeout=2`;
  const config = streamConfig(postgres, server);
  return {
    ...config,
    source: { ...config.source!, dsn },
    wal: { ...config.wal!, address: `127.0.0.1:${target.port}` },
  };
}

/** Bytes of the cluster's WAL that are stored, as a position. */
async function storedUpTo(): Promise<bigint> {
  const at = await server.store.position("alpha");
  return at === undefined ? 0n : segmentStart(at.walName, SEGMENT_BYTES) + BigInt(at.resumeOffset);
}

/** Commits through both links; after `fault` they go on by themselves. */
async function through(fault: (scene: Scene) => Promise<void>, times: Partial<StreamTiming> = timing): Promise<void> {
  await using source = await startFaultyLink({ host: "127.0.0.1", port: postgres.port });
  await using target = await startFaultyLink({ host: "127.0.0.1", port: server.server.port });
  await using stream = await startStream(configThrough({ source, target }), { timing: times });
  await eventually(() => stream.status().state === "flowing", { what: "a stream" });
  await using stack = new AsyncDisposableStack();
  const load = await startLoad({ dsn: postgres.dsn, sessions: 3, pauseMs: 1, firstId: Date.now() * 10 });
  const more = async (count = 20) => {
    const { ledger } = load;
    const before = ledger.count;
    await eventually(() => ledger.count >= before + count, { timeoutMs: 60_000, what: `${count} more commits` });
  };
  try {
    await more();
    await fault({ source, target, stream, stack, more });
    await more();
    await switchSegment(postgres);
  } finally {
    source.heal();
    target.heal();
    await load.stop();
  }
  const { flush = "" } = await caughtUp(postgres);
  expect(await storedUpTo()).toBeGreaterThanOrEqual(parseLsn(flush));
  expect((await compareWithPgWal(postgres, server)).length).toBeGreaterThan(0);
}

/** What PostgreSQL holds for flushed is stored: asked in this order, so that time plays into our hands only once. */
async function expectHonest(): Promise<void> {
  const told = (await replication(postgres))?.flush;
  if (typeof told === "string") expect(await storedUpTo()).toBeGreaterThanOrEqual(parseLsn(told));
}

describe.each(["source", "target"] as const)("the link to the %s", (which) => {
  test("is slow", () =>
    through(async (scene) => {
      scene[which].delay(15);
      await scene.more();
      await expectHonest();
      scene[which].delay(0);
    }));

  test("is cut again and again", () =>
    through(async (scene) => {
      for (let time = 0; time < 4; time++) {
        const before = scene[which].accepted();
        scene[which].cut();
        await eventually(() => scene[which].accepted() > before, { what: "a new connection" });
        await scene.more(5);
        await expectHonest();
      }
    }));

  test("V3: is half open, and so is each new connection for a while", () =>
    through(async (scene) => {
      scene[which].halfOpen();
      const before = scene[which].accepted();
      await eventually(() => scene[which].accepted() > before, { timeoutMs: 60_000, what: "a new connection" });
      await expectHonest();
      scene[which].heal();
      await scene.more();
      expect(scene.stream.log.lines.filter(({ message }) => message.includes("is being written"))).toEqual([]);
    }));

  test.each([
    ["what is sent", ["up"]],
    ["what is answered", ["down"]],
    ["everything", ["up", "down"]],
  ] as const)("V3: holds back %s", (_, directions) =>
    through(async (scene) => {
      const before = scene[which].accepted();
      scene[which].stall(directions);
      await eventually(() => scene[which].accepted() > before, { timeoutMs: 60_000, what: "a new connection" });
      await expectHonest();
      scene[which].heal();
    }),
  );
});

test("V3: the link to the server dies without a word: that it answers no report is noticed before it confirms nothing", () =>
  through(
    async ({ target, more, stream }) => {
      target.halfOpen();
      const before = target.accepted();
      await eventually(() => target.accepted() > before, { timeoutMs: 10_000, what: "a new connection" });
      target.heal();
      await more();
      expect(stream.log.lines.map(({ message }) => message).join("\n")).toContain("does not answer any more");
    },
    { ...timing, stallLimitMs: 60_000, reportEveryMs: 200 },
  ));

test.each(["IDENTIFY_SYSTEM", "START_REPLICATION"])("V3: the link to the source dies with the command %s", (command) =>
  through(async ({ source, more }) => {
    source.halfOpenAt(command);
    source.cut();
    await more();
  }),
);

test.each([
  ["SlotInUse", "klio", "KLIO-SLOT-BUSY", "is active"],
  ["WalFileBusy", "other", "KLIO-WAL-BUSY", "is being written"],
])(
  "two sidecars of one cluster: the second waits by the name of %s, and takes over when the first is gone",
  (condition, slot, code, reason) =>
    through(async ({ stream, source, target, stack, more }) => {
      const config = configThrough({ source, target });
      const second = stack.use(await startStream({ ...config, source: { ...config.source!, slot } }, { timing }));
      await eventually(() => second.status().condition === condition && second.status().reason.includes(reason), {
        what: "the reason",
      });
      expect(second.log.lines.find(({ event }) => event === "stream.interrupted")?.fields).toMatchObject({ code });
      await more();
      // The server is always ahead of what the second one was told a moment ago: never a reason to call a person.
      expect(second.log.events()).not.toContain("stream.blocked");
      expect(stream.status().state).toBe("flowing");
      await stream.stop();
      await eventually(() => second.status().state === "flowing", { timeoutMs: 60_000, what: "the second stream" });
      await more();
      await expectHonest();
    }),
);
