// The WAL service of one tier over gRPC: what streams, restores and backups ask for.
import { create } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import type { ServerInterceptor } from "@grpc/grpc-js";
import { requireClusterName } from "../../domain/cluster-name.ts";
import type { ReadPurpose } from "../../domain/cluster-status.ts";
import type { FactOf } from "../../domain/facts.ts";
import type { Log } from "../../domain/log.ts";
import type { TierName } from "../../domain/snapshots.ts";
import type { WalReader } from "../../domain/wal-reader.ts";
import { isSegmentSize, parseWalName, requireWalName, segmentRange } from "../../domain/wal-segment.ts";
import { KlioError } from "../../errors.ts";
import type { WalInterrupted } from "../../machines/wal-ingest.machine.ts";
import * as pb from "../../proto/generated/klio/wal/v1/wal_pb.ts";
import type { WalStore } from "../spool/wal-store.ts";
import { type Caller, callerOf, requireOwnCluster, signalOf, traceparentOf, unary } from "./handlers.ts";
import { listWal } from "./list-wal.ts";
import { getMethod } from "./serve-get.ts";
import { type GrpcServer, type ServerTlsFiles, serveGrpc } from "./serve-grpc.ts";
import { Ingest, type IngestTelemetry } from "./serve-ingest.ts";
import { WAL_SERVICE, walDefinition } from "./wal-methods.ts";

export type CloseBackupRequest = {
  cluster: string;
  backupName: string;
  timeline: number;
  startWal: string;
  endWal: string;
  segmentBytes: number;
  sendToTier2: boolean;
  /** JSON of retention rules; empty: keep what is set. */
  tier2RetentionPolicy: string;
  /** W3C traceparent of the caller, or empty. */
  traceparent: string;
};
export type MaintainBackupsRequest = { cluster: string; retentionPolicy: string; traceparent: string };

type ReadReport = { tier: TierName; purpose: ReadPurpose; backup: string; bytes: number; seconds: number };

export type ServeWalOptions = {
  reader: WalReader;
  /** Absent: read-only. */
  store?: WalStore;
  tls: ServerTlsFiles;
  listenAddress: string;
  telemetry: IngestTelemetry & { serverInterceptors(): ServerInterceptor[] };
  log: Log;
  /** Each of these may reject with a KlioError, which the caller gets. */
  closeBackup: (request: CloseBackupRequest, signal: AbortSignal) => Promise<{ scheduled: boolean; missing: string[] }>;
  openRepository: (
    caller: Caller,
    signal: AbortSignal,
  ) => Promise<{ user: string; password: string; fingerprint: string; port: number }>;
  maintainBackups: (
    request: MaintainBackupsRequest,
    signal: AbortSignal,
  ) => Promise<{ deletedBackups: string[]; deletedOrphans: number; deletedWalFiles: number }>;
  /** What is known of a cluster, as JSON. Absent: nothing is. */
  status?: (cluster: string) => Promise<string>;
  onRead?: (cluster: string, read: ReadReport) => Promise<void>;
  onStored?: (fact: FactOf<"wal.stored">) => void;
  onInterrupted?: (fact: WalInterrupted) => void;
  /** LSNs as positions. */
  onSource?: (cluster: string, report: { end: bigint; flushed: bigint; segmentBytes: number }) => void;
};

export type WalServer = Pick<GrpcServer, "address" | "port" | "setServing"> & {
  /** Confirms what has come, tells the senders to come back later, ends the rest after `graceMs`. Safe to call twice. */
  close(graceMs?: number): Promise<void>;
};

const GRACE_MS = 10_000;
const nothing = () => undefined;

