// The client of the WAL service of one tier: what the stream, the restore side and the backups ask of a server.
// Unary calls answer an outcome; they reject for bugs only.
import { create } from "@bufbuild/protobuf";
import type { Interceptor } from "@grpc/grpc-js";
import type { ReadPurpose } from "../../domain/cluster-status.ts";
import type { Log } from "../../domain/log.ts";
import { type Outcome, ok } from "../../domain/outcome.ts";
import type { OpenWal } from "../../domain/wal-reader.ts";
import { KlioError } from "../../errors.ts";
import * as pb from "../../proto/generated/klio/wal/v1/wal_pb.ts";
import { type ClientTlsFiles, openChannel } from "./client-channel.ts";
import { askOnce, type CallOptions, type GetOptions, listAll, openGet, type RemoteWal } from "./wal-call.ts";
import { type Method, walMethods } from "./wal-methods.ts";
import { openUpload, type UploadOptions, type WalUpload } from "./wal-upload.ts";

/** What a client takes of telemetry. */
type ClientTelemetry = { clientInterceptors(): Interceptor[] };

export type WalClientOptions = {
  /** `host:port`. */
  address: string;
  tls: ClientTlsFiles;
  /** Must be the cluster of the certificate's CN. */
  clusterName: string;
  telemetry: ClientTelemetry;
  log: Log;
};

type CloseBackup = {
  backupName: string;
  timeline: number;
  startWal: string;
  endWal: string;
  segmentBytes: number;
  sendToTier2: boolean;
  /** JSON of retention rules for tier 2; empty: keep what is set. */
  tier2RetentionPolicy: string;
};
type RepositoryAccess = { user: string; password: string; fingerprint: string; port: number };

export interface WalClient {
  readonly address: string;
  readonly clusterName: string;
  /** Left part of the certificate's CN. */
  readonly user: string;
  /** Where to start: the file, and how many of its bytes are durable (0 from an older server). Registers the cluster. */
  requestWalStart(
    request: { systemId: string; currentWalName: string },
    options?: CallOptions,
  ): Promise<Outcome<{ walName: string; resumeOffset: number }>>;
  resetWalStream(
    request: { systemId: string; currentWalName: string },
    options?: CallOptions,
  ): Promise<Outcome<{ walName: string }>>;
  /** KLIO-CLUSTER-UNKNOWN when no WAL ever came. */
  metadata(options?: CallOptions): Promise<Outcome<pb.ClusterMetadata>>;
  closeBackup(request: CloseBackup, options?: CallOptions): Promise<Outcome<{ scheduled: boolean; missing: string[] }>>;
  openRepository(options?: CallOptions): Promise<Outcome<RepositoryAccess>>;
  /** `policy`: JSON of retention rules, empty to keep what is set. */
  maintainBackups(
    policy: string,
    options?: CallOptions,
  ): Promise<Outcome<{ deletedBackups: string[]; deletedOrphans: number; deletedWalFiles: number }>>;
  list(options?: CallOptions): Promise<Outcome<RemoteWal[]>>;
  /** Tells where the source's WAL ends, and up to where this server has confirmed it. KLIO-SERVER-REFUSED from an older server. */
  reportSource(
    report: { endLsn: bigint; flushedLsn: bigint; segmentBytes: number },
    options?: CallOptions,
  ): Promise<Outcome<null>>;
  /** What this server knows of the cluster, as JSON. */
  status(options?: CallOptions): Promise<Outcome<string>>;
  /** Tells how fast the files of a backup were read. */
  reportRead(
    read: { tier: string; purpose: ReadPurpose; backup: string; bytes: number; seconds: number },
    options?: CallOptions,
  ): Promise<Outcome<null>>;
  /**
   * Opens a stored file; undefined when the server has none of exactly this name. Its blocks throw KLIO-SERVER-DOWN when
   * a complete file ends short.
   */
  get(walName: string, options?: GetOptions): Promise<Outcome<OpenWal | undefined>>;
  /** Large blocks go compressed once `requestWalStart` was answered by a server that takes such. */
  upload(options: Omit<UploadOptions, "packs">): WalUpload;
  close(): void;
}

/** A backup may be closed, or maintained, for long. */
const WORK_MS = 15 * 60_000;

