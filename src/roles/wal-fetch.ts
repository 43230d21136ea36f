// Brings WAL files back to PostgreSQL from the tiers of one cluster: what `get-wal`, its prefetcher and the recovery
// sidecar have in common. One walFetch machine per file.
import { randomUUID } from "node:crypto";
import { open, rename, rm } from "node:fs/promises";
import { dirname, resolve } from "node:path";
import { type Actor, fromPromise, toPromise } from "xstate";
import { connectWal, type WalClient } from "../actors/grpc/wal-client.ts";
import { fileError } from "../actors/wal-fetch/classify.ts";
import { type DownloadOutcome, downloadWal } from "../actors/wal-fetch/download-wal.ts";
import { createPrefetcher, type Prefetcher } from "../actors/wal-fetch/prefetcher.ts";
import {
  openSpool,
  rememberedTier,
  rememberTier,
  takeSpooled,
  temporaryIn,
  tidyTemporaries,
} from "../actors/wal-fetch/spool.ts";
import type { ClientConfig, TlsFiles } from "../config/config.ts";
import type { Log } from "../domain/log.ts";
import { type Failure, failureOf } from "../domain/outcome.ts";
import type { Tier } from "../domain/wal-reader.ts";
import { requireWalName } from "../domain/wal-segment.ts";
import { errorText, KlioError } from "../errors.ts";
import { type DownloadAnswer, type SpoolAnswer, type WalFetchOutput, walFetch } from "../machines/wal-fetch.machine.ts";
import type { Telemetry } from "../telemetry/telemetry.ts";

export type WalTier = { tier: Tier; address: string };
export type AskedTier = Tier | "auto";

/**
 * The tiers that a recovery may read WAL from, tier 1 first. Tier 2 only when recovery from it is enabled. Throws
 * KLIO-TIER-MISSING when the asked tier, or any at all, is not there.
 */
export function walTiers(config: ClientConfig, asked: AskedTier): [WalTier, ...WalTier[]] {
  const all: WalTier[] = [];
  const { address, tier2Address } = config.wal ?? {};
  if (address !== undefined && asked !== "tier2") all.push({ tier: "tier1", address });
  if (tier2Address !== undefined && config.tier2RecoveryEnabled && asked !== "tier1")
    all.push({ tier: "tier2", address: tier2Address });
  const [first, ...rest] = all;
  if (first !== undefined) return [first, ...rest];
  const isGated = asked !== "tier1" && tier2Address !== undefined && !config.tier2RecoveryEnabled;
  throw new KlioError(
    "KLIO-TIER-MISSING",
    asked === "auto"
      ? "no WAL service is configured for recovery"
      : `no WAL service of ${asked} is configured for recovery`,
    {
      hint: isGated
        ? "set tier2_recovery_enabled: true to read from tier 2"
        : `set client.wal.${asked === "tier2" ? "tier2_address" : "address"}`,
    },
  );
}

export type WalFetcherOptions = {
  clusterName: string;
  tls: TlsFiles;
  tiers: readonly [WalTier, ...WalTier[]];
  /** Directory for files fetched ahead. Absent: nothing is fetched ahead, and no tier is remembered. */
  spool?: string;
  /** `count` 0: nothing is fetched ahead. */
  prefetch: { count: number; maxConcurrentDownloads: number };
  /** How often all tiers are asked when one does not answer; waits double from `firstMs` to `limitMs`. */
  attempts: { max: number; firstMs: number; limitMs: number };
  telemetry: Pick<Telemetry, "start" | "clientInterceptors">;
  log: Log;
};

type WalRequest = {
  name: string;
  /** Where it shall be; replaced at once when the whole file is there, untouched before. */
  file: string;
  /** For a segment that no tier has whole: its beginning, padded with zeros, will do. */
  partial: boolean;
  signal?: AbortSignal;
};

export interface WalFetcher extends AsyncDisposable {
  /** Rejects with KLIO-NAME-INVALID, or a bug. May be called concurrently. */
  fetch(request: WalRequest): Promise<WalFetchOutput>;
  /** `name` was handed out by someone else: fetch what follows it. */
  moveTo(name: string, segmentBytes: number): void;
  /** See `Prefetcher.noticeTaken`. */
  noticeTaken(): Promise<boolean>;
  /** Rejects when something that runs by itself met a bug. */
  readonly failed: Promise<never>;
}