/** Rejects like `serveGrpc`. The caller closes it, then the store. */
export async function serveWal(options: ServeWalOptions): Promise<WalServer> {
  const { telemetry, log } = options;
  const ingest = new Ingest({
    store: options.store,
    telemetry,
    log,
    onStored: options.onStored ?? nothing,
    onInterrupted: options.onInterrupted ?? nothing,
  });
  const server = await serveGrpc({
    listenAddress: options.listenAddress,
    tls: options.tls,
    services: [
      {
        name: WAL_SERVICE,
        definition: walDefinition,
        implementation: {
          Put: ingest.put.bind(ingest),
          Stream: ingest.stream.bind(ingest),
          ListWAL: listWal(options.reader, log),
          ...positionMethods(options),
          ...backupMethods(options),
          ...statusMethods(options),
          Get: getMethod(options),
        },
      },
    ],
    interceptors: telemetry.serverInterceptors(),
    log,
  });
  let closing: Promise<void> | undefined;
  return {
    address: server.address,
    port: server.port,
    setServing: server.setServing,
    close(graceMs = GRACE_MS) {
      closing ??= (async () => {
        server.setServing(false);
        await ingest.stop();
        await server.close(graceMs);
      })();
      return closing;
    },
  };
}

/** Of a server that only reads, with a refusal for everything else. */
function requireStore(store: WalStore | undefined): WalStore {
  if (store === undefined) throw new KlioError("KLIO-READ-ONLY", "this server only reads");
  return store;
}

function requireSegmentName(name: string): string {
  const { kind } = requireWalName(name);
  if (kind !== "segment" && kind !== "partial") throw new KlioError("KLIO-NAME-INVALID", `${name} is no WAL segment`);
  return name.slice(0, 24);
}

function positionMethods({ store, log, onSource = nothing }: ServeWalOptions) {
  return {
    ReportSource: unary<pb.ReportSourceRequest, pb.ReportSourceResult>("ReportSource", log, async (request, call) => {
      const cluster = requireOwnCluster(call, request.clusterName);
      requireStore(store);
      const segmentBytes = Number(request.segmentSize);
      if (!isSegmentSize(segmentBytes)) throw new KlioError("KLIO-USAGE", `not a WAL segment size: ${segmentBytes}`);
      onSource(cluster, { end: request.endLsn, flushed: request.flushedLsn, segmentBytes });
      return create(pb.ReportSourceResultSchema, {});
    }),
    GetMetadata: unary<pb.GetMetadataRequest, pb.ClusterMetadata>("GetMetadata", log, async (request, call) => {
      const cluster = requireOwnCluster(call, request.clusterName);
      const metadata = await store?.metadata(cluster);
      if (metadata === undefined) throw new KlioError("KLIO-CLUSTER-UNKNOWN", `${cluster} is not known here`);
      const gaps = metadata.gaps.map(({ atMs, start, end }) =>
        create(pb.WALGapSchema, { ts: timestampFromMs(atMs), start, end }),
      );
      return create(pb.ClusterMetadataSchema, { systemId: metadata.systemId, gaps });
    }),
    RequestWALStart: unary<pb.RequestWALStartRequest, pb.RequestWALStartResult>(
      "RequestWALStart",
      log,
      async (request, call) => {
        const cluster = requireOwnCluster(call, request.clusterName);
        const current = requireSegmentName(request.currentWalName);
        const writable = requireStore(store);
        await writable.registerCluster(cluster, request.systemId);
        const position = await writable.position(cluster);
        return create(pb.RequestWALStartResultSchema, {
          walName: position?.walName ?? current,
          resumeOffset: BigInt(position?.resumeOffset ?? 0),
          blockCodecs: [pb.BlockCodec.ZSTD],
        });
      },
    ),
    ResetWALStream: unary<pb.ResetWALStreamRequest, pb.ResetWALStreamResult>(
      "ResetWALStream",
      log,
      async (request, call) => {
        const cluster = requireOwnCluster(call, request.clusterName);
        const next = requireSegmentName(request.currentWalName);
        const gap = await requireStore(store).resetStream(cluster, request.systemId, next);
        log.warn("wal.gap", `a gap of ${cluster} was accepted: ${gap.start} to ${gap.end}`, { cluster, ...gap });
        return create(pb.ResetWALStreamResultSchema, { walName: gap.end });
      },
    ),
  };
}

