// The reconciler's IO: listings of both tiers and of the queue, and what makes them equal again.
import { fromPromise } from "xstate";
import { dropDeadLetter, listDeadLetters, retryDeadLetter } from "../actors/jetstream/dead-letters.ts";
import type { Queue } from "../actors/jetstream/queue.ts";
import type { TierRelation } from "../actors/s3/upload-segment.actor.ts";
import type { Relation } from "../domain/compare-content.ts";
import { walKey, walRoot } from "../domain/object-key.ts";
import { type Outcome, ok } from "../domain/outcome.ts";
import { compareTiers, type TierDifference } from "../domain/tier-difference.ts";
import type { StoredWal } from "../domain/wal-reader.ts";
import { decideWalPruning } from "../domain/wal-retention.ts";
import { type ErrorCode, errorTable, KlioError } from "../errors.ts";
import { type Findings, type Repairs, reconciler } from "../machines/reconciler.machine.ts";
import { messageId } from "../wire/queue-message.ts";
import type { TaskKind } from "../wire/subject.ts";
import {
  guarded,
  isFailure,
  needsOfTier2,
  type OffloadParts,
  openedTier2,
  type Tier2Parts,
  waitingForTier2,
} from "./offload-parts.ts";

/** Tasks sent per cluster and round; the rest follows in the next one, so that no cluster fills the queue alone. */
const MAX_TASKS = 5_000;
/** An upload in parts that is older than this belongs to nobody. */
const STALE_UPLOAD_MS = 24 * 3_600_000;

type Suspicion = TierDifference["suspicious"][number];
const keyOf = ({ name, tier1Bytes, tier2Bytes }: Suspicion) => `${name}/${tier1Bytes}/${tier2Bytes}`;

export type ReconcileHooks = {
  /** How tier 2's file relates to tier 1's of the same name, by their contents. */
  relationOf(cluster: string, name: string): Promise<TierRelation>;
  listing(cluster: string): void;
  listed(cluster: string, missing: string[], held: string[]): void;
  partials(cluster: string, names: string[]): void;
  /** Epoch milliseconds of the newest WAL file that tier 2 holds. */
  newest(cluster: string, mtimeMs: number): void;
  enqueueBackup(cluster: string, backup: string): Promise<Outcome<void>>;
};

function isCode(code: string): code is ErrorCode {
  return Object.hasOwn(errorTable, code);
}
const isFatal = (code: string) => isCode(code) && errorTable[code].kind === "fatal";

/**
 * Sends the dead letters of a cluster again, each one once: its task is in the queue until it succeeds or is buried anew. Sent in
 * each round, the tasks of one would end as several letters, and those as more. Of several about one thing the newest stays.
 */
function resender(queue: Queue) {
  /** Kind and cluster -> numbers of letters that were sent again. */
  const sent = new Map<string, Set<number>>();
  queue.onLost(() => sent.clear());
  return async (kind: TaskKind, cluster: string): Promise<Outcome<void>> => {
    const dead = await listDeadLetters(queue, kind, cluster);
    if (dead.kind !== "ok") return dead;
    const before = sent.get(`${kind}/${cluster}`);
    const now = new Set<number>();
    const told = new Set<string>();
    for (const letter of dead.value) {
      const { code, name, sequence } = letter;
      if (told.has(name)) await dropDeadLetter(queue, kind, sequence);
      else if (before?.has(sequence)) now.add(sequence);
      // What only a person can help is left to that person.
      else if (!isFatal(code) && (await retryDeadLetter(queue, letter)).kind === "ok") now.add(sequence);
      told.add(name);
    }
    sent.set(`${kind}/${cluster}`, now);
    return ok(undefined);
  };
}

