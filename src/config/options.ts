// Every option of the configuration files, once: key (path in the YAML file), value, default, help. The environment name
// follows from the key. Parser, validation, reference page and chart schema come from here.
import { z } from "zod";

export type OptionSpec = {
  /** Path in the file, dotted, snake case. */
  key: string;
  /** Checks and converts; environment values arrive as text. */
  schema: z.ZodType;
  /** For people: what is accepted. */
  accepts: string;
  /** Default as written in a file; without one the key is optional unless `required`. */
  default?: string | number | boolean;
  /** Required when its section is used: the first part(s) of the key, or "always". */
  required?: boolean;
  unit?: string;
  /** Never shown in messages, logs or the reference's examples. */
  secret?: boolean;
  /** Other keys under which the same value is accepted. */
  aliases?: string[];
  help: string;
};

const text = z.coerce.string().trim().min(1);
const path = text;
const bool = z.union([z.boolean(), z.enum(["true", "false", "1", "0"]).transform((v) => v === "true" || v === "1")]);
const integer = (min: number, max: number) => z.coerce.number().int().min(min).max(max);
/** `host:port`, `[v6]:port` or `:port` (all interfaces). */
const address = text
  .regex(/^(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.-]*):\d{1,5}$/)
  .refine((v) => Number(v.slice(v.lastIndexOf(":") + 1)) <= 65535);
const url = (schemes: string[]) =>
  text.refine((v) => URL.canParse(v) && schemes.includes(new URL(v).protocol.slice(0, -1)));

const option = (
  key: string,
  schema: z.ZodType,
  accepts: string,
  help: string,
  more: Partial<OptionSpec> = {},
): OptionSpec => ({
  key,
  schema,
  accepts,
  help,
  ...more,
});
const file = (key: string, help: string, more: Partial<OptionSpec> = {}) =>
  option(key, path, "path of a file", help, { required: true, ...more });
const directory = (key: string, help: string, more: Partial<OptionSpec> = {}) =>
  option(
    key,
    path.refine((v) => v.startsWith("/")),
    "absolute path of a directory",
    help,
    { required: true, ...more },
  );
const listen = (key: string, help: string, more: Partial<OptionSpec> = {}) =>
  option(key, address, "host:port", help, { required: true, ...more });

