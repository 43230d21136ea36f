import { expect, test } from "vitest";
import { compareContent } from "../../../src/domain/compare-content.ts";
import { envelopeKey, walKey, walNameOf, walRoot } from "../../../src/domain/object-key.ts";
import { compareTiers } from "../../../src/domain/tier-difference.ts";
import type { StoredWal } from "../../../src/domain/wal-reader.ts";

const wal = (n: number) => `0000000100000000${n.toString(16).toUpperCase().padStart(8, "0")}`;
const file = (name: string, storedBytes = 10): StoredWal => ({ name, storedBytes, mtimeMs: 0 });

test("what tier 1 has and tier 2 lacks is missing, oldest first; what was pruned there on purpose is not", () => {
  const difference = compareTiers({
    tier1: [file(wal(4)), file(wal(2)), file(wal(1)), file("00000002.history")],
    tier2: [file(wal(3))],
    foreign: ["p/wals/a/x"],
    floor: wal(2),
  });
  expect(difference.missing.map(({ name }) => name)).toEqual([wal(2), wal(4), "00000002.history"]);
  expect(difference).toMatchObject({ stalePartials: [], suspicious: [], foreign: ["p/wals/a/x"] });
});

test("a partial file is wanted while nobody has the complete one, and on both tiers it is looked at closely", () => {
  const partial = `${wal(1)}.partial`;
  const compare = (tier1: StoredWal[], tier2: StoredWal[]) => compareTiers({ tier1, tier2, foreign: [], floor: "" });
  expect(compare([file(partial)], []).missing.length).toBe(1);
  for (const bytes of [10, 20, 30])
    expect(compare([file(partial, 20)], [file(partial, bytes)])).toMatchObject({
      missing: [],
      suspicious: [{ name: partial, tier1Bytes: 20, tier2Bytes: bytes }],
    });
  expect(compare([file(partial)], [file(wal(1))]).missing.length).toBe(0);
  expect(compare([], [file(partial), file(wal(1))]).stalePartials).toEqual([partial]);
});

test("other sizes under one name are looked at closely", () => {
  const { suspicious, missing } = compareTiers({
    tier1: [file(wal(1), 10)],
    tier2: [file(wal(1), 9)],
    foreign: [],
    floor: "",
  });
  expect(suspicious).toEqual([{ name: wal(1), tier1Bytes: 10, tier2Bytes: 9 }]);
  expect(missing).toEqual([]);
});

test("keys have the layout of tier 1 below the prefix, and only what lies at its place is a WAL file", () => {
  expect(walRoot("")).toBe("wals/");
  expect(envelopeKey("x/y")).toBe("x/y/wals/repository.config");
  expect(walKey("x", "a", wal(1))).toBe(`x/wals/a/${wal(1).slice(0, 16)}/${wal(1)}`);
  expect(walKey("", "a", "00000002.history")).toBe("wals/a/00000002.history");
  for (const name of [wal(1), `${wal(1)}.partial`, "00000002.history", `${wal(1)}.00000028.backup`])
    expect(walNameOf("x", "a", walKey("x", "a", name))).toBe(name);
  expect(walNameOf("x", "a", `x/wals/a/${wal(1)}`)).toBeUndefined();
  expect(walNameOf("x", "a", "x/wals/a/settings.json")).toBeUndefined();
});

test("contents are compared whatever their pieces", async () => {
  const pieces = async function* (...texts: string[]) {
    for (const text of texts) yield Buffer.from(text);
  };
  expect(await compareContent(pieces("ab", "", "cd"), pieces("a", "bcd"))).toBe("same");
  expect(await compareContent(pieces("ab"), pieces("a", "bcd"))).toBe("prefix");
  expect(await compareContent(pieces("ab", "cde"), pieces("a", "bcd"))).toBe("extension");
  expect(await compareContent(pieces("ab"), pieces("ax"))).toBe("different");
  expect(await compareContent(pieces(), pieces())).toBe("same");
});
