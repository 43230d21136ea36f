// The one error class of Klio and the table of its codes. A code is a row: kind, exit status, gRPC status,
// Kubernetes condition reason, and what to do about it.
//   retryable: the same call may succeed later; fatal: only a person or a configuration change helps; bug: an
//   invariant is broken and the process ends with it.

export type ErrorKind = "retryable" | "fatal" | "bug";

/** gRPC status codes by number (grpc-js `status`), so that this file imports nothing. */
export const grpcStatus = {
  OK: 0,
  CANCELLED: 1,
  UNKNOWN: 2,
  INVALID_ARGUMENT: 3,
  DEADLINE_EXCEEDED: 4,
  NOT_FOUND: 5,
  ALREADY_EXISTS: 6,
  PERMISSION_DENIED: 7,
  RESOURCE_EXHAUSTED: 8,
  FAILED_PRECONDITION: 9,
  ABORTED: 10,
  OUT_OF_RANGE: 11,
  UNIMPLEMENTED: 12,
  INTERNAL: 13,
  UNAVAILABLE: 14,
  DATA_LOSS: 15,
  UNAUTHENTICATED: 16,
} as const;

/** Exit statuses: sysexits where they fit, plus those that callers of `restore_command` and CNPG rely on. */
export const exitStatus = {
  done: 0,
  failed: 1,
  walMissing: 4,
  usage: 64,
  corruption: 65,
  source: 68,
  unavailable: 69,
  bug: 70,
  tryAgain: 75,
} as const;

type Row = { kind: ErrorKind; exit: number; grpc: number; reason: string; cure: string };
const row = (kind: ErrorKind, exit: number, grpc: number, reason: string, cure: string): Row => ({
  kind,
  exit,
  grpc,
  reason,
  cure,
});
const [g, x] = [grpcStatus, exitStatus];
/** What only another configuration, or another thing in its place, can help. */
const mend = (reason: string, cure: string) => row("fatal", x.usage, g.FAILED_PRECONDITION, reason, cure);