/** Connections are made when they are needed. The caller closes it; what was fetched ahead is removed then. */
export async function openWalFetcher(options: WalFetcherOptions): Promise<WalFetcher> {
  const { spool, log, telemetry } = options;
  const bug = Promise.withResolvers<never>();
  bug.promise.catch((error: unknown) => log.error("wal.fetch.bug", errorText(error), { code: "KLIO-BUG" }));
  const clients = new Map<Tier, Promise<WalClient>>();
  const addresses = new Map(options.tiers.map(({ tier, address }) => [tier, address]));
  let lastGood = spool === undefined ? undefined : await rememberedTier(spool);

  const clientOf = (tier: Tier): Promise<WalClient> => {
    const address = addresses.get(tier);
    if (address === undefined) return Promise.reject(new KlioError("KLIO-TIER-MISSING", `${tier} is not configured`));
    const known = clients.get(tier);
    if (known !== undefined) return known;
    const { clusterName, tls } = options;
    const made = connectWal({ address, tls, clusterName, telemetry, log });
    clients.set(tier, made);
    // Not kept: a certificate that is put right is read again by the next request.
    made.catch(() => clients.delete(tier));
    return made;
  };
  const download = async (
    request: { tier: Tier; name: string; into: string },
    signal: AbortSignal | undefined,
  ): Promise<DownloadOutcome> => {
    let client: WalClient;
    try {
      client = await clientOf(request.tier);
    } catch (error) {
      return failureOf(error);
    }
    return downloadWal({ client, ...request, ...(signal !== undefined && { signal }) });
  };
  const order = (): [Tier, ...Tier[]] => {
    const [first, ...rest] = options.tiers.map(({ tier }) => tier);
    const tiers: [Tier, ...Tier[]] = [first ?? options.tiers[0].tier, ...rest];
    return lastGood === tiers[1] && lastGood !== undefined ? [lastGood, tiers[0]] : tiers;
  };
  const markGood = async (tier: Tier): Promise<void> => {
    if (tier === lastGood) return;
    if (lastGood !== undefined || tier !== options.tiers[0].tier)
      log.warn("wal.fetch.tier", `WAL now comes from ${tier}`, { tier });
    lastGood = tier;
    if (spool !== undefined) await rememberTier(spool, tier);
  };

  const isAhead = spool !== undefined && options.prefetch.count > 0;
  let prefetcher: Prefetcher | undefined;
  if (isAhead) {
    await openSpool(spool);
    prefetcher = createPrefetcher({
      spool,
      count: options.prefetch.count,
      maxConcurrent: options.prefetch.maxConcurrentDownloads,
      onBug: bug.reject,
      async download(name, into, signal) {
        let last: DownloadOutcome = { kind: "missing" };
        for (const tier of order()) {
          last = await download({ tier, name, into }, signal);
          if (last.kind === "stored" || signal.aborted) return last;
        }
        return last;
      },
    });
  }

  const tidied = new Map<string, Promise<void>>();
  /** A directory that is not there, or not readable, is told by the download. */
  const tidyOnce = (directory: string): Promise<void> => {
    const known =
      tidied.get(directory) ??
      tidyTemporaries(directory)
        .catch((error: unknown) => failureOf(fileError(error, directory)))
        .then(() => undefined);
    tidied.set(directory, known);
    return known;
  };
  const running = new Set<Actor<typeof walFetch>>();
  const fetch = async ({ name, file, partial, signal }: WalRequest): Promise<WalFetchOutput> => {
    const { kind } = requireWalName(name);
    const target = resolve(file);
    const directory = dirname(target);
    await tidyOnce(directory);
    const inPlace = async (outcome: DownloadOutcome, into: string): Promise<DownloadAnswer> => {
      if (outcome.kind !== "stored") return outcome;
      try {
        await rename(into, target);
        await syncDirectory(directory);
      } catch (error) {
        await rm(into, { force: true });
        return failureOf(fileError(error, target));
      }
      await markGood(outcome.tier);
      return outcome;
    };
    const machine = walFetch.provide({
      actors: {
        takeSpooled: fromPromise<SpoolAnswer, { name: string }>(async () => {
          if (spool === undefined) return { kind: "absent" };
          await prefetcher?.settled(name);
          return (await takeSpooled(spool, name, target))
            ? { kind: "taken", segmentBytes: (await sizeOf(target)) ?? 0 }
            : { kind: "absent" };
        }),
        downloadWal: fromPromise<DownloadAnswer, { name: string; tier: Tier }>(async ({ input, signal: stop }) => {
          const into = temporaryIn(directory, name);
          return inPlace(await download({ ...input, into }, stop), into);
        }),
        downloadPartial: fromPromise<DownloadAnswer, { name: string; tiers: Tier[] }>(
          async ({ input: { tiers }, signal: stop }) => {
            const longest = await longestPartial(tiers, directory, (tier, into) =>
              download({ tier, name: `${name}.partial`, into }, stop),
            );
            return longest.into === undefined ? longest.outcome : inPlace(longest.outcome, longest.into);
          },
        ),
        fetchAhead: fromPromise<null, { name: string; segmentBytes: number }>(async ({ input }) => {
          if (input.segmentBytes > 0) prefetcher?.moveTo(input.name, input.segmentBytes);
          return null;
        }),
      },
    });
    const actor = telemetry.start(machine, {
      id: `walFetch:${name}:${randomUUID().slice(0, 8)}`,
      input: {
        cluster: options.clusterName,
        name,
        tiers: order(),
        partial: partial && kind === "segment",
        prefetch: isAhead && kind === "segment",
        maxAttempts: options.attempts.max,
        firstMs: options.attempts.firstMs,
        limitMs: options.attempts.limitMs,
      },
    });
    running.add(actor);
    const stop = () => actor.send({ type: "shutdown.requested" });
    signal?.addEventListener("abort", stop, { once: true });
    if (signal?.aborted) stop();
    try {
      return await toPromise(actor);
    } finally {
      running.delete(actor);
      signal?.removeEventListener("abort", stop);
    }
  };

  return {
    fetch,
    moveTo: (name, segmentBytes) => prefetcher?.moveTo(name, segmentBytes),
    noticeTaken: async () => (await prefetcher?.noticeTaken()) ?? false,
    failed: bug.promise,
    async [Symbol.asyncDispose]() {
      for (const actor of running) actor.send({ type: "shutdown.requested" });
      await prefetcher?.[Symbol.asyncDispose]();
      for (const client of await Promise.allSettled(clients.values()))
        if (client.status === "fulfilled") client.value.close();
    },
  };
}

