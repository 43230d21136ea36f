// Every span, metric and log event of Klio. The code makes its instruments from these tables, the reference page is
// generated from them, and tests compare dashboards, alerts and machines with them.
import type { TracerName } from "./state-telemetry.ts";

export type SpanRow = {
  tracer: TracerName;
  /** "contract": part of the published contract; "own": added beside it. */
  origin: "contract" | "own";
  attributes: readonly string[];
  description: string;
};

const span = (
  origin: SpanRow["origin"],
  tracer: TracerName,
  attributes: readonly string[],
  description: string,
): SpanRow => ({ origin, tracer, attributes, description });

export const spans = {
  backup: span("contract", "klio.backup", ["backup.name", "backup.role"], "a backup: run, verification, maintenance"),
  backup_run: span("contract", "klio.backup", [], "the copy of the data directory between start and stop"),
  backup_verify: span("contract", "klio.backup", [], "verification of the fresh backup on tier 1"),
  backup_maintenance: span("contract", "klio.backup", [], "retention and clean-up after a backup"),
  restore: span("own", "klio.backup", ["cluster_name", "backup.name", "tier"], "a restore"),
  restore_tablespaces: span("own", "klio.backup", [], "the tablespaces of a restore"),
  restore_data: span("own", "klio.backup", [], "the data directory of a restore"),
  download_history_file: span("contract", "klio.wal_client", ["timeline"], "fetch of a timeline history file"),
  manage_wal_stream: span(
    "contract",
    "klio.wal_client",
    ["cluster_name", "wal_name"],
    "one WAL segment on the sidecar, from its first byte to its confirmation; begins a trace",
  ),
  put_wal: span(
    "contract",
    "klio.wal_server",
    ["cluster_name", "wal_name"],
    "the same segment on the server, child of manage_wal_stream through gRPC metadata",
  ),
  get_wal: span(
    "contract",
    "klio.wal_server",
    ["cluster_name", "wal_name", "tier"],
    "a WAL file served to a restore, child of the caller's span through gRPC metadata",
  ),
  fetch_wal: span(
    "own",
    "klio.wal_client",
    ["cluster_name", "wal_name", "tier"],
    "a WAL file on its way to a recovery, over all tiers and attempts; not told by a get-wal for a single file",
  ),
  tier2_upload: span(
    "contract",
    "klio.consumer",
    ["cluster_name", "wal_name"],
    "one WAL file on its way to tier 2, linked to the put_wal of the segment",
  ),
  tier2_backup: span("contract", "klio.consumer", ["cluster_name", "backup.name"], "relay of a backup to tier 2"),
  tier2_backup_migrate: span("contract", "klio.consumer", [], "copy of the backup's snapshots to tier 2"),
  tier2_backup_verify: span("contract", "klio.consumer", [], "verification of the copy"),
  tier2_backup_retention: span("contract", "klio.consumer", [], "retention on tier 2"),
} as const satisfies Record<string, SpanRow>;
export type SpanName = keyof typeof spans;

export type ServiceRole = "server" | "plugin";
export type MetricKind = "counter" | "gauge" | "histogram";
export type MetricRow = {
  kind: MetricKind;
  /** UCUM, as the Prometheus suffix and OTLP need it; empty: none. */
  unit: "" | "s" | "By" | "1";
  /** Whole numbers, sent as such. */
  int: boolean;
  attributes: readonly string[];
  description: string;
  origin: "contract" | "own";
  roles: readonly ServiceRole[];
  /** Present with 0 from the start of a process of these roles (instruments without attributes only). */
  zeroAtStart: boolean;
};

type Options = { int?: boolean; own?: boolean; zero?: boolean };
const metric =
  (kind: MetricKind) =>
  (
    unit: MetricRow["unit"],
    roles: readonly ServiceRole[],
    attributes: readonly string[],
    description: string,
    { int = true, own = false, zero = false }: Options = {},
  ): MetricRow => ({
    kind,
    unit,
    int,
    attributes,
    description,
    origin: own ? "own" : "contract",
    roles,
    zeroAtStart: zero,
  });
const counter = metric("counter");
const gauge = metric("gauge");
const histogram = metric("histogram");
const server = ["server"] as const;
const plugin = ["plugin"] as const;
const both = ["server", "plugin"] as const;
const byCluster = ["cluster_name"] as const;
const byTier = ["cluster_name", "tier"] as const;
const bySource = ["snapshot_source", "tier"] as const;
const own = { own: true } as const;
const zero = { zero: true } as const;
const real = { int: false } as const;

