// The configuration of each role, resolved: every default applied, every value checked, frozen.
import type { RetentionRules } from "../domain/retention-policy.ts";

export type TlsFiles = { serverCertPath: string; clientCertPath: string; clientKeyPath: string };

export type SourceConfig = {
  /** Connection string (URI or key/value) for replication. */
  dsn: string;
  /** Connection string for ordinary sessions. */
  standardDsn: string;
  slot: string;
  standbyMessageTimeoutMs: number;
  bufferBytes: number;
  /** What becomes of WAL that PostgreSQL removed before the server had it. */
  gapPolicy: "block" | "record";
};

export type ClientConfig = {
  source?: SourceConfig;
  clusterName: string;
  base?: TlsFiles & { url?: string; tier2Url?: string };
  wal?: TlsFiles & { address?: string; tier2Address?: string };
  tier1Retention: RetentionRules;
  tier2Retention: RetentionRules;
  tier1Enabled: boolean;
  tier2BackupEnabled: boolean;
  tier2RecoveryEnabled: boolean;
  /** Percent of a fresh backup's files that are read back; absent: by size. */
  verifyPercent?: number;
  walPrefetch: { count: number; maxConcurrentDownloads: number };
};

export type KeyFiles = { encryptionKeyFile: string; identityFile: string };

export type S3Config = {
  bucketName: string;
  region: string;
  /** URL; when set, addressing is path-style. */
  endpoint?: string;
  /** Without slashes at the ends; empty: the bucket's root. Base under `<prefix>/base/`, WAL under `<prefix>/wals/`. */
  prefix: string;
  accessKeyId?: string;
  secretAccessKey?: string;
  sessionToken?: string;
  customCaBundleFile?: string;
  checksum: "crc32" | "sha256";
  conditionalWrites: boolean;
};

/** An external NATS with JetStream. */
export type QueueConfig = {
  /** Comma separated. */
  url: string;
  namespace: string;
  user?: string;
  passwordFile?: string;
  credentialsFile?: string;
  tokenFile?: string;
  caCert?: string;
  clientCert?: string;
  clientKey?: string;
  replicas: number;
};

export type Tier1Config = KeyFiles & {
  base: { cache: string; repository: string; listenAddress: string };
  wal: { listenAddress: string; path: string };
};

export type Tier2Config = KeyFiles & {
  baseListenAddress: string;
  walListenAddress: string;
  cache: string;
  s3: S3Config;
};

export type ServerConfig = {
  tls: { cert: string; key: string; clientCaCert: string };
  tier1?: Tier1Config;
  tier2?: Tier2Config;
  /** With tier 1 one of the two: the embedded queue's directory, or an external one. */
  queueDirectory?: string;
  queue?: QueueConfig;
  /** `host:port` of health and console. */
  consoleListenAddress: string;
  adminSocketPath: string;
};

/** Environment that is passed on to telemetry and to child processes; read from the process once, in main.ts. */
export type Environment = Readonly<Record<string, string | undefined>>;
