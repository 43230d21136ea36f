import fc from "fast-check";
import { expect, test } from "vitest";
import {
  fromListing,
  isHeld,
  listingBegun,
  noFrontier,
  pruneBound,
  withOffloaded,
  withStored,
} from "../../../src/domain/frontier.ts";

const name = (n: number) => `0000000100000000${n.toString(16).toUpperCase().padStart(8, "0")}`;

test("the frontier moves over the contiguous prefix only", () => {
  let frontier = fromListing(noFrontier, [name(2), name(3), name(4)], [name(1)]);
  expect(frontier.at).toBe(name(1));
  frontier = withOffloaded(frontier, name(4));
  expect(frontier.at).toBe(name(1));
  frontier = withOffloaded(frontier, name(2));
  expect(frontier.at).toBe(name(2));
  frontier = withOffloaded(frontier, name(3));
  expect(frontier.at).toBe(name(4));
  expect(frontier).toMatchObject({ missing: [], ahead: [] });
});

test("a file stored late, below the frontier, holds back pruning until it is uploaded", () => {
  let frontier = withStored(fromListing(noFrontier, [], [name(1), name(5)]), name(3));
  expect(pruneBound(frontier)).toBe(name(3));
  expect(isHeld(frontier, name(3))).toBe(false);
  frontier = withOffloaded(frontier, name(3));
  expect(pruneBound(frontier)).toBe(name(5));
  expect(isHeld(frontier, name(3))).toBe(true);
});

test("what is stored and uploaded while a listing runs is not lost when it arrives", () => {
  let frontier = listingBegun(fromListing(noFrontier, [], [name(1)]));
  frontier = withStored(frontier, name(2));
  frontier = withStored(frontier, name(3));
  frontier = withOffloaded(frontier, name(2));
  frontier = fromListing(frontier, [], [name(1)]); // the listing was taken before both
  expect(frontier).toMatchObject({ at: name(2), missing: [name(3)] });
});

test("nothing is known without a listing, and history and partial files do not count", () => {
  expect(isHeld({ ...noFrontier, at: name(9) }, name(1))).toBe(false);
  expect(withStored(noFrontier, "00000002.history")).toBe(noFrontier);
  expect(withOffloaded(noFrontier, `${name(1)}.partial`)).toBe(noFrontier);
  expect(pruneBound(noFrontier)).toBe("");
});

test("beyond a bound the missing ones are forgotten, and the frontier stays below them", () => {
  const all = Array.from({ length: 2_500 }, (_, i) => name(i + 1));
  let frontier = fromListing(noFrontier, all, []);
  expect(frontier.missing.length).toBe(2_000);
  expect(frontier.horizon).toBe(name(2_001));
  frontier = withOffloaded(frontier, name(2_400));
  for (const each of all.slice(0, 2_000)) frontier = withOffloaded(frontier, each);
  expect(frontier.at).toBe(name(2_000));
  expect(pruneBound(frontier)).toBe(name(2_000));
});

test("what lies beyond the bound is not held, though the frontier had passed it", () => {
  // Files of an older timeline arrive late, more of them than are remembered.
  const second = "000000020000000000000001";
  let frontier = fromListing(noFrontier, [], [second]);
  for (let n = 1; n <= 2_500; n++) frontier = withStored(frontier, name(n));
  expect(frontier).toMatchObject({ at: second, horizon: name(2_001) });
  expect([1, 2_000, 2_001, 2_400].filter((n) => isHeld(frontier, name(n)))).toEqual([]);
  expect(pruneBound(frontier)).toBe(name(1));
});

test("for any order of events the frontier equals the one counted from scratch", () => {
  const event = fc.tuple(fc.constantFrom("stored", "offloaded"), fc.integer({ min: 1, max: 12 }));
  fc.assert(
    fc.property(fc.array(event, { maxLength: 40 }), (events) => {
      const tier1 = new Set<string>();
      const tier2 = new Set<string>();
      let frontier = fromListing(noFrontier, [], []);
      for (const [kind, n] of events) {
        if (kind === "stored") {
          if (tier1.has(name(n))) continue;
          tier1.add(name(n));
          frontier = withStored(frontier, name(n));
        } else if (tier1.has(name(n)) && !tier2.has(name(n))) {
          tier2.add(name(n));
          frontier = withOffloaded(frontier, name(n));
        }
        const lacking = [...tier1].filter((each) => !tier2.has(each)).sort();
        expect(frontier.missing).toEqual(lacking);
        for (const each of tier1) if (isHeld(frontier, each)) expect(tier2.has(each), `${each} held`).toBe(true);
        for (const each of tier1)
          if (pruneBound(frontier) !== "" && each < pruneBound(frontier)) expect(tier2.has(each)).toBe(true);
        const reach =
          [...tier2]
            .filter((each) => lacking[0] === undefined || each < lacking[0])
            .sort()
            .at(-1) ?? "";
        expect(frontier.at >= reach).toBe(true);
        if (lacking.length === 0) expect(frontier.at).toBe([...tier2].sort().at(-1) ?? "");
      }
    }),
  );
});