/** The unfinished file of each tier; the longest one stays. A tier that fails makes the whole of it fail. */
async function longestPartial(
  tiers: readonly Tier[],
  directory: string,
  download: (tier: Tier, into: string) => Promise<DownloadOutcome>,
): Promise<{ outcome: DownloadOutcome; into?: string }> {
  let best: { outcome: DownloadOutcome & { kind: "stored" }; into: string } | undefined;
  let failure: Failure | undefined;
  for (const tier of tiers) {
    const into = temporaryIn(directory, "partial");
    const outcome = await download(tier, into);
    if (outcome.kind === "retryable" || outcome.kind === "fatal") failure ??= outcome;
    if (outcome.kind !== "stored") continue;
    const isBetter = best === undefined || outcome.bytes > best.outcome.bytes;
    const worse = isBetter ? best?.into : into;
    if (isBetter) best = { outcome, into };
    if (worse !== undefined) await rm(worse, { force: true });
  }
  if (failure === undefined) return best ?? { outcome: { kind: "missing" } };
  if (best !== undefined) await rm(best.into, { force: true });
  return { outcome: failure };
}

async function sizeOf(file: string): Promise<number | undefined> {
  const handle = await open(file, "r");
  try {
    return (await handle.stat()).size;
  } finally {
    await handle.close();
  }
}

async function syncDirectory(directory: string): Promise<void> {
  const handle = await open(directory, "r");
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}
