// The way to tier 2: queue, WAL offload, backup relay, reconciler and retention of one server. Nothing here is ever waited
// for by WAL reception (P4); with tier 1 alone only the maintenance is left.
import { type Actor, toPromise } from "xstate";
import type { AdminHandlers } from "../actors/grpc/serve-admin.actor.ts";
import { consumerPolicies } from "../actors/jetstream/streams.ts";
import { taskSource } from "../actors/jetstream/task-source.actor.ts";
import { segmentUploader } from "../actors/s3/upload-segment.actor.ts";
import { SettingsStore } from "../actors/spool/cluster-settings.ts";
import type { WalStore } from "../actors/spool/wal-store.ts";
import type { DivergenceReport, ReadMeasure, ReadPurpose } from "../domain/cluster-status.ts";
import type { FactOf } from "../domain/facts.ts";
import { type Frontier, noFrontier } from "../domain/frontier.ts";
import type { Log } from "../domain/log.ts";
import type { SnapshotRepository, TierName } from "../domain/snapshots.ts";
import { frontierOf, type QueueFact, type QueueLimits } from "../domain/task-scheduling.ts";
import { errorText, KlioError } from "../errors.ts";
import { offloadQueue, type QueueEvent } from "../machines/offload-queue.machine.ts";
import type { ReconcileReport, reconciler } from "../machines/reconciler.machine.ts";
import { segmentOffload } from "../machines/segment-offload.machine.ts";
import type { Telemetry } from "../telemetry/telemetry.ts";
import type { TaskKind } from "../wire/subject.ts";
import { adminOf } from "./offload-admin.ts";
import { type BackupDesk, backupDesk } from "./offload-backups.ts";
import { watchDivergence, watchQueue } from "./offload-gauges.ts";
import { logQueueFact, reportLog } from "./offload-log.ts";
import { startOutbox } from "./offload-outbox.ts";
import type { OffloadParts, Tier2Parts } from "./offload-parts.ts";
import { type QueueSource, type RunningQueue, runQueue } from "./offload-queue.ts";
import { reconcilerOf } from "./offload-reconcile.ts";
import { relayOf } from "./offload-relay.ts";
import { type Maintenance, retentionOf } from "./offload-retention.ts";
import { divergenceIn, statusSources } from "./offload-status.ts";
import { type StatusSources, serverStatus } from "./server-status.ts";
import { beginCounters } from "./stored-times.ts";

export type OffloadOptions = {
  store: WalStore;
  /** The directory of `store`. */
  walDirectory: string;
  /** Tier 1's base repository. */
  repository: SnapshotRepository;
  /** Absent: the server has no tier 2. `whenOpen` resolves when it could be opened, also long after the start. */
  tier2?: { prefix: string; whenOpen: Promise<Tier2Parts> };
  queue: QueueSource;
  telemetry: Telemetry;
  log: Log;
  signal: AbortSignal;
  /** How exposed a cluster is on a tier; absent: nobody hears of it. */
  exposure?: StatusSources["exposure"];
  /** Between two rounds of the reconciler; default 15 minutes. */
  reconcileMs?: number;
  /** For tests of back-off and budget. */
  limits?: Partial<QueueLimits>;
};

type StoredFact = Pick<FactOf<"wal.stored">, "cluster" | "name" | "sendToTier2" | "traceparent">;

export type OffloadRole = Omit<BackupDesk, "enqueueBackup"> & {
  /** Returns at once, whatever the queue and tier 2 do. Also for files that broke off (named with `.partial`). */
  onStored(fact: StoredFact): void;
  /** How far tier 2 holds a cluster's WAL, and what it lacks. */
  frontier(cluster: string): Frontier;
  /** Why tier 2 is not taking anything now, or undefined. */
  paused(): { code: string; reason: string } | undefined;
  readonly admin: AdminHandlers;
  /** Remembers how fast a backup was read. */
  onRead(cluster: string, read: { tier: TierName; purpose: ReadPurpose } & Omit<ReadMeasure, "at">): Promise<void>;
  /** Resolves when the embedded queue server is given up. */
  readonly failed: Promise<KlioError>;
  /** Process id of the embedded queue server, 0 while it is down. */
  queuePid(): number;
  /** For people. */
  queueState(): { ready: boolean; detail: string };
  /** Running uploads are interrupted, their tasks stay. Safe to call twice. */
  stop(): Promise<void>;
};

