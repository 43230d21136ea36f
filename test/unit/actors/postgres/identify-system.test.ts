import { expect, test } from "vitest";
import type { SourceHold } from "../../../../src/actors/postgres/hold-source.actor.ts";
import { identify, parseSetting } from "../../../../src/actors/postgres/identify-system.actor.ts";
import { failure, ok } from "../../../../src/domain/outcome.ts";

const answers: Record<string, Record<string, string>> = {
  IDENTIFY_SYSTEM: { systemid: "7400000000000000001", timeline: "1", xlogpos: "0/5000028", dbname: "" },
  "SHOW wal_segment_size": { wal_segment_size: "16MB" },
  "SHOW wal_sender_timeout": { wal_sender_timeout: "1min" },
  "SHOW in_hot_standby": { in_hot_standby: "off" },
};

/** A held connection that answers from the table. */
function holding(changed: typeof answers = {}) {
  const table = { ...answers, ...changed };
  const session = {
    command: async (text: string) => {
      const row = table[text];
      return row === undefined ? failure("KLIO-SOURCE-DOWN", `no answer to ${text}`) : ok([row]);
    },
  };
  return { session, senderTimeoutMs: 0, history: undefined } as unknown as SourceHold<{ close(): void }>;
}

test("the source tells who it is", async () => {
  const hold = holding();
  expect(await identify(hold)).toEqual(
    ok({
      systemId: "7400000000000000001",
      timeline: 1,
      flushLsn: "0/5000028",
      segmentBytes: 16 << 20,
      isStandby: false,
    }),
  );
  expect(hold.senderTimeoutMs).toBe(60_000);
});

test("behind a promotion its history is read, too", async () => {
  const system = { ...answers.IDENTIFY_SYSTEM, timeline: "2" };
  const asked = { IDENTIFY_SYSTEM: system };
  expect(await identify(holding(asked))).toMatchObject({
    kind: "retryable",
    reason: "no answer to TIMELINE_HISTORY 2",
  });
  const hold = holding({ ...asked, "TIMELINE_HISTORY 2": { filename: "x", content: "1\t0/4000000\tno reason\n" } });
  expect(await identify(hold)).toMatchObject({ kind: "ok", value: { timeline: 2 } });
});

test("KLIO-SOURCE-UNSUPPORTED: segments of a size that PostgreSQL does not have", async () => {
  for (const size of ["3MB", "2GB", "x", ""])
    expect(await identify(holding({ "SHOW wal_segment_size": { wal_segment_size: size } })), size).toMatchObject({
      kind: "fatal",
      code: "KLIO-SOURCE-UNSUPPORTED",
      reason: `the source has WAL segments of ${size}`,
    });
});

test("an answer that cannot be is no bug of ours", async () => {
  const odd = { IDENTIFY_SYSTEM: { ...answers.IDENTIFY_SYSTEM, xlogpos: "nowhere" } };
  expect(await identify(holding(odd))).toMatchObject({ kind: "retryable", code: "KLIO-SOURCE-DOWN" });
});

test("settings are read in any unit, or not at all", () => {
  const units = { "": 1, s: 1_000, min: 60_000 };
  expect(["0", "5s", "2 min", "7 MIN", "1h", "a"].map((text) => parseSetting(text, units))).toEqual([
    0,
    5_000,
    120_000,
    420_000,
    undefined,
    undefined,
  ]);
});
