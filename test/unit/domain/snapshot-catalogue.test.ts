import { expect, test } from "vitest";
import {
  type CatalogueEntry,
  ORPHAN_AGE_MS,
  orphansOf,
  type Run,
  runsOf,
  wholeBackup,
} from "../../../src/domain/snapshot-catalogue.ts";
import type { SnapshotContent } from "../../../src/domain/snapshots.ts";
import { sampleMetadata } from "../../support/sample-backup.ts";

const NOW = 1_800_000_000_000;
let counter = 0;

function entry(
  content: SnapshotContent,
  place: string,
  more: Partial<CatalogueEntry> & { of?: string } = {},
): CatalogueEntry {
  const { of, ...rest } = more;
  const backup = rest.backup ?? "b1";
  counter += 1;
  return {
    id: `id${counter}`,
    user: "klio",
    cluster: "alpha",
    path: `${place}/${content}`,
    backup,
    content,
    startTimeMs: NOW - 1000,
    endTimeMs: NOW - 500,
    bytes: 1,
    files: 1,
    directories: 0,
    pins: [],
    incomplete: false,
    contentId: "k",
    description: { backup, content, host: "h", ...(of !== undefined && { of }) },
    ...rest,
  };
}

const whole = (place: string, more: Partial<CatalogueEntry> = {}) =>
  (["pgdata", "controldata", "metadata"] as const).map((content) => entry(content, place, more));
const oneRun = (entries: CatalogueEntry[]): Run => {
  const { runs } = runsOf(entries);
  if (runs[0] === undefined || runs.length !== 1) throw new Error(`${runs.length} runs`);
  return runs[0];
};
const isWhole = (run: Run) => wholeBackup(run, sampleMetadata(run.backup)) !== undefined;

test("U1: each missing part keeps a backup from being whole", () => {
  const entries = whole("/a");
  expect(wholeBackup(oneRun(entries), sampleMetadata("b1"))?.snapshots).toHaveLength(3);
  for (const one of entries) expect(isWhole(oneRun(entries.filter((other) => other !== one)))).toBe(false);
  const incomplete = [...entries.slice(1), { ...entries[0]!, incomplete: true }];
  expect(isWhole(oneRun(incomplete))).toBe(false);
});

test("U1: every tablespace that the metadata name must be there", () => {
  const metadata = sampleMetadata("b1", "alpha", { tablespaces: [{ name: "fast", oid: 16400, path: "/ts" }] });
  const other = entry("tablespace", "/a", { tablespaceOid: 16401 });
  const right = entry("tablespace", "/a", { tablespaceOid: 16400 });
  expect(wholeBackup(oneRun(whole("/a")), metadata)).toBeUndefined();
  expect(wholeBackup(oneRun([...whole("/a"), other]), metadata)).toBeUndefined();
  expect(wholeBackup(oneRun([...whole("/a"), right]), metadata)?.snapshots).toHaveLength(4);
});

test("U1: snapshots of two runs or two clusters are never joined", () => {
  const [pgdata, control, metadata] = whole("/a");
  const elsewhere = { ...metadata!, path: "/b/metadata" };
  expect(runsOf([pgdata!, control!, elsewhere]).runs.some(isWhole)).toBe(false);
  expect(runsOf([pgdata!, control!, { ...metadata!, cluster: "beta" }]).runs.some(isWhole)).toBe(false);
});

test("U2: a tombstone makes all of its run orphans, whole or not, and itself; other runs of that name stay", () => {
  const dead = whole("/a");
  const alive = whole("/b");
  const stone = entry("tombstone", "/t", { of: "/a" });
  const ids = orphansOf([...dead, ...alive, stone], isWhole, NOW).map(({ id }) => id);
  expect(new Set(ids)).toEqual(new Set([...dead, stone].map(({ id }) => id)));
});

test("U2: a tombstone of another cluster does nothing but go itself", () => {
  const stone = entry("tombstone", "/t", { of: "/a", cluster: "beta" });
  expect(orphansOf([...whole("/a"), stone], isWhole, NOW).map(({ id }) => id)).toEqual([stone.id]);
});

test("U3: a run that is not whole stays while something was added to it within the limit", () => {
  const at = (ageMs: number, incomplete = false) =>
    entry("pgdata", "/a", { startTimeMs: NOW - ageMs, endTimeMs: NOW - ageMs, incomplete });
  const old = at(ORPHAN_AGE_MS + 1);
  expect(orphansOf([old], isWhole, NOW)).toHaveLength(1);
  expect(orphansOf([at(ORPHAN_AGE_MS)], isWhole, NOW)).toEqual([]);
  expect(orphansOf([old, at(1000, true)], isWhole, NOW)).toEqual([]);
});

test("U3: of a whole run only interim states may go, however old it is", () => {
  const age = { startTimeMs: NOW - 10 * ORPHAN_AGE_MS, endTimeMs: NOW - 10 * ORPHAN_AGE_MS };
  const interim = entry("pgdata", "/a", { ...age, incomplete: true });
  expect(orphansOf([...whole("/a", age), interim], isWhole, NOW).map(({ id }) => id)).toEqual([interim.id]);
});
