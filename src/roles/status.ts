// `klio status`: asks whoever can be asked (the server's admin socket, its WAL service, the sidecar, PostgreSQL), and puts the
// answers together. A part that does not answer is named with its reason; the others are told all the same.
import { sidecarStatus } from "../actors/grpc/sidecar-client.ts";
import { connectWal } from "../actors/grpc/wal-client.ts";
import { lookAtSlot } from "../actors/postgres/read-slot.actor.ts";
import type { ClientConfig } from "../config/config.ts";
import { type ClusterReport, type ServerReport, timeText } from "../domain/cluster-status.ts";
import type { Log } from "../domain/log.ts";
import { unwrap } from "../domain/outcome.ts";
import { SlotForecast } from "../domain/slot-forecast.ts";
import {
  type AskedPart,
  type ClusterStatus,
  exceededLimits,
  type SlotReport,
  type StatusLimits,
  type StatusReport,
  type StreamReport,
} from "../domain/status-report.ts";
import { KlioError } from "../errors.ts";
import { noTelemetry } from "../telemetry/telemetry.ts";
import { withAdmin } from "./admin.ts";
import { commandLog } from "./command-log.ts";

export type { StatusReport };
export type StatusRequest = {
  /** Each is asked when it is given. */
  adminSocket?: string;
  sidecarSocket?: string;
  config?: ClientConfig;
  /** Only of this cluster. */
  cluster?: string;
  limits: StatusLimits;
  /** What else could not be asked, and why. */
  missed: AskedPart[];
  stderr: NodeJS.WritableStream & { isTTY?: boolean };
  logLevel: string;
  signal: AbortSignal;
};

type Clusters = Map<string, ClusterStatus>;
type Context = StatusRequest & { clusters: Clusters; report: StatusReport; failures: KlioError[]; log: Log };

/** The server lists what is stored, on object storage too. */
const LISTING_MS = 120_000;
const ANSWER_MS = 15_000;

/** Rejects with the first failure, naming all, when nobody answered, and with KLIO-USAGE when there was nobody to ask. */
export async function runStatus(request: StatusRequest): Promise<StatusReport> {
  const report: StatusReport = {
    time: timeText(Date.now() / 1000),
    clusters: [],
    queue: null,
    asked: [...request.missed],
    exceeded: [],
  };
  const clusters: Clusters = new Map();
  const log = commandLog(request.stderr, request.logLevel);
  const context: Context = { ...request, clusters, report, failures: [], log };
  await askAdmin(context);
  await askSidecar(context);
  await askWalService(context);
  await askPostgres(context);
  const [first] = context.failures;
  if (report.asked.every(({ error }) => error !== "")) {
    const reasons = report.asked.map(({ part, error }) => `\n  ${part}: ${error}`).join("");
    if (first === undefined)
      throw new KlioError("KLIO-USAGE", `there is nobody to ask${reasons}`, {
        hint: "run this where the server or the sidecar runs, or name a client's configuration with --config",
      });
    throw new KlioError(first.code, `nobody answered:${reasons}`, { hint: first.hint });
  }
  report.clusters = [...clusters.values()].filter(({ cluster }) => (request.cluster ?? cluster) === cluster);
  report.exceeded = exceededLimits(report.clusters, request.limits);
  return report;
}

/** Asks one part; what it fails with is kept. */
async function ask(context: Context, part: string, work: () => Promise<void>): Promise<boolean> {
  try {
    await work();
    context.report.asked.push({ part, error: "" });
    return true;
  } catch (error) {
    if (!(error instanceof KlioError) || error.kind === "bug") throw error;
    context.report.asked.push({ part, error: error.message });
    context.failures.push(error);
    return false;
  }
}

function statusOf({ clusters }: Context, cluster: string): ClusterStatus {
  const known = clusters.get(cluster);
  if (known !== undefined) return known;
  const made: ClusterStatus = { cluster, tiers: {}, gaps: [], divergence: null, stream: null, slot: null };
  clusters.set(cluster, made);
  return made;
}

function keep(context: Context, { cluster, ...report }: ClusterReport): void {
  const status = statusOf(context, cluster);
  context.clusters.set(cluster, { ...status, ...report, tiers: { ...status.tiers, ...report.tiers } });
}

