import { expect, test } from "vitest";
import { formatLsn, parseLsn } from "../../../src/domain/lsn.ts";
import { decideStart } from "../../../src/domain/stream-start.ts";
import { firstTimeline, type TimelineHistory } from "../../../src/domain/timeline.ts";

const MIB = 1 << 20;
const promoted: TimelineHistory = {
  timeline: 3,
  ancestors: [
    { timeline: 1, endLsn: parseLsn("0/4000100"), reason: "" },
    { timeline: 2, endLsn: parseLsn("0/6800000"), reason: "" },
  ],
};
const start = (
  walName: string,
  resumeOffset: number,
  values: Partial<Parameters<typeof decideStart>[0]> = {},
): unknown => {
  const decided = decideStart({
    walName,
    resumeOffset,
    segmentBytes: 16 * MIB,
    history: firstTimeline,
    flushLsn: parseLsn("0/9000000"),
    isStandby: false,
    ...values,
  });
  if (decided.kind !== "ok") return decided.code;
  const { timeline, startLsn, abandonedBytes } = decided.value;
  return `${timeline} ${formatLsn(startLsn)} ${abandonedBytes}`;
};

test.each([
  ["a fresh segment", "000000010000000000000004", 0, "1 0/4000000 0"],
  ["an older server's answer", "000000010000000000000004.partial", 0, "1 0/4000000 0"],
  ["some bytes: their page is compared", "000000010000000000000004.partial", 100, "1 0/4000000 0"],
  ["a whole page", "000000010000000000000004", 8192, "1 0/4000000 0"],
  ["a page and a byte", "000000010000000000000004", 8193, "1 0/4002000 0"],
  ["all but the last byte", "000000010000000000000004", 16 * MIB - 1, "1 0/4FFE000 0"],
])("the start of %s", (_, walName, offset, expected) => {
  expect(start(walName, offset)).toBe(expected);
});

test.each([
  ["before the switch: the ancestor first", "000000010000000000000004", 0xff, "1 0/4000000 0"],
  ["exactly at the switch: the child's file from its first byte", "000000010000000000000004", 0x100, "2 0/4000000 0"],
  ["beyond the switch: what is stored there stays", "000000010000000000000004", 0x1000, "2 0/4000000 3840"],
  ["of the second ancestor", "000000020000000000000006", 0, "2 0/6000000 0"],
  ["of the newest", "000000030000000000000006", 5, "3 0/6000000 0"],
])("a server whose bytes end %s", (_, walName, offset, expected) => {
  expect(start(walName, offset, { history: promoted })).toBe(expected);
});

test("a child that ended before the ancestor's segment did is passed, too", () => {
  const history: TimelineHistory = {
    timeline: 3,
    ancestors: [
      { timeline: 1, endLsn: parseLsn("0/5000000"), reason: "" },
      { timeline: 2, endLsn: parseLsn("0/5000000"), reason: "" },
    ],
  };
  expect(start("000000010000000000000005", 0, { history })).toBe("3 0/5000000 0");
});

test("KLIO-TIMELINE: the server's timeline is none of the source's", () => {
  expect(start("000000020000000000000004", 0)).toBe("KLIO-TIMELINE");
  expect(start("000000040000000000000004", 0, { history: promoted })).toBe("KLIO-TIMELINE");
});

test("KLIO-SERVER-AHEAD: a primary lacks what is stored; a standby is waited for", () => {
  const flushLsn = parseLsn("0/4000063");
  expect(start("000000010000000000000004", 0x63, { flushLsn })).toBe("1 0/4000000 0");
  expect(start("000000010000000000000004", 0x64, { flushLsn })).toBe("KLIO-SERVER-AHEAD");
  expect(start("000000010000000000000004", 0x64, { flushLsn, isStandby: true })).toBe("KLIO-SOURCE-DOWN");
});

test("an answer that names no segment is refused", () => {
  for (const name of ["", "00000002.history", "x"]) expect(start(name, 0)).toBe("KLIO-SERVER-DOWN");
  expect(start("000000010000000000000004", 16 * MIB + 1)).toBe("KLIO-SERVER-DOWN");
});