const RECONCILE_MS = 15 * 60_000;

const limitsOf = (kind: TaskKind): QueueLimits => ({
  maxConcurrent: kind === "wal" ? 16 : 2,
  perCluster: kind === "wal" ? 16 : 1,
  // Ten segments of the usual size. Not much of a file is in memory while it is sent; of a large one its parts in hand are.
  maxBytes: 170 << 20,
  window: kind === "wal" ? 1_024 : 64,
  maxDeliveries: consumerPolicies[kind].maxDeliveries,
  delaysMs: [...consumerPolicies[kind].backoffMs],
  deferMs: 60_000,
  probe: { firstMs: 1_000, limitMs: 60_000 },
});

/** Rejects with KLIO-QUEUE-DOWN or KLIO-CANCELLED. The caller stops it before it closes store and repository. */
export async function startOffload(options: OffloadOptions): Promise<OffloadRole> {
  const { telemetry, log, signal } = options;
  const running = await runQueue({ source: options.queue, telemetry, log, signal });
  return new Offload(options, running);
}

class Offload implements OffloadRole {
  readonly closeBackup: BackupDesk["closeBackup"];
  readonly maintainBackups: BackupDesk["maintainBackups"];
  readonly admin: AdminHandlers;
  readonly failed: Promise<KlioError>;
  readonly #options: OffloadOptions;
  readonly #running: RunningQueue;
  readonly #parts: OffloadParts;
  readonly #desk: BackupDesk;
  readonly #outbox: ReturnType<typeof startOutbox>;
  readonly #queues: Partial<Record<TaskKind, Actor<typeof offloadQueue>>> = {};
  readonly #stopGauges: () => void;
  readonly #maintenance: Maintenance;
  /** Frontiers to be recorded; only the latest of a cluster is written. */
  readonly #records = new Map<string, string>();
  /** Clusters that were seen since the reconciler began. */
  readonly #known = new Set<string>();
  /** What the last round found, by cluster. */
  readonly #divergence = new Map<string, DivergenceReport>();
  #reconciler: Actor<typeof reconciler> | undefined;
  #stopping: Promise<void> | undefined;

