// The comparison of a cluster's tiers over listings in memory.
import { expect, test } from "vitest";
import { createActor } from "xstate";
import { failure, ok } from "../../../src/domain/outcome.ts";
import { KlioError } from "../../../src/errors.ts";
import type { OffloadParts } from "../../../src/roles/offload-parts.ts";
import { reconcilerOf } from "../../../src/roles/offload-reconcile.ts";
import { ListedRepository, wal } from "../../support/offload-bench.ts";
import { testLog } from "../../support/test-log.ts";

/** Files 1 to 4 of cluster `a`, all with another size on tier 2. `look`: what reading one of tier 1 for tier 2 does. */
function comparison(look: (name: string) => { bytes: number }) {
  const files = (storedBytes: number) => [1, 2, 3, 4].map((n) => ({ name: wal(n), storedBytes, mtimeMs: 0 }));
  const listings: { missing: string[]; held: string[] }[] = [];
  const down = async () => failure("KLIO-QUEUE-DOWN", "no queue here");
  const parts = {
    store: {
      clusters: async () => ["a"],
      list: async () => files(100),
      exportTo: async (_: string, name: string) => ({ ...look(name), close: async () => undefined }),
    },
    repository: new ListedRepository("tier1"),
    tier2: {
      isWanted: true,
      prefix: "p",
      parts: {
        objects: { abortUploads: async () => ok(0) },
        reader: { clusters: async () => ["a"], listAll: async () => ({ files: files(50), foreign: [] }) },
        repository: new ListedRepository("tier2"),
      },
    },
    settings: { read: async () => ({ sendToTier2: true }) },
    queue: { onLost: () => undefined, pendingOf: down },
    log: testLog(),
    frontierOf: () => ({ missing: [] }),
  } as unknown as OffloadParts;
  const ignore = () => undefined;
  const machine = reconcilerOf(parts, {
    relationOf: async () => "same",
    listing: ignore,
    listed: (_, missing, held) => listings.push({ missing, held }),
    partials: ignore,
    newest: ignore,
    enqueueBackup: async () => ok(undefined),
  });
  const actor = createActor(machine, { input: { periodMs: 3_600_000 } });
  const finished = () => new Promise<void>((resolve) => void actor.on("reconcile.finished", () => resolve()));
  const round = (isFirst: boolean) => {
    const end = finished();
    if (isFirst) actor.start();
    else actor.send({ type: "reconcile.requested", cluster: "a" });
    return end;
  };
  return { listings, round, [Symbol.dispose]: () => actor.stop() };
}

test("what a comparison that failed had read is not read again in the next one", async () => {
  const looks: string[] = [];
  let isBroken = true;
  using tiers = comparison((name) => {
    looks.push(name);
    if (isBroken && name === wal(4)) throw new KlioError("KLIO-STORE-IO", "no such device");
    return { bytes: 50 };
  });
  await tiers.round(true);
  isBroken = false;
  await tiers.round(false);
  expect(looks).toEqual([wal(1), wal(2), wal(3), wal(4), wal(4)]);
  expect(tiers.listings).toHaveLength(1);
});

test("a file that is damaged on tier 1 does not hold the frontier, one with other bytes does", async () => {
  using tiers = comparison((name) => {
    if (name === wal(2)) throw new KlioError("KLIO-WAL-DAMAGED", "it has no footer");
    return { bytes: name === wal(3) ? 49 : 50 };
  });
  await tiers.round(true);
  expect(tiers.listings[0]).toEqual({ missing: [wal(3)], held: [wal(1), wal(2), wal(4)] });
});