/** Instruments of the meter `klio`. */
export const metrics = {
  // backup lifecycle
  "klio.backup.running": gauge("", plugin, [], "Whether a backup is currently running (1) or not (0).", zero),
  "klio.backup.latest_start_time": gauge("s", plugin, [], "Unix epoch timestamp when the most recent backup started."),
  "klio.backup.latest_completion_time": gauge(
    "s",
    plugin,
    [],
    "Unix epoch timestamp when the most recent backup completed successfully.",
  ),
  "klio.backup.latest_failure_time": gauge("s", plugin, [], "Unix epoch timestamp when the most recent backup failed."),
  "klio.backup.latest_duration_seconds": gauge("s", plugin, [], "Duration of the most recent backup in seconds.", real),
  "klio.backup.successes": counter("", plugin, [], "Total number of successful backups.", zero),
  "klio.backup.failures": counter("", plugin, [], "Total number of failed backups.", zero),
  "klio.backup.verifications": counter("", plugin, [], "Total number of backup verification attempts.", zero),
  "klio.backup.verification_failures": counter("", plugin, [], "Total number of backup verification failures.", zero),
  // WAL on tier 1
  "klio.wal.written_size": counter("By", server, byCluster, "Number of bytes written to disk for the WAL files."),
  "klio.wal.written": counter("", server, byCluster, "Number of WAL files written."),
  "klio.wal.latest_written_time": gauge(
    "s",
    server,
    byCluster,
    "Unix epoch timestamp of the most recently written WAL file to disk.",
  ),
  // tier 2
  "klio.consumer.written_size": counter(
    "By",
    server,
    byCluster,
    "Number of bytes written to Tier 2 for the WAL files.",
  ),
  "klio.consumer.written": counter("", server, byCluster, "Number of WAL files written to Tier 2."),
  "klio.consumer.latest_written_time": gauge(
    "s",
    server,
    byCluster,
    "Unix epoch timestamp of the most recently written WAL file to Tier 2.",
  ),
  "klio.consumer.backup_verification_success": counter(
    "",
    server,
    byCluster,
    "Number of successful backup verifications.",
  ),
  "klio.consumer.backup_verification_failure": counter(
    "",
    server,
    byCluster,
    "Number of failed backup verifications (corruption detected).",
  ),
  // base backups as stored
  "klio.base.snapshots": gauge("", server, bySource, "Total number of base snapshots."),
  "klio.base.latest_snapshot_size": gauge(
    "By",
    server,
    bySource,
    "Size of latest base snapshot in bytes (ignoring compression and deduplication).",
  ),
  "klio.base.latest_snapshot_files": gauge("", server, bySource, "Number of files in latest base snapshot."),
  "klio.base.latest_snapshot_dirs": gauge("", server, bySource, "Number of directories in latest base snapshot."),
  "klio.base.latest_snapshot_age": gauge("s", server, bySource, "Age of latest base snapshot in seconds.", real),
  "klio.base.oldest_snapshot_age": gauge("s", server, bySource, "Age of oldest base snapshot in seconds.", real),
  "klio.base.uptime": gauge("s", server, [], "Kopia server uptime in seconds", real),
  // queue
  "klio.queue.messages": gauge(
    "",
    server,
    [],
    "Number of messages currently stored in the embedded NATS JetStream queue.",
  ),
  "klio.queue.bytes": gauge("By", server, [], "Number of bytes currently stored in the embedded NATS JetStream queue."),

  // reconcile loops, under the names that dashboards of controllers know
  controller_runtime_reconcile_total: counter(
    "",
    server,
    ["controller", "result"],
    "Rounds of a reconcile loop, by result: success or error.",
  ),
  controller_runtime_reconcile_errors_total: counter("", server, ["controller"], "Failed rounds of a reconcile loop."),
  controller_runtime_reconcile_time_seconds: histogram(
    "s",
    server,
    ["controller"],
    "How long a round of a reconcile loop took.",
    real,
  ),
  workqueue_depth: gauge("", server, ["name"], "Rounds of a reconcile loop that wait."),
  workqueue_adds_total: counter("", server, ["name"], "Rounds of a reconcile loop that became due."),
  workqueue_retries_total: counter("", server, ["name"], "Rounds of a reconcile loop that followed a failed one."),

  // beside the contract
  "klio.wal.received_size": counter("By", server, byCluster, "Raw WAL bytes received.", own),
  "klio.wal.latest_written_lsn": gauge("By", server, byTier, "End of the latest complete WAL file, in base 10.", own),
  "klio.wal.latest_written_timeline": gauge("", server, byTier, "Timeline of the latest complete WAL file.", own),
  "klio.wal.exposure": gauge("s", both, byTier, "Age of the oldest WAL byte that this tier does not hold durably.", {
    own: true,
    int: false,
  }),
  "klio.wal.exposure_size": gauge("By", both, byTier, "WAL bytes that this tier does not hold durably.", own),
  "klio.consumer.abandoned": counter("", server, byCluster, "WAL files given up on their way to Tier 2.", own),
  "klio.consumer.relayed": counter("", server, byCluster, "Backups copied to Tier 2 and verified there.", own),
  "klio.tiers.divergence": gauge(
    "",
    server,
    ["cluster_name", "kind"],
    "Files of the latest comparison that tier 2 lacks (missing), has beside their successor (stale) or without being WAL (foreign), or has with other content (different).",
    own,
  ),
  "klio.queue.oldest_age": gauge("s", server, ["stream"], "Age of the oldest task in the stream.", {
    own: true,
    int: false,
  }),
  "klio.queue.redeliveries": counter("", server, ["stream"], "Tasks that the queue delivered once more.", own),
  "klio.queue.undecodable": counter("", server, ["stream"], "Messages that were no tasks and were dropped.", own),
  "klio.queue.dead_letters": gauge("", server, ["stream"], "Tasks that only a person can help.", own),
  "klio.slot.retained_size": gauge("By", plugin, byCluster, "WAL that PostgreSQL keeps for the slot.", own),
  "klio.slot.safe_size": gauge(
    "By",
    plugin,
    byCluster,
    "WAL that may still be written before the slot loses its own; absent without max_slot_wal_keep_size.",
    own,
  ),
  "klio.slot.volume_free_size": gauge(
    "By",
    plugin,
    byCluster,
    "Free bytes of the volume of pg_wal; absent where the sidecar does not share it.",
    own,
  ),
  "klio.slot.time_to_full": gauge(
    "s",
    plugin,
    byCluster,
    "Forecast until safe size or volume are used up by the WAL kept for the slot; absent while that does not grow, or beyond a week.",
    { own: true, int: false },
  ),
  "klio.stream.condition": gauge(
    "",
    plugin,
    ["cluster_name", "condition"],
    "Whether this condition keeps the WAL stream from flowing now (1), one series per condition (reasons of the error table).",
    own,
  ),
  "klio.source.latest_contact_time": gauge(
    "s",
    server,
    byCluster,
    "Unix epoch timestamp at which the server last heard of the cluster's source; after a restart, of its newest WAL file.",
    own,
  ),
  "klio.volume.free_size": gauge(
    "By",
    server,
    ["volume"],
    "Free bytes of the volume that holds tier1_wal, tier1_base, tier1_cache, tier2_cache or queue.",
    own,
  ),
  "klio.volume.size": gauge("By", server, ["volume"], "Size of the same volume.", own),
  "klio.child.restarts": counter("", server, ["child"], "Starts of a child process after an unexpected end.", own),
  "klio.backup.unverified": gauge(
    "",
    plugin,
    [],
    "Whether the most recent complete backup could not be verified (1) or was (0).",
    { own: true, zero: true },
  ),
  "klio.backup.verification_coverage": gauge(
    "1",
    plugin,
    [],
    "Share of the file contents that the latest verification read.",
    { own: true, int: false },
  ),
  "klio.stage.duration": histogram("s", both, ["stage", "outcome"], "Duration of each stage that has a span.", {
    own: true,
    int: false,
  }),
  "klio.machine.state": gauge(
    "",
    both,
    ["machine", "state"],
    "Number of statecharts that are in this state, one series per state.",
    own,
  ),
  "klio.machine.ignored": counter("", both, ["machine", "event"], "Events that a statechart did not expect.", own),
} as const satisfies Record<string, MetricRow>;
export type MetricName = keyof typeof metrics;