async function askAdmin(context: Context): Promise<void> {
  const { adminSocket, cluster } = context;
  if (adminSocket === undefined) return;
  await ask(context, `server, admin socket ${adminSocket}`, async () => {
    const { clusters, queue } = await withAdmin(adminSocket, (session) => session.status(cluster));
    for (const one of clusters) keep(context, one);
    context.report.queue = queue;
  });
}

/** The server's own socket has told it already. */
const isTold = (context: Context, cluster: string) => context.clusters.get(cluster)?.tiers.tier1 !== undefined;

async function askWalService(context: Context): Promise<void> {
  const { config, log, signal } = context;
  if (config?.wal === undefined || isTold(context, config.clusterName)) return;
  const { wal, clusterName } = config;
  for (const address of [wal.address, wal.tier2Address]) {
    if (address === undefined) continue;
    const answered = await ask(context, `server ${address}`, async () => {
      const telemetry = noTelemetry();
      const client = await connectWal({ address, tls: wal, clusterName, telemetry, log });
      try {
        const text = unwrap(await client.status({ signal, timeoutMs: LISTING_MS }));
        const { clusters } = JSON.parse(text) as ServerReport;
        for (const one of clusters) keep(context, one);
      } finally {
        client.close();
      }
    });
    if (answered) return;
  }
}

async function askSidecar(context: Context): Promise<void> {
  const { sidecarSocket, signal } = context;
  if (sidecarSocket === undefined) return;
  await ask(context, `sidecar, control socket ${sidecarSocket}`, async () => {
    const answer = await sidecarStatus(sidecarSocket, { signal, timeoutMs: ANSWER_MS });
    const status = statusOf(context, answer.clusterName);
    status.stream = streamReport(answer);
    if (answer.slot !== undefined) status.slot = slotReport(answer.slot);
  });
}

type SidecarAnswer = Awaited<ReturnType<typeof sidecarStatus>>;

function streamReport(answer: SidecarAnswer): StreamReport {
  return {
    state: answer.streamState,
    condition: answer.condition,
    reason: answer.reason,
    timeline: answer.timeline,
    written_lsn: answer.writtenLsn,
    flushed_lsn: answer.flushedLsn,
    source_end_lsn: answer.serverEndLsn,
    exposure_seconds: answer.exposureSeconds,
    exposure_bytes: Number(answer.exposureSize),
    whole_files_only: answer.degraded,
    backup_state: answer.backupState,
  };
}

function slotReport(slot: NonNullable<SidecarAnswer["slot"]>): SlotReport {
  const sizeOf = (size: bigint | undefined) => (size === undefined ? null : Number(size));
  return {
    told_by: "sidecar",
    name: slot.name,
    level: slot.level,
    present: slot.present,
    active: slot.active,
    wal_status: slot.walStatus,
    retained_bytes: Number(slot.retainedSize),
    safe_bytes: sizeOf(slot.safeSize),
    volume_free_bytes: sizeOf(slot.volumeFreeSize),
    seconds_to_full: slot.secondsToFull ?? null,
  };
}

/** Without a sidecar that tells it, PostgreSQL is asked for the slot; one look foretells nothing. */
async function askPostgres(context: Context): Promise<void> {
  const { config, signal } = context;
  const { source, clusterName } = config ?? {};
  if (source === undefined || clusterName === undefined) return;
  const told = context.clusters.get(clusterName)?.slot;
  if (told !== null && told !== undefined && told.wal_status !== "") return;
  await ask(context, "PostgreSQL, replication slot", async () => {
    const forecast = new SlotForecast({ windowMs: 0, minSpanMs: Number.POSITIVE_INFINITY, horizonSeconds: 0 });
    const { standardDsn, slot } = source;
    const from = { standardDsn, applicationName: "klio-status", primary: false, forecast };
    const look = unwrap(await lookAtSlot(from, slot, signal));
    const isThere = look.kind === "present";
    statusOf(context, clusterName).slot = {
      told_by: "postgresql",
      name: slot,
      level: "",
      present: isThere,
      active: isThere && look.active,
      wal_status: isThere ? look.status : "",
      retained_bytes: isThere ? look.retainedBytes : 0,
      safe_bytes: isThere ? look.safeBytes : null,
      volume_free_bytes: isThere ? look.freeBytes : null,
      seconds_to_full: null,
    };
  });
}