export const serverOptions: readonly OptionSpec[] = [
  file("tls.cert", "Certificate of the server (PEM), for all its ports."),
  file("tls.key", "Private key of tls.cert (PEM)."),
  file("tls.client_ca_cert", "CA certificates (PEM) that client certificates must be signed by."),
  file("tier1.encryption_key_file", "age-encrypted file with the pass-phrase of tier 1."),
  file(
    "tier1.identity_file",
    "age identity that opens tier1.encryption_key_file; not accessible to others (mode 0600 or 0640).",
  ),
  directory("tier1.base.cache", "Cache of the base backup repository."),
  directory("tier1.base.repository", "Base backup repository of tier 1."),
  listen("tier1.base.listen_address", "Address of the base backup repository server, usually :51515."),
  listen("tier1.wal.listen_address", "Address of the WAL service, usually :52000."),
  directory("tier1.wal.path", "WAL store of tier 1."),
  file("tier2.encryption_key_file", "age-encrypted file with the pass-phrase of tier 2."),
  file("tier2.identity_file", "age identity that opens tier2.encryption_key_file."),
  listen("tier2.base_listen_address", "Address of the tier 2 base backup repository server, usually :51516."),
  listen("tier2.wal_listen_address", "Address of the tier 2 WAL service, usually :52001."),
  directory("tier2.cache", "Cache of the tier 2 repository; not the one of tier 1."),
  option("tier2.s3.enabled", bool, "true or false", "Use S3 as tier 2; required for --tier2.", { default: false }),
  option(
    "tier2.s3.bucket_name",
    text.regex(/^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$/),
    "name of a bucket, 3 to 63 characters",
    "Bucket of tier 2. It must exist.",
    { required: true },
  ),
  option("tier2.s3.region", text, "name of a region", "Region of the bucket; AWS_REGION when unset.", {
    required: true,
  }),
  option(
    "tier2.s3.endpoint",
    url(["http", "https"]).refine((v) => !URL.canParse(v) || /^[a-z]+:\/\/[^/?#@]+\/?$/i.test(v)),
    "http:// or https:// URL without user, path or query",
    "Endpoint of an S3 server other than AWS; switches to path-style addressing.",
  ),
  option(
    "tier2.s3.prefix",
    z.coerce
      .string()
      .trim()
      .transform((v) => v.replace(/^\/+|\/+$/g, "")),
    "key prefix",
    "Everything is stored below it; one server per prefix.",
    { default: "" },
  ),
  option(
    "tier2.s3.access_key_id",
    text,
    "access key",
    "Static credentials, both or neither; neither: the default credential chain.",
    { secret: true },
  ),
  option("tier2.s3.secret_access_key", text, "secret key", "Secret of tier2.s3.access_key_id.", { secret: true }),
  option("tier2.s3.session_token", text, "session token", "For temporary credentials.", { secret: true }),
  file("tier2.s3.custom_ca_bundle_file", "CA certificates (PEM) in place of the system's.", { required: false }),
  option(
    "tier2.s3.checksum",
    z.enum(["crc32", "sha256"]),
    "crc32 or sha256",
    "How the store checks what it gets: `sha256` for stores that know no CRC-32 or take no unsigned bodies, at the price of CPU. `klio doctor s3` says which.",
    { default: "crc32" },
  ),
  option(
    "tier2.s3.conditional_writes",
    bool,
    "true or false",
    "Let the store refuse to replace an object. `false` for stores that ignore the condition: then Klio looks first. `klio doctor s3` says which.",
    { default: true },
  ),
  directory("queue_directory", "Directory of the embedded task queue; required with tier 1, unless queue.url is set."),
  option(
    "queue.url",
    text.refine((v) => v.split(",").every((one) => /^(nats|tls):\/\/[^\s/@]+$/.test(one.trim()))),
    "nats:// or tls:// URLs without user or token, comma separated",
    "Servers of an external NATS with JetStream, in place of the embedded queue.",
  ),
  option(
    "queue.namespace",
    text.regex(/^[a-z0-9][a-z0-9_-]{0,31}$/),
    "a to z, 0 to 9, - and _, up to 32 characters",
    "Keeps this server's streams apart from those of others on the same NATS; required with queue.url, and different for each server.",
  ),
  option("queue.user", text, "name of a user", "User on the external NATS; with queue.password_file."),
  file("queue.password_file", "Password of queue.user; read at each connection.", { required: false }),
  file(
    "queue.credentials_file",
    "NATS credentials (JWT and seed), in place of user and password; read at each connection.",
    {
      required: false,
    },
  ),
  file("queue.token_file", "Token for the external NATS, in place of user or credentials; read at each connection.", {
    required: false,
  }),
  file("queue.ca_cert", "CA certificates (PEM) the external NATS is trusted by; the system's when unset.", {
    required: false,
  }),
  file("queue.client_cert", "Client certificate (PEM) for the external NATS.", { required: false }),
  file("queue.client_key", "Private key of queue.client_cert (PEM).", { required: false }),
  option("queue.replicas", integer(1, 5), "1 to 5", "Copies that the external NATS keeps of each stream.", {
    default: 1,
  }),
  option(
    "console_listen_address",
    address,
    "host:port",
    "Address of the statechart console and of /healthz and /readyz.",
    { default: "127.0.0.1:9474" },
  ),
];

const retention = (tier: "tier1" | "tier2"): OptionSpec[] => {
  const on = tier.replace("tier", "tier ");
  const rules = (["latest", "hourly", "daily", "weekly", "monthly", "annual"] as const).map((rule) => ({
    key: `keep_${rule}`,
    help: `Backups kept on ${on} by the rule "${rule}"; 0 switches the rule off.`,
  }));
  const window = {
    key: "recovery_window_days",
    help: `Any point of the last so many days stays recoverable from ${on}; 0 switches the rule off. Unset: as \`klio retention set\` has it.`,
  };
  return [...rules, window].map(({ key, help }) =>
    option(`${tier}_retention.${key}`, integer(0, 1_000_000), "0 to 1000000", help, {
      ...(tier === "tier1" && { aliases: [`retention.${key}`] }),
    }),
  );
};

export const clientOptions: readonly OptionSpec[] = [
  option("source.dsn", text, "connection string with replication=yes", "Replication connection to PostgreSQL.", {
    required: true,
    secret: true,
  }),
  option("source.standard_dsn", text, "connection string", "Ordinary connection to PostgreSQL.", {
    required: true,
    secret: true,
  }),
  option(
    "source.slot",
    text.regex(/^[a-z0-9_]{1,63}$/),
    "a to z, 0 to 9, _",
    "Physical replication slot; made when missing.",
    { required: true },
  ),
  option(
    "source.standby_message_timeout_seconds",
    integer(1, 3600),
    "1 to 3600",
    "Longest time between two status messages to PostgreSQL.",
    { default: 10, unit: "s" },
  ),
  option("source.buffer_size", integer(8192, 8 << 20), "8192 to 8388608", "Largest block of WAL sent at once.", {
    default: 2 << 20,
    unit: "By",
  }),
  option(
    "source.gap_policy",
    z.enum(["block", "record"]),
    "block or record",
    "When PostgreSQL removed WAL that the server lacks. block: the stream waits until a person runs 'klio reset-lsn'. record: the gap is recorded at once and the stream goes on behind it; until the next base backup nothing behind the gap can be recovered.",
    { default: "block" },
  ),
  option(
    "client.cluster_name",
    text,
    "name of the cluster",
    "Must be the part behind @ in the CN of the client certificate.",
    { required: true },
  ),
  option(
    "client.base.url",
    url(["https"]),
    "https:// URL",
    "Base backup repository server of tier 1, usually https://host:51515.",
  ),
  option("client.base.tier2_url", url(["https"]), "https:// URL", "The same of tier 2, usually https://host:51516."),
  file("client.base.server_cert_path", "Certificates (PEM) the base repository server is trusted by."),
  file("client.base.client_cert_path", "Client certificate (PEM) with CN user@cluster."),
  file("client.base.client_key_path", "Private key of the client certificate (PEM)."),
  option("client.wal.address", address, "host:port", "WAL service of tier 1, usually host:52000."),
  option("client.wal.tier2_address", address, "host:port", "WAL service of tier 2, usually host:52001."),
  file("client.wal.server_cert_path", "Certificates (PEM) the WAL service is trusted by."),
  file("client.wal.client_cert_path", "Client certificate (PEM) with CN user@cluster."),
  file("client.wal.client_key_path", "Private key of the client certificate (PEM)."),
  ...retention("tier1"),
  ...retention("tier2"),
  option("tier1_enabled", bool, "true or false", "Informational: tier 1 is served.", { default: true }),
  option("tier2_backup_enabled", bool, "true or false", "Send WAL and backups on to tier 2.", { default: false }),
  option("tier2_recovery_enabled", bool, "true or false", "Read from tier 2 when recovering.", { default: false }),
  option(
    "backup.verify_percent",
    integer(0, 100),
    "0 to 100",
    "Share of a fresh backup's files whose bytes are read back; the structure is always checked. Unset: all of them up to 100 GiB, of a larger backup as many as make 100 GiB.",
    { unit: "%" },
  ),
  option(
    "wal_prefetch.count",
    integer(0, 64),
    "0 to 64",
    "WAL segments fetched ahead while recovering; 0 switches it off.",
    { default: 2 },
  ),
  option("wal_prefetch.max_concurrent_downloads", integer(1, 32), "1 to 32", "Downloads at once while recovering.", {
    default: 4,
  }),
];

/** Environment variable of an option: its key, upper case, with `_`. */
export function variableOf(option: Pick<OptionSpec, "key">): string {
  return option.key.replaceAll(".", "_").toUpperCase();
}