const unknown = async (): Promise<never> => {
  throw new KlioError("KLIO-TIER-MISSING", "this server keeps no account of its clusters");
};

function statusMethods({ store, log, status = unknown, onRead = async () => undefined }: ServeWalOptions) {
  return {
    GetStatus: unary<pb.GetStatusRequest, pb.GetStatusResult>("GetStatus", log, async (request, call) => {
      const report = await status(requireOwnCluster(call, request.clusterName));
      return create(pb.GetStatusResultSchema, { report: new TextEncoder().encode(report) });
    }),
    ReportRead: unary<pb.ReportReadRequest, pb.ReportReadResult>("ReportRead", log, async (request, call) => {
      const cluster = requireOwnCluster(call, request.clusterName);
      requireStore(store);
      const { tier, purpose, backupName: backup, seconds } = request;
      const bytes = Number(request.size);
      if ((tier !== "tier1" && tier !== "tier2") || (purpose !== "restore" && purpose !== "verification"))
        throw new KlioError("KLIO-USAGE", `no such reading: ${JSON.stringify(purpose)} of ${JSON.stringify(tier)}`);
      if (!(seconds > 0 && Number.isFinite(seconds)) || !(bytes > 0) || backup === "" || backup.length > 255)
        throw new KlioError("KLIO-USAGE", `no measure of a reading: ${bytes} bytes of ${backup} in ${seconds} s`);
      await onRead(cluster, { tier, purpose, backup, bytes, seconds });
      return create(pb.ReportReadResultSchema, {});
    }),
  };
}

function backupMethods({ store, log, closeBackup, openRepository, maintainBackups }: ServeWalOptions) {
  return {
    CloseBackup: unary<pb.CloseBackupRequest, pb.CloseBackupResult>("CloseBackup", log, async (request, call) => {
      const cluster = requireOwnCluster(call, request.clusterName);
      requireStore(store);
      const { backupName, timeline, startWal, endWal, sendToTier2, tier2RetentionPolicy } = request;
      const segmentBytes = Number(request.segmentSize);
      for (const name of [startWal, endWal])
        if (parseWalName(name)?.kind !== "segment")
          throw new KlioError("KLIO-NAME-INVALID", `not a WAL segment: ${JSON.stringify(name)}`);
      segmentRange(startWal, endWal, segmentBytes); // refuses sizes and ranges that cannot be
      const traceparent = traceparentOf(call);
      const { scheduled, missing } = await closeBackup(
        {
          cluster,
          backupName,
          timeline,
          startWal,
          endWal,
          segmentBytes,
          sendToTier2,
          tier2RetentionPolicy,
          traceparent,
        },
        signalOf(call),
      );
      return create(pb.CloseBackupResultSchema, { tier2Schedule: scheduled, missingWalFiles: missing });
    }),
    OpenRepository: unary<pb.OpenRepositoryRequest, pb.OpenRepositoryResult>(
      "OpenRepository",
      log,
      async (request, call) => {
        requireOwnCluster(call, request.clusterName);
        const caller = callerOf(call);
        if (request.userName !== "" && requireClusterName(request.userName) !== caller.user)
          throw new KlioError("KLIO-CLUSTER-DENIED", `the certificate is ${caller.user}'s, not ${request.userName}'s`);
        const { user, password, fingerprint, port } = await openRepository(caller, signalOf(call));
        return create(pb.OpenRepositoryResultSchema, { user, password, serverCertFingerprint: fingerprint, port });
      },
    ),
    MaintainBackups: unary<pb.MaintainBackupsRequest, pb.MaintainBackupsResult>(
      "MaintainBackups",
      log,
      async (request, call) => {
        const cluster = requireOwnCluster(call, request.clusterName);
        requireStore(store);
        const { retentionPolicy } = request;
        const done = await maintainBackups(
          { cluster, retentionPolicy, traceparent: traceparentOf(call) },
          signalOf(call),
        );
        return create(pb.MaintainBackupsResultSchema, done);
      },
    ),
  };
}
