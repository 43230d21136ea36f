import { expect, test } from "vitest";
import { decideWalPruning, hasItsWal, type WalNeed } from "../../../src/domain/wal-retention.ts";

const wal = (n: number, timeline = 1) =>
  `${String(timeline).padStart(8, "0")}00000000${n.toString(16).toUpperCase().padStart(8, "0")}`;
const need = (startWal: string, backupLabel = ""): WalNeed => ({ name: `b-${startWal}`, startWal, backupLabel });
const names = [1, 2, 3, 4, 5].map((n) => wal(n));

test("complete segments below the oldest backup's first one go", () => {
  const decision = decideWalPruning({ names, backups: [need(wal(4)), need(wal(3))], bounds: [] });
  expect(decision).toEqual({ first: wal(3), names: [wal(1), wal(2)], heldBy: "" });
});

test("without a backup, or with one that does not say where it begins, everything stays", () => {
  expect(decideWalPruning({ names, backups: [], bounds: [] }).names).toEqual([]);
  const unsure = decideWalPruning({ names, backups: [need(wal(4)), need("")], bounds: [] });
  expect(unsure).toMatchObject({ names: [], heldBy: "backup b- does not say where its WAL begins" });
});

test("metadata that contradicts the backup label deletes nothing", () => {
  const label = `START WAL LOCATION: 0/2000028 (file ${wal(2)})\nCHECKPOINT LOCATION: 0/2000060\n`;
  expect(decideWalPruning({ names, backups: [need(wal(4), label)], bounds: [] }).heldBy).toContain("its label says");
  expect(decideWalPruning({ names, backups: [need(wal(2), label)], bounds: [] }).names).toEqual([wal(1)]);
});

test("P2: the frontier and the oldest waiting task clamp; no frontier forbids", () => {
  const backups = [need(wal(5))];
  expect(decideWalPruning({ names, backups, bounds: [wal(4), wal(3)] }).names).toEqual([wal(1), wal(2)]);
  expect(decideWalPruning({ names, backups, bounds: [wal(4), `${wal(2)}.partial`] }).names).toEqual([wal(1)]);
  expect(decideWalPruning({ names, backups, bounds: [""] })).toMatchObject({ names: [] });
});

test("older timelines go with their segments, history files and labels stay, partial files only go when superseded", () => {
  const all = [
    wal(1),
    `${wal(2)}.partial`,
    wal(2, 2),
    `${wal(2, 2)}.partial`,
    "00000002.history",
    `${wal(1)}.00000028.backup`,
    "junk",
  ];
  const decision = decideWalPruning({ names: all, backups: [need(wal(2, 2))], bounds: [] });
  expect(decision.names).toEqual([wal(1), `${wal(2, 2)}.partial`]);
});

test("a backup has its WAL when every file of its range is there; not when the range is none", () => {
  const range = { startWal: wal(2), endWal: wal(4), segmentSize: 16 << 20 };
  expect(hasItsWal(range, new Set(names))).toBe(true);
  expect(hasItsWal(range, new Set([wal(2), `${wal(3)}.partial`, wal(4)]))).toBe(false);
  expect(hasItsWal({ ...range, endWal: wal(1) }, new Set(names))).toBe(false);
  expect(hasItsWal({ ...range, startWal: "" }, new Set(names))).toBe(false);
  // Such a range takes more than a second to be written out, in which the server does nothing else.
  const endless = { ...range, startWal: wal(1), endWal: "0000000100000F4000000000" };
  const started = performance.now();
  for (let i = 0; i < 10; i++) expect(hasItsWal(endless, new Set(names))).toBe(false);
  expect(performance.now() - started).toBeLessThan(1_000);
});
