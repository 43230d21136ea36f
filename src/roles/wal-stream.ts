// The WAL of one source cluster: the stream, the guard of its slot, and what both say to log and metrics.
import { randomInt } from "node:crypto";
import { context } from "@opentelemetry/api";
import { type Actor, toPromise } from "xstate";
import { fetchHistory } from "../actors/grpc/fetch-history.actor.ts";
import { negotiateStart } from "../actors/grpc/negotiate-start.actor.ts";
import { recordGap } from "../actors/grpc/record-gap.actor.ts";
import { shipSegment } from "../actors/grpc/ship-segment.actor.ts";
import { uploadIds } from "../actors/grpc/upload-id.ts";
import { connectWal, type WalClient } from "../actors/grpc/wal-client.ts";
import { holdSource, SourceHold } from "../actors/postgres/hold-source.actor.ts";
import { identifySystem, readHistory, sourceEnd } from "../actors/postgres/identify-system.actor.ts";
import { secureSlot } from "../actors/postgres/read-slot.actor.ts";
import { type StreamWalOptions, streamWal } from "../actors/postgres/stream-wal.actor.ts";
import type { WalPipe } from "../actors/postgres/wal-pipe.ts";
import type { ClientConfig } from "../config/config.ts";
import { backoffMs } from "../domain/backoff.ts";
import { Exposure } from "../domain/exposure.ts";
import type { Log } from "../domain/log.ts";
import { formatLsn, parseLsn } from "../domain/lsn.ts";
import { KlioError } from "../errors.ts";
import { segmentShipment } from "../machines/segment-shipment.machine.ts";
import { walStream } from "../machines/wal-stream.machine.ts";
import type { WalStreamInput } from "../machines/wal-stream-events.ts";
import type { Telemetry } from "../telemetry/telemetry.ts";
import { traceparentIn } from "../telemetry/traceparent.ts";
import { MAX_FRAME_RAW_BYTES } from "../wire/wal-file-frame.ts";
import { reportSource } from "./report-source.ts";
import { type SlotStatus, watchSlot } from "./slot-watch.ts";
import { conditionOf, conditionReadings, reasonOf } from "./stream-conditions.ts";
import { logStream } from "./wal-stream-log.ts";

export type WalStreamOptions = {
  config: ClientConfig;
  telemetry: Telemetry;
  log: Log;
  /** Stream from a primary only; wait until the source is one. */
  primary: boolean;
  timing?: Partial<StreamTiming>;
};
export type StreamTiming = Pick<WalStreamInput, "backoff" | "blockedRecheckMs" | "drainLimitMs" | "confirmLimitMs"> &
  Pick<StreamWalOptions, "stallLimitMs" | "silenceLimitMs" | "highBytes" | "lowBytes"> & {
    slotPollMs: number;
    connectLimitMs: number;
    reportEveryMs: number;
  };

/** What a stream says of itself. LSNs as text; empty while unknown. */
type StreamStatus = {
  /** State of the walStream machine. */
  state: string;
  /** Why the stream is blocked or backing off (reason of the error table); empty when all is well. */
  condition: string;
  reason: string;
  writtenLsn: string;
  flushedLsn: string;
  timeline: number;
  serverEndLsn: string;
  exposureSeconds: number;
  exposureBytes: number;
  /** The server confirms whole files only. */
  degraded: boolean;
  slot: SlotStatus;
};

export type RunningStream = {
  status(): StreamStatus;
  /** Resolves when the machine has stopped; rejects with the bug that ended it. */
  readonly ended: Promise<void>;
  /** Drains: what was received is confirmed and told to PostgreSQL. Resolves when the connections are gone. Safe to call twice. */
  stop(): Promise<void>;
};

const timing: StreamTiming = {
  backoff: { firstMs: 250, factor: 2, limitMs: 15_000 },
  blockedRecheckMs: 30_000,
  drainLimitMs: 15_000,
  confirmLimitMs: 60_000,
  stallLimitMs: 60_000,
  silenceLimitMs: 120_000,
  slotPollMs: 10_000,
  connectLimitMs: 10_000,
  reportEveryMs: 5_000,
};
const APPLICATION_NAME = "klio";

function sections(config: ClientConfig) {
  const { source, wal } = config;
  if (source === undefined || wal?.address === undefined)
    throw new KlioError("KLIO-CONFIG", "streaming needs the sections source and client.wal with client.wal.address");
  return { source, wal, address: wal.address };
}

/**
 * Starts streaming and answers at once; what fails then is tried again, or blocks the stream, and is told in its status.
 * Rejects with KLIO-CONFIG, KLIO-CERTIFICATE or KLIO-CLUSTER-DENIED when the configuration cannot be used at all.
 */