export const errorTable = {
  // configuration and start
  "KLIO-CONFIG": row(
    "fatal",
    x.usage,
    g.INVALID_ARGUMENT,
    "ConfigurationInvalid",
    "correct the listed keys and start again",
  ),
  "KLIO-KEY-FILE": mend("KeyFileInvalid", "check the encryption key file, the identity file and their permissions"),
  "KLIO-KEY-MISMATCH": mend(
    "KeyMismatch",
    "use the key file this repository was created with; a repository key cannot be changed afterwards",
  ),
  "KLIO-CERTIFICATE": row(
    "fatal",
    x.usage,
    g.UNAUTHENTICATED,
    "CertificateInvalid",
    "check that certificate, key and CA are readable PEM files that belong together",
  ),
  "KLIO-PORT-BUSY": row(
    "fatal",
    x.unavailable,
    g.UNAVAILABLE,
    "PortBusy",
    "stop the other process or choose another address",
  ),
  "KLIO-DATA-LOCKED": row(
    "fatal",
    x.unavailable,
    g.FAILED_PRECONDITION,
    "DataDirectoryLocked",
    "stop the server that uses this directory first; two servers never share one",
  ),
  "KLIO-REPOSITORY": row(
    "fatal",
    x.unavailable,
    g.FAILED_PRECONDITION,
    "RepositoryInvalid",
    "check that the right volume or bucket is mounted and complete",
  ),
  "KLIO-TOOL-MISSING": row(
    "fatal",
    x.unavailable,
    g.FAILED_PRECONDITION,
    "ToolMissing",
    "install the named program or run the set-up",
  ),
  "KLIO-CHILD-FAILED": row(
    "retryable",
    x.unavailable,
    g.UNAVAILABLE,
    "ChildProcessFailed",
    "see the log lines of the child process",
  ),
  // identity
  "KLIO-CLUSTER-DENIED": row(
    "fatal",
    x.unavailable,
    g.PERMISSION_DENIED,
    "ClusterDenied",
    "use the client certificate of this cluster (CN user@cluster)",
  ),
  "KLIO-CLUSTER-UNKNOWN": row(
    "fatal",
    x.unavailable,
    g.NOT_FOUND,
    "ClusterUnknown",
    "check cluster_name; a cluster becomes known when its first WAL is sent",
  ),
  "KLIO-SYSTEM-ID": row(
    "fatal",
    x.unavailable,
    g.INVALID_ARGUMENT,
    "SystemIdentifierMismatch",
    "another database cluster was stored under this name; give this one a name of its own",
  ),
  // WAL
  "KLIO-NAME-INVALID": row(
    "fatal",
    x.usage,
    g.INVALID_ARGUMENT,
    "NameInvalid",
    "use letters, digits, '-', '_' and '.', and the name of a WAL file",
  ),
  "KLIO-WAL-MISMATCH": row(
    "fatal",
    x.unavailable,
    g.INVALID_ARGUMENT,
    "WalMismatch",
    "the bytes do not belong at this position; reconnect and start from the position the server names",
  ),
  "KLIO-WAL-BUSY": row(
    "retryable",
    x.tryAgain,
    g.ABORTED,
    "WalFileBusy",
    "another connection writes this file: a second sidecar of this cluster, which must go, or one whose end the server has not noticed yet; it is retried",
  ),
  "KLIO-WAL-MISSING": row(
    "fatal",
    x.walMissing,
    g.NOT_FOUND,
    "WalMissing",
    "check that the WAL range is still retained on the asked tier",
  ),
  "KLIO-WAL-GAP": row(
    "fatal",
    x.unavailable,
    g.FAILED_PRECONDITION,
    "WalGap",
    "run 'klio reset-lsn' to accept the gap, then take a new base backup",
  ),
  "KLIO-WAL-DAMAGED": row(
    "fatal",
    x.corruption,
    g.DATA_LOSS,
    "WalDamaged",
    "the stored file is damaged; fetch it from the other tier",
  ),
  "KLIO-READ-ONLY": row("fatal", x.unavailable, g.FAILED_PRECONDITION, "ReadOnly", "send writes to the tier 1 server"),
  "KLIO-DISK-FULL": row(
    "retryable",
    x.tryAgain,
    g.RESOURCE_EXHAUSTED,
    "DiskFull",
    "free space on the named tier; work resumes by itself",
  ),
  "KLIO-STORE-IO": row("retryable", x.tryAgain, g.INTERNAL, "StoreFailed", "check the volume of the named tier"),
  "KLIO-SLOT-BUSY": row(
    "retryable",
    x.tryAgain,
    g.ABORTED,
    "SlotInUse",
    "another connection streams from the replication slot: a second sidecar of this cluster, which must go, or one that PostgreSQL still believes in; it is retried",
  ),
  "KLIO-SLOT-LOST": row(
    "fatal",
    x.source,
    g.FAILED_PRECONDITION,
    "SlotLost",
    "run 'klio reset-lsn' and take a new base backup",
  ),
  "KLIO-SERVER-AHEAD": row(
    "fatal",
    x.source,
    g.FAILED_PRECONDITION,
    "ServerAhead",
    "this primary lacks WAL that the server holds: check whether it is the right one; 'klio reset-lsn' accepts it once it has passed the server's position",
  ),
  "KLIO-TIMELINE": row(
    "fatal",
    x.source,
    g.FAILED_PRECONDITION,
    "TimelineNotInHistory",
    "the server followed another line of promotions: give this cluster a name of its own, or run 'klio reset-lsn' and take a new base backup",
  ),
  // source
  "KLIO-SOURCE-DOWN": row(
    "retryable",
    x.source,
    g.UNAVAILABLE,
    "SourceUnavailable",
    "check that PostgreSQL runs and accepts connections",
  ),
  "KLIO-SOURCE-REFUSED": row(
    "fatal",
    x.source,
    g.FAILED_PRECONDITION,
    "SourceRefused",
    "check user, password, pg_hba.conf and the REPLICATION privilege",
  ),
  "KLIO-SOURCE-UNSUPPORTED": row(
    "fatal",
    x.source,
    g.FAILED_PRECONDITION,
    "SourceUnsupported",
    "use PostgreSQL 15 to 18",
  ),
  // server
  "KLIO-SERVER-DOWN": row(
    "retryable",
    x.unavailable,
    g.UNAVAILABLE,
    "ServerUnavailable",
    "check the address and that the Klio server runs",
  ),
  "KLIO-SERVER-REFUSED": row(
    "fatal",
    x.unavailable,
    g.UNAUTHENTICATED,
    "ServerRefused",
    "check the client certificate and the server certificate",
  ),
  // backup, restore
  "KLIO-BACKUP-RUNNING": row(
    "fatal",
    x.tryAgain,
    g.FAILED_PRECONDITION,
    "BackupRunning",
    "wait until the running backup of this cluster has ended",
  ),
  "KLIO-BACKUP-FAILED": row(
    "fatal",
    x.unavailable,
    g.INTERNAL,
    "BackupFailed",
    "see the named step; the next backup starts afresh",
  ),
  "KLIO-BACKUP-CORRUPT": row(
    "fatal",
    x.corruption,
    g.DATA_LOSS,
    "BackupCorrupt",
    "do not rely on this backup; check the volume and take a new one",
  ),
  "KLIO-BACKUP-UNKNOWN": row("fatal", x.unavailable, g.NOT_FOUND, "BackupUnknown", "see 'klio backup list'"),
  "KLIO-REPOSITORY-DOWN": row(
    "retryable",
    x.unavailable,
    g.UNAVAILABLE,
    "RepositoryUnavailable",
    "check that the base repository server of this tier runs",
  ),
  "KLIO-REPOSITORY-REFUSED": row(
    "fatal",
    x.unavailable,
    g.PERMISSION_DENIED,
    "RepositoryRefused",
    "the password of the cluster's repository user has changed; reconnect",
  ),
  "KLIO-RESTORE-REFUSED": row(
    "fatal",
    x.failed,
    g.FAILED_PRECONDITION,
    "RestoreRefused",
    "choose a target that the stored backups and WAL reach",
  ),
  "KLIO-RESTORE-TARGET": mend("RestoreDestination", "restore into an empty directory that no server uses"),
  // tier 2 and queue
  "KLIO-S3-CREDENTIALS": mend(
    "S3CredentialsRefused",
    "check access key, secret key and session token, what they allow, and this host's clock",
  ),
  "KLIO-S3-TLS": mend(
    "S3CertificateRefused",
    "set tier2.s3.custom_ca_bundle_file to the CA that signed the store's certificate, and tier2.s3.endpoint to a name in it",
  ),
  "KLIO-S3-BUCKET": mend("S3BucketMissing", "create the bucket, or correct tier2.s3.bucket_name or tier2.s3.region"),
  "KLIO-S3-DOWN": row(
    "retryable",
    x.unavailable,
    g.UNAVAILABLE,
    "S3Unavailable",
    "check endpoint and network; work resumes by itself",
  ),
  "KLIO-S3-FULL": row(
    "retryable",
    x.tryAgain,
    g.RESOURCE_EXHAUSTED,
    "S3StorageFull",
    "free or add space in the object store; uploads resume by themselves",
  ),
  "KLIO-S3-INTEGRITY": row(
    "retryable",
    x.unavailable,
    g.DATA_LOSS,
    "S3ChecksumDiffers",
    "the bytes that arrived are not those that were sent; it is tried again",
  ),
  "KLIO-S3-REFUSED": row(
    "fatal",
    x.unavailable,
    g.FAILED_PRECONDITION,
    "S3RequestRefused",
    "see the store's message; it may lack a feature or a permission",
  ),
  "KLIO-S3-UNFIT": row(
    "fatal",
    x.unavailable,
    g.FAILED_PRECONDITION,
    "S3StoreUnfit",
    "see the failed checks; use another store, or mend its permissions and clock",
  ),
  "KLIO-S3-CONFLICT": row(
    "fatal",
    x.unavailable,
    g.FAILED_PRECONDITION,
    "S3ObjectDiffers",
    "the object exists with other bytes; two servers must not share a prefix",
  ),
  "KLIO-QUEUE-DOWN": row(
    "retryable",
    x.unavailable,
    g.UNAVAILABLE,
    "QueueUnavailable",
    "see the log lines of nats-server; the reconciler makes up for lost tasks",
  ),
  "KLIO-QUEUE-REFUSED": mend("QueueRefused", "correct the queue.… options, or what the NATS server allows this user"),
  "KLIO-QUEUE-MESSAGE": row(
    "fatal",
    x.unavailable,
    g.INVALID_ARGUMENT,
    "QueueMessageInvalid",
    "the message is dropped; if a file was meant, the reconciler finds it",
  ),
  "KLIO-TIER-MISSING": mend("TierNotConfigured", "configure this tier or ask another one"),
  // the rest
  "KLIO-CANCELLED": row("retryable", x.tryAgain, g.CANCELLED, "Cancelled", "start it again when wanted"),
  "KLIO-USAGE": row("fatal", x.usage, g.INVALID_ARGUMENT, "UsageError", "see --help"),
  "KLIO-BUG": row("bug", x.bug, g.INTERNAL, "InternalError", "report it with the log lines around it"),
} as const satisfies Record<string, Row>;

export type ErrorCode = keyof typeof errorTable;

/** An error that ends an operation. `message`: lower case, no full stop, quotes the wrong value, never a secret. */
export class KlioError extends Error {
  readonly code: ErrorCode;
  readonly kind: ErrorKind;
  readonly hint: string;
  /** `hint` defaults to the cure of the code's row. */
  constructor(code: ErrorCode, message: string, options: { hint?: string; cause?: unknown } = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = "KlioError";
    this.code = code;
    this.kind = errorTable[code].kind;
    this.hint = options.hint ?? errorTable[code].cure;
  }
  get exit(): number {
    return errorTable[this.code].exit;
  }
}

/** The text of any thrown value, with the causes that add something. */
export function errorText(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const own = error.message || ("code" in error ? String(error.code) : error.name);
  return error.cause === undefined || own.includes(errorText(error.cause)) ? own : `${own}: ${errorText(error.cause)}`;
}

/** Any thrown value as a KlioError; what is not one already becomes a bug. */
export function asKlioError(error: unknown): KlioError {
  return error instanceof KlioError ? error : new KlioError("KLIO-BUG", errorText(error), { cause: error });
}