export function isMetricName(name: string): name is MetricName {
  return Object.hasOwn(metrics, name);
}
export function isSpanName(name: string): name is SpanName {
  return Object.hasOwn(spans, name);
}

/** From a group commit of milliseconds to a backup of two weeks. */
export const STAGE_BOUNDS_SECONDS = [
  0.005, 0.025, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 600, 1_800, 3_600, 7_200, 14_400, 43_200, 86_400, 604_800,
];

/** First words of the names of log events; the rest tells what happened (`child.restarted`). */
export const logEvents = {
  admin: "requests on the administration socket",
  backup: "base backups on their way",
  base: "base backups as stored",
  child: "supervised child processes",
  cluster: "clusters known to the server",
  console: "the console",
  grpc: "gRPC servers and clients",
  offload: "the way to tier 2",
  queue: "the task queue",
  reconciler: "comparison of the tiers",
  relay: "backups on their way to tier 2",
  repository: "the base repositories",
  restore: "restores",
  retention: "what may go",
  segment: "WAL files on their way to tier 2",
  server: "the server process",
  sidecar: "the sidecar's control socket",
  slot: "the replication slot",
  stream: "the replication stream",
  telemetry: "telemetry itself",
  tier2: "the opening of tier 2",
  wal: "WAL files",
} as const;