/** Reads certificate and key and answers at once; the connection is made by the first call. Rejects with KLIO-CERTIFICATE
 * or KLIO-CLUSTER-DENIED (a certificate of another cluster). The caller closes it. */
export async function connectWal(options: WalClientOptions): Promise<WalClient> {
  const { address, clusterName } = options;
  const { client, caller } = await openChannel(address, options.tls, options.telemetry.clientInterceptors());
  if (caller.cluster !== clusterName) {
    client.close();
    throw new KlioError(
      "KLIO-CLUSTER-DENIED",
      `the certificate is for ${caller.cluster}, the configuration names ${clusterName}`,
    );
  }
  let packs = false;
  const ask = async <Request, Response, T>(
    method: Method<Request, Response>,
    request: Request,
    answer: (response: Response) => T,
    call?: CallOptions,
  ): Promise<Outcome<T>> => {
    const outcome = await askOnce(client, address, method, request, call);
    return outcome.kind === "ok" ? ok(answer(outcome.value)) : outcome;
  };

  return {
    address,
    clusterName,
    user: caller.user,
    requestWalStart: (request, call) =>
      ask(
        walMethods.requestWalStart,
        create(pb.RequestWALStartRequestSchema, { clusterName, ...request }),
        (answer) => {
          packs = answer.blockCodecs.includes(pb.BlockCodec.ZSTD);
          return { walName: answer.walName, resumeOffset: Number(answer.resumeOffset) };
        },
        call,
      ),
    resetWalStream: (request, call) =>
      ask(
        walMethods.resetWalStream,
        create(pb.ResetWALStreamRequestSchema, { clusterName, ...request }),
        (answer) => ({ walName: answer.walName }),
        call,
      ),
    metadata: (call) =>
      ask(walMethods.getMetadata, create(pb.GetMetadataRequestSchema, { clusterName }), (answer) => answer, call),
    closeBackup: (request, call) =>
      ask(
        walMethods.closeBackup,
        create(pb.CloseBackupRequestSchema, { ...request, segmentSize: BigInt(request.segmentBytes), clusterName }),
        (answer) => ({ scheduled: answer.tier2Schedule, missing: answer.missingWalFiles }),
        { timeoutMs: WORK_MS, ...call },
      ),
    openRepository: (call) =>
      ask(
        walMethods.openRepository,
        create(pb.OpenRepositoryRequestSchema, { clusterName, userName: caller.user }),
        ({ user, password, serverCertFingerprint, port }) => ({
          user,
          password,
          fingerprint: serverCertFingerprint,
          port,
        }),
        call,
      ),
    maintainBackups: (policy, call) =>
      ask(
        walMethods.maintainBackups,
        create(pb.MaintainBackupsRequestSchema, { clusterName, retentionPolicy: policy }),
        ({ deletedBackups, deletedOrphans, deletedWalFiles }) => ({ deletedBackups, deletedOrphans, deletedWalFiles }),
        { timeoutMs: WORK_MS, ...call },
      ),
    reportSource: ({ endLsn, flushedLsn, segmentBytes }, call) =>
      ask(
        walMethods.reportSource,
        create(pb.ReportSourceRequestSchema, { clusterName, endLsn, flushedLsn, segmentSize: BigInt(segmentBytes) }),
        () => null,
        call,
      ),
    status: (call) =>
      ask(
        walMethods.getStatus,
        create(pb.GetStatusRequestSchema, { clusterName }),
        ({ report }) => new TextDecoder().decode(report),
        call,
      ),
    reportRead: ({ tier, purpose, backup, bytes, seconds }, call) =>
      ask(
        walMethods.reportRead,
        create(pb.ReportReadRequestSchema, {
          clusterName,
          tier,
          purpose,
          backupName: backup,
          size: BigInt(Math.trunc(bytes)),
          seconds,
        }),
        () => null,
        call,
      ),
    list: (call) => listAll(client, address, clusterName, call ?? {}),
    get: (walName, call) => openGet(client, address, clusterName, walName, call ?? {}),
    upload: (upload) => openUpload(client, walMethods, clusterName, address, { ...upload, packs }),
    close: () => client.close(),
  };
}