/** The reconciler machine with its IO. */
export function reconcilerOf(parts: OffloadParts, hooks: ReconcileHooks) {
  const { store, settings, queue, log, tier2 } = parts;
  /**
   * Stored sizes differ when a file was packed anew on its way; what was checked once is not checked again. By cluster, and
   * only what its last listing had: files come and go for as long as the server lives.
   */
  const cleared = new Map<string, ReadonlySet<string>>();
  const letters = resender(parts.queue);

  async function clusters(only: string): Promise<Outcome<string[]>> {
    const opened = openedTier2(parts);
    if (isFailure(opened)) return opened;
    const dropped = await opened.objects.abortUploads(walRoot(tier2.prefix), Date.now() - STALE_UPLOAD_MS);
    if (dropped.kind !== "ok") log.debug("reconciler.uploads", dropped.reason);
    if (only !== "") return ok([only]);
    return ok([...new Set([...(await store.clusters()), ...(await opened.reader.clusters())])].toSorted());
  }

  /** Segments below it were pruned from tier 2 on purpose. */
  async function floorOf(opened: Tier2Parts, cluster: string): Promise<string> {
    const needs = await needsOfTier2(parts, opened, cluster);
    return needs.kind === "ok" ? decideWalPruning({ names: [], backups: needs.value, bounds: [] }).first : "";
  }

  /** How the contents of a file that both tiers have relate, seen from tier 2; `damaged`: tier 1's has none. */
  async function relationOf(
    opened: Tier2Parts,
    cluster: string,
    { name, tier2Bytes }: Suspicion,
  ): Promise<Relation | "damaged"> {
    if (name.endsWith(".partial")) {
      const relation = await hooks.relationOf(cluster, name);
      return relation === "gone" ? "prefix" : relation === "alone" ? "same" : relation;
    }
    try {
      const exported = await store.exportTo(cluster, name, opened.masterKey);
      await exported?.close();
      return exported === undefined || exported.bytes === tier2Bytes ? "same" : "different";
    } catch (error) {
      // One bad file must not keep the cluster's others from being compared.
      if (error instanceof KlioError && error.code === "KLIO-WAL-DAMAGED") return "damaged";
      throw error;
    }
  }

  /** `grown`: partial files of which tier 2 has only the beginning. */
  async function lookAt(opened: Tier2Parts, cluster: string, suspicious: readonly Suspicion[]) {
    const found = { different: [] as string[], damaged: [] as string[], grown: [] as StoredWal[] };
    const before = cleared.get(cluster);
    const same = new Set(suspicious.map(keyOf).filter((key) => before?.has(key)));
    // From now on, not at the end: thousands may have to be read, and are not read again when one of the last cannot be.
    if (suspicious.length > 0) cleared.set(cluster, same);
    else cleared.delete(cluster);
    for (const one of suspicious) {
      const { name, tier1Bytes } = one;
      if (same.has(keyOf(one))) continue;
      const relation = await relationOf(opened, cluster, one);
      if (relation === "different" || relation === "damaged") found[relation].push(name);
      else if (relation === "prefix") found.grown.push({ name, storedBytes: tier1Bytes, mtimeMs: 0 });
      else same.add(keyOf(one));
    }
    return found;
  }

  async function compare(cluster: string): Promise<Outcome<Findings>> {
    const opened = openedTier2(parts);
    if (isFailure(opened)) return opened;
    hooks.listing(cluster);
    // Tier 2 first: what is stored in between then shows as missing, never as held.
    const there = await opened.reader.listAll(cluster);
    const here = await store.list(cluster);
    // The setting of a cluster whose first file has just come may not be written yet.
    const isUsed = there.files.length > 0 || parts.frontierOf(cluster).missing.length > 0;
    const wanted = (await settings.read(cluster)).sendToTier2 ?? isUsed;
    const difference = compareTiers({
      tier1: wanted ? here : [],
      tier2: there.files,
      foreign: there.foreign,
      floor: await floorOf(opened, cluster),
    });
    const held = there.files.map(({ name }) => name);
    const { different, damaged, grown } = await lookAt(opened, cluster, difference.suspicious);
    const missing = [...difference.missing, ...grown];
    // What tier 2 has with other bytes it lacks: tier 1 must keep the file. Of a damaged one there is nothing to keep for it.
    const differing = new Set(different);
    const lacking = [...missing.map(({ name }) => name), ...different].toSorted();
    hooks.listed(
      cluster,
      lacking,
      held.filter((name) => !differing.has(name)),
    );
    hooks.partials(
      cluster,
      held.filter((name) => name.endsWith(".partial")),
    );
    if (there.files.length > 0) hooks.newest(cluster, Math.max(...there.files.map(({ mtimeMs }) => mtimeMs)));
    const pending = await queue.pendingOf("wal", cluster);
    if (pending.kind !== "ok") return pending;
    const dead = await listDeadLetters(queue, "wal", cluster);
    if (dead.kind !== "ok") return dead;
    const buried = new Set(dead.value.map(({ name }) => name));
    const unsent = missing.filter(({ name }) => !buried.has(name));
    // As many tasks wait as files are missing: they are those.
    const toSend = pending.value >= unsent.length ? [] : unsent.slice(0, MAX_TASKS);
    const backups = await missingBackups(cluster);
    if (backups.kind !== "ok") return backups;
    return ok({
      cluster,
      missing: missing.length,
      names: toSend.map(({ name, storedBytes }) => ({ name, bytes: storedBytes })),
      stalePartials: difference.stalePartials,
      different: [...different, ...damaged].toSorted(),
      foreign: difference.foreign,
      backups: backups.value,
    });
  }

  async function missingBackups(cluster: string): Promise<Outcome<string[]>> {
    const waiting = await waitingForTier2(parts, cluster);
    if (waiting.kind !== "ok") return waiting;
    const dead = await listDeadLetters(queue, "backup", cluster);
    if (dead.kind !== "ok") return dead;
    const pending = await queue.pendingOf("backup", cluster);
    if (pending.kind !== "ok") return pending;
    const buried = new Set(dead.value.map(({ name }) => name));
    const unsent = waiting.value.map(({ metadata }) => metadata.name).filter((name) => !buried.has(name));
    return ok(pending.value >= unsent.length ? [] : unsent);
  }

  async function repair({ cluster, names, stalePartials, backups }: Findings): Promise<Outcome<Repairs>> {
    const opened = openedTier2(parts);
    if (isFailure(opened)) return opened;
    for (const { name, bytes } of names) {
      const sent = await queue.publish(
        "wal",
        { clusterName: cluster, walName: name, bytes },
        { id: messageId("wal", cluster, name, bytes) },
      );
      if (sent.kind !== "ok") return sent;
    }
    for (const kind of ["wal", "backup"] as const) {
      const resent = await letters(kind, cluster);
      if (resent.kind !== "ok") return resent;
    }
    for (const backup of backups) {
      const sent = await hooks.enqueueBackup(cluster, backup);
      if (sent.kind !== "ok") return sent;
    }
    if (stalePartials.length > 0) {
      const removed = await opened.objects.remove(stalePartials.map((name) => walKey(tier2.prefix, cluster, name)));
      if (removed.kind !== "ok") return removed;
    }
    return ok({ enqueued: names.length, removed: stalePartials.length, enqueuedBackups: backups.length });
  }

  return reconciler.provide({
    actors: {
      listClusters: fromPromise<Outcome<string[]>, { only: string }>(({ input }) =>
        guarded(() => clusters(input.only)),
      ),
      compareCluster: fromPromise<Outcome<Findings>, { cluster: string }>(({ input }) =>
        guarded(() => compare(input.cluster)),
      ),
      repairCluster: fromPromise<Outcome<Repairs>, { findings: Findings }>(({ input }) =>
        guarded(() => repair(input.findings)),
      ),
    },
  });
}