  constructor(options: OffloadOptions, running: RunningQueue) {
    const { store, walDirectory, repository, telemetry, log } = options;
    const { queue } = running;
    this.#options = options;
    this.#running = running;
    this.failed = running.failed;
    this.#parts = {
      store,
      walDirectory,
      repository,
      tier2: { isWanted: options.tier2 !== undefined, prefix: options.tier2?.prefix ?? "", parts: undefined },
      settings: new SettingsStore(walDirectory),
      queue,
      telemetry,
      log,
      frontierOf: (cluster) => this.frontier(cluster),
    };
    this.#maintenance = retentionOf(this.#parts);
    const { maintain } = this.#maintenance;
    this.#desk = backupDesk(this.#parts, maintain);
    this.closeBackup = this.#desk.closeBackup;
    this.maintainBackups = this.#desk.maintainBackups;
    const sources = statusSources(this.#parts, {
      exposure: options.exposure ?? (() => undefined),
      divergence: (cluster) => this.#divergence.get(cluster),
      paused: () => this.paused(),
    });
    this.admin = adminOf(
      this.#parts,
      maintain,
      (cluster) => this.#reconcile(cluster),
      (cluster) => serverStatus(sources, cluster),
    );
    this.#outbox = startOutbox({ queue, walDirectory, log, onLost: () => this.#request("") });
    const stopQueue = watchQueue({ queue, telemetry, log });
    const stopDivergence = watchDivergence(this.#divergence, telemetry);
    this.#stopGauges = () => {
      stopQueue();
      stopDivergence();
    };
    queue.onLost(() => {
      log.warn("queue.lost", "the queue lost its tasks; a listing finds their files");
      this.#request("");
    });
    this.#startQueue("backup", { worker: relayOf(this.#parts, maintain, this.#desk.enqueueBackup) });
    options.tier2?.whenOpen.then(
      (opened) => this.#openTier2(opened),
      (error: unknown) => {
        if (!options.signal.aborted) log.error("offload.tier2", `tier 2 cannot be used: ${errorText(error)}`);
      },
    );
  }

  onStored({ cluster, name, sendToTier2, traceparent }: StoredFact): void {
    const { tier2, log } = this.#parts;
    if (!tier2.isWanted || this.#stopping !== undefined) return;
    this.#keepSetting(cluster, sendToTier2).catch((error: unknown) => {
      log.warn("offload.settings", `cannot remember the settings of ${cluster}: ${errorText(error)}`, { cluster });
    });
    if (!sendToTier2) return;
    // A cluster's first file: what tier 2 holds of it is not known before it was listed.
    if (!this.#known.has(cluster) && this.#reconciler !== undefined) {
      this.#known.add(cluster);
      beginCounters("tier2", cluster, this.#parts.telemetry);
      if (!this.frontier(cluster).listed) this.#request(cluster);
    }
    this.#queues.wal?.send({ type: "wal.stored", cluster, name });
    this.#outbox.add({ cluster, name, traceparent: traceparent ?? "" });
  }

  onRead(cluster: string, { tier, purpose, ...read }: Parameters<OffloadRole["onRead"]>[1]): Promise<void> {
    return this.#parts.settings.writeRead(cluster, tier, purpose, { ...read, at: Math.floor(Date.now() / 1000) });
  }

  frontier(cluster: string): Frontier {
    const context = this.#queues.wal?.getSnapshot().context;
    return context === undefined ? noFrontier : frontierOf(context, cluster);
  }

  paused(): { code: string; reason: string } | undefined {
    const { tier2 } = this.#parts;
    if (tier2.isWanted && tier2.parts === undefined)
      return { code: "KLIO-S3-DOWN", reason: "tier 2 could not be opened yet" };
    const snapshot = this.#queues.wal?.getSnapshot();
    if (snapshot === undefined || snapshot.matches({ open: "pulling" })) return undefined;
    return { code: snapshot.context.code, reason: snapshot.context.reason };
  }

  queuePid(): number {
    return this.#running.pid();
  }

  readonly queueState = () => ({ ready: true, detail: this.#running.state() });

  stop(): Promise<void> {
    this.#stopping ??= this.#stop();
    return this.#stopping;
  }

  async #stop(): Promise<void> {
    this.#outbox.stop();
    this.#stopGauges();
    this.#reconciler?.send({ type: "shutdown.requested" });
    for (const actor of Object.values(this.#queues)) {
      actor.send({ type: "shutdown.requested" });
      await toPromise(actor).catch(() => undefined); // a queue that broke was told when it did
    }
    await this.#maintenance.stop();
    await this.#running.close();
  }

  #startQueue(kind: TaskKind, actors: Parameters<typeof offloadQueue.provide>[0]["actors"]) {
    const { telemetry, log, queue } = this.#parts;
    const limits = { ...limitsOf(kind), ...this.#options.limits };
    const crowd = limits.window / 2;
    const source = taskSource({ queue, kind, report: telemetry.record, log, random: Math.random, crowd });
    const machine = offloadQueue.provide({ actors: { ...actors, taskSource: source } });
    const actor: Actor<typeof offloadQueue> = telemetry.start(machine, {
      id: `offloadQueue/${kind}`,
      input: { name: kind, limits, spread: Math.random() },
    });
    actor.on("*", (fact) => this.#onFact(fact));
    actor.subscribe({ error: (error) => log.error("offload.failed", `the ${kind} queue broke: ${errorText(error)}`) });
    this.#queues[kind] = actor;
    return actor;
  }

  #onFact(fact: QueueFact): void {
    if (fact.type === "frontier.advanced") void this.#record(fact.cluster, fact.at);
    else if (fact.type === "horizon.reached") this.#request(fact.cluster);
    else logQueueFact(this.#parts.log, fact);
  }

  async #keepSetting(cluster: string, sendToTier2: boolean): Promise<void> {
    const { settings } = this.#parts;
    const before = (await settings.read(cluster)).sendToTier2;
    await settings.write(cluster, { sendToTier2 });
    // What was stored while it was not to be sent is missing on tier 2 from now on.
    if (before === false && sendToTier2 && this.#stopping === undefined) this.#request(cluster);
  }

  async #record(cluster: string, at: string): Promise<void> {
    const isRunning = this.#records.has(cluster);
    this.#records.set(cluster, at);
    if (isRunning) return;
    const { queue, log } = this.#parts;
    for (let written = ""; this.#records.get(cluster) !== written; ) {
      written = this.#records.get(cluster) ?? written;
      const recorded = await queue.recordLatest(cluster, written);
      if (recorded.kind !== "ok") log.debug("queue.frontier", `${recorded.reason}; it is not recorded`, { cluster });
    }
    this.#records.delete(cluster);
  }

  async #openTier2(opened: Tier2Parts): Promise<void> {
    if (this.#stopping !== undefined) return;
    const { store, tier2, queue, telemetry, log } = this.#parts;
    const uploader = segmentUploader({
      exportFile: (cluster, name) => store.exportTo(cluster, name, opened.masterKey),
      tier1: store,
      tier2: opened.reader,
      objects: opened.objects,
      prefix: tier2.prefix,
      log,
    });
    const wal = this.#startQueue("wal", { worker: segmentOffload.provide({ actors: uploader.logics }) });
    tier2.parts = opened;
    const latest = await queue.readLatest();
    if (latest.kind === "ok")
      for (const [cluster, at] of Object.entries(latest.value)) wal.send({ type: "frontier.restored", cluster, at });
    /** A listing may end after the queue has. */
    const tell = (event: QueueEvent) => {
      if (wal.getSnapshot().status === "active") wal.send(event);
    };
    const hydrated = new Set<string>();
    const machine = reconcilerOf(this.#parts, {
      listing: (cluster) => tell({ type: "cluster.listing", cluster }),
      listed: (cluster, missing, held) => tell({ type: "cluster.listed", cluster, missing, held }),
      relationOf: uploader.relationOf,
      partials: uploader.notePartials,
      newest(cluster, mtimeMs) {
        if (hydrated.has(cluster)) return;
        hydrated.add(cluster);
        telemetry.hydrate("klio.consumer.latest_written_time", { cluster_name: cluster }, mtimeMs / 1000);
      },
      enqueueBackup: this.#desk.enqueueBackup,
    });
    if (this.#stopping !== undefined) return;
    this.#reconciler = telemetry.start(machine, {
      id: "reconciler/server",
      input: { periodMs: this.#options.reconcileMs ?? RECONCILE_MS },
    });
    const logReport = reportLog(log);
    this.#reconciler.on("reconcile.finished", ({ report }) => {
      logReport(report);
      for (const [cluster, found] of divergenceIn(report, Date.now() / 1000)) this.#divergence.set(cluster, found);
    });
    this.#reconciler.subscribe({
      error: (error) => log.error("reconciler.failed", `the reconciler broke: ${errorText(error)}`),
    });
    log.info("offload.started", "files go to tier 2");
  }

  #request(cluster: string): void {
    this.#reconciler?.send({ type: "reconcile.requested", cluster });
  }

  /** The report of the first round that begins after this call. */
  #reconcile(cluster = ""): Promise<ReconcileReport> {
    const actor = this.#reconciler;
    if (actor === undefined) {
      const { isWanted } = this.#parts.tier2;
      const reason = isWanted ? "tier 2 could not be opened yet" : "this server has no tier 2";
      return Promise.reject(new KlioError(isWanted ? "KLIO-S3-DOWN" : "KLIO-TIER-MISSING", reason));
    }
    // A round that runs has its number already: the next one is that of this request, in either case.
    const wanted = actor.getSnapshot().context.round + 1;
    return new Promise((resolve, reject) => {
      const heard = actor.on("reconcile.finished", ({ report }) => {
        if (report.round < wanted) return;
        heard.unsubscribe();
        ended.unsubscribe();
        resolve(report);
      });
      const ended = actor.subscribe({
        complete: () => reject(new KlioError("KLIO-CANCELLED", "the server is stopping")),
        error: reject,
      });
      actor.send({ type: "reconcile.requested", cluster });
    });
  }
}