export async function startWalStream(options: WalStreamOptions): Promise<RunningStream> {
  const { config, telemetry, log } = options;
  const { source, wal, address } = sections(config);
  const cluster = config.clusterName;
  const times = { ...timing, ...options.timing };
  const connectServer = () => connectWal({ address, tls: wal, clusterName: cluster, telemetry, log });
  (await connectServer()).close(); // so that a bad certificate ends the start and not the third reconnect
  const hold = new SourceHold<WalClient>({
    dsn: source.dsn,
    standardDsn: source.standardDsn,
    applicationName: APPLICATION_NAME,
    primary: options.primary,
    connectServer,
  });
  const exposure = new Exposure(0n);
  let pipe: WalPipe | undefined;
  const nextUpload = uploadIds();
  const traceparent = () => traceparentIn(context.active());
  const machine = walStream.provide({
    actors: {
      holdSource: holdSource(hold),
      identifySystem: identifySystem(hold),
      recordGap: recordGap(hold),
      secureSlot: secureSlot(hold),
      negotiateStart: negotiateStart({
        server: () => hold.server,
        history: () => hold.history,
        sourceEnd: () => sourceEnd(hold.session),
        connectLimitMs: times.connectLimitMs,
        log,
      }),
      fetchHistory: fetchHistory({
        server: () => hold.server,
        read: (timeline) => readHistory(hold.session, timeline),
        sendToTier2: config.tier2BackupEnabled,
        traceparent,
        log,
      }),
      streamWal: streamWal({
        session: () => hold.session,
        onPipe: (next) => {
          pipe = next;
        },
        watch: {
          sourceAt: (end) => exposure.sourceAt(end, Date.now()),
          flushedAt: (position) => exposure.durableAt(position),
        },
        // A block that is a frame of the stored file is compressed once, here.
        blockBytes: Math.min(source.bufferBytes, MAX_FRAME_RAW_BYTES),
        // A third of what the source endures leaves room for two lost messages.
        statusEveryMs: () =>
          Math.min(source.standbyMessageTimeoutMs, hold.senderTimeoutMs > 0 ? hold.senderTimeoutMs / 3 : Infinity),
        ...times,
      }),
      segmentShipment: segmentShipment.provide({
        actors: {
          shipSegment: shipSegment({
            upload: (upload) => hold.server.upload({ ...upload, uploadId: nextUpload() }),
            segment: (name) => {
              if (pipe === undefined) throw new KlioError("KLIO-BUG", "a segment is shipped before the stream began");
              return pipe.segment(name);
            },
            traceparent,
          }),
        },
      }),
    },
    delays: {
      backoff: ({ context: { backoff, attempt } }) => backoffMs(backoff, Math.max(1, attempt), randomInt(1024) / 1024),
    },
  });
  const actor: Actor<typeof walStream> = telemetry.start(machine, {
    id: `walStream/${cluster}`,
    input: {
      cluster,
      slot: source.slot,
      sendToTier2: config.tier2BackupEnabled,
      gapPolicy: source.gapPolicy,
      backoff: times.backoff,
      blockedRecheckMs: times.blockedRecheckMs,
      drainLimitMs: times.drainLimitMs,
      confirmLimitMs: times.confirmLimitMs,
    },
  });
  const slot = watchSlot({ cluster, source, primary: options.primary, telemetry, pollMs: times.slotPollMs });
  logStream({ actor, guard: slot.guard, log: log.with({ cluster_name: cluster }) });
  actor.subscribe({
    next: watchExposure(exposure),
    error: () => exposure.lost(Date.now()),
  });
  const labels = { cluster_name: cluster, tier: "tier1" };
  const forget = [
    telemetry.observe("klio.wal.exposure", () => [{ value: exposure.seconds(Date.now()), labels }]),
    telemetry.observe("klio.wal.exposure_size", () => [{ value: exposure.bytes, labels }]),
    telemetry.observe("klio.stream.condition", () => conditionReadings(cluster, conditionOf(actor.getSnapshot()))),
  ];
  forget.push(
    reportSource({
      server: () => (actor.getSnapshot().matches({ attached: "streaming" }) ? hold.server : undefined),
      silent: (failure) => actor.send({ type: "stream.ended", failure }),
      everyMs: times.reportEveryMs,
      report: () => ({
        endLsn: exposure.sourceEnd,
        flushedLsn: pipe?.positions.flushed ?? 0n,
        segmentBytes: actor.getSnapshot().context.segmentBytes,
      }),
      log,
    }),
  );
  const ended = Promise.withResolvers<void>();
  toPromise(actor).then(() => ended.resolve(), ended.reject);
  slot.failed.catch(ended.reject);
  let stopping: Promise<void> | undefined;
  const stop = async () => {
    slot.stop();
    actor.send({ type: "shutdown.requested" });
    await ended.promise.finally(() => hold.closed);
    for (const observation of forget) observation();
  };
  return {
    ended: ended.promise,
    status() {
      const snapshot = actor.getSnapshot();
      const { value, context: kept } = snapshot;
      const code = conditionOf(snapshot);
      const positions = pipe?.positions;
      return {
        state: innermost(value),
        condition: reasonOf(code),
        reason: code === "" ? "" : kept.reason,
        degraded: kept.method === "put",
        slot: slot.status(),
        writtenLsn: positions === undefined ? "" : formatLsn(positions.written),
        flushedLsn: positions === undefined ? "" : formatLsn(positions.flushed),
        timeline: kept.streamTimeline,
        serverEndLsn: exposure.sourceEnd === 0n ? "" : formatLsn(exposure.sourceEnd),
        exposureSeconds: exposure.seconds(Date.now()),
        exposureBytes: exposure.bytes,
      };
    },
    stop() {
      stopping ??= stop();
      return stopping;
    },
  };
}

/** Tells the exposure when the source is heard again, and when no more. */
function watchExposure(exposure: Exposure) {
  let isStreaming = false;
  return (snapshot: ReturnType<Actor<typeof walStream>["getSnapshot"]>) => {
    const streams = snapshot.matches({ attached: "streaming" });
    if (streams === isStreaming) return;
    isStreaming = streams;
    const { startLsn, flushLsn } = snapshot.context;
    if (streams) exposure.regained(parseLsn(startLsn), parseLsn(flushLsn), Date.now());
    else exposure.lost(Date.now());
  };
}

function innermost(value: unknown): string {
  if (typeof value !== "object" || value === null) return String(value);
  const [[name, inner] = ["", ""]] = Object.entries(value);
  return typeof inner === "object" || name === "attached" ? innermost(inner) : name === "streaming" ? inner : name;
}
