// From a YAML file and the environment to a configuration: environment over file over default, an empty variable is an unset
// one. Pure: gets the texts, gives the configuration or all faults at once.
import { parseDocument, visit } from "yaml";
import type { RetentionRule } from "../domain/retention-policy.ts";
import { errorText, KlioError } from "../errors.ts";
import type {
  ClientConfig,
  Environment,
  QueueConfig,
  S3Config,
  ServerConfig,
  SourceConfig,
  TlsFiles,
} from "./config.ts";
import { directoryFaults, wholeDirectories } from "./directories.ts";
import { clientOptions, type OptionSpec, serverOptions, variableOf } from "./options.ts";

type Fault = { key: string; value?: string; problem: string };
export type Resolved<T> = { config: T; warnings: string[] };
export type ClientSection = "source" | "base" | "wal";

type Values = Map<string, unknown>;

/** All faults in one error: each on a line of its own with key, value and what is accepted. */
function configError(faults: readonly Fault[], where: string): KlioError {
  const lines = faults.map(
    ({ key, value, problem }) => `  ${key}${value === undefined ? "" : ` = ${value}`}: ${problem}`,
  );
  const count = faults.length === 1 ? "1 fault" : `${faults.length} faults`;
  return new KlioError("KLIO-CONFIG", `${count} in the configuration (${where}):\n${lines.join("\n")}`);
}

function flatten(value: unknown, prefix: string, into: Map<string, unknown>): void {
  if (value === null || value === undefined) return;
  if (typeof value !== "object" || Array.isArray(value)) {
    into.set(prefix, value);
    return;
  }
  for (const [key, inner] of Object.entries(value)) flatten(inner, prefix === "" ? key : `${prefix}.${key}`, into);
}

function readFileValues(text: string | undefined, faults: Fault[]): Map<string, unknown> {
  const values = new Map<string, unknown>();
  if (text === undefined) return values;
  try {
    const parsed = parseDocument(text);
    const [error] = parsed.errors;
    if (error !== undefined) throw error;
    // As written: of 1.10 or 007 a number would keep less, and each option converts what it wants to be one.
    visit(parsed, {
      Scalar(_, node) {
        if (typeof node.value === "number") node.value = node.source ?? node.value;
      },
    });
    const document: unknown = parsed.toJS();
    if (document !== null && (typeof document !== "object" || Array.isArray(document)))
      faults.push({ key: "file", problem: "is not a YAML mapping" });
    else flatten(document, "", values);
  } catch (error) {
    faults.push({ key: "file", problem: `is not YAML: ${errorText(error).split("\n")[0]}` });
  }
  return values;
}

/** A URL, or one of several, may be refused because there is a password in it, which may have any character. */
const shown = (raw: unknown) => JSON.stringify(raw).replaceAll(/\/\/(?:(?!,\s*[a-z]+:\/\/).)*@/gi, "//(secret)@");

const retentionKeys: Readonly<Record<RetentionRule, string>> = {
  keepLatest: "keep_latest",
  keepHourly: "keep_hourly",
  keepDaily: "keep_daily",
  keepWeekly: "keep_weekly",
  keepMonthly: "keep_monthly",
  keepAnnual: "keep_annual",
  recoveryWindowDays: "recovery_window_days",
};

/** Values by key, defaults applied; `isDue` says for which keys a missing value is a fault. */
function readOptions(
  options: readonly OptionSpec[],
  text: string | undefined,
  env: Environment,
  isDue: (key: string) => boolean,
  faults: Fault[],
  warnings: string[],
): Values {
  const file = readFileValues(text, faults);
  const values: Values = new Map();
  for (const option of options) {
    const variable = env[variableOf(option)];
    const alias = option.aliases?.find((name) => file.has(name));
    const raw =
      variable !== undefined && variable !== ""
        ? variable
        : (file.get(option.key) ?? (alias === undefined ? undefined : file.get(alias)) ?? option.default);
    if (raw === undefined || raw === "") {
      if (raw === "" && option.default === "") values.set(option.key, "");
      else if (option.required === true && isDue(option.key))
        faults.push({ key: option.key, problem: `is missing (${option.accepts}; or set ${variableOf(option)})` });
      continue;
    }
    const parsed = option.schema.safeParse(raw);
    if (parsed.success) values.set(option.key, parsed.data);
    else
      faults.push({
        key: option.key,
        value: option.secret === true ? "(secret)" : shown(raw),
        problem: `must be ${option.accepts}`,
      });
  }
  const known = new Set(options.flatMap((o) => [o.key, ...(o.aliases ?? [])]));
  for (const key of file.keys()) if (!known.has(key) && !isOther(key)) warnings.push(`unknown key ${key} is ignored`);
  return values;
}

/** Keys of the published configuration that this Klio has no use for. */
const isOther = (key: string) => key === "source.flush_timeout_ms";

/** A view of the values that knows their types; only called for keys that were checked. */
function reader(values: Values) {
  const textOf = (key: string) => String(values.get(key) ?? "");
  return {
    has: (key: string) => values.has(key),
    text: textOf,
    optional: (key: string) => (values.has(key) ? textOf(key) : undefined),
    number: (key: string) => Number(values.get(key)),
    boolean: (key: string) => values.get(key) === true,
  };
}

export type ServerTiers = { tier1: boolean; tier2: boolean };

/** AWS's own variable stands in for the region. */
const withRegion = (env: Environment): Environment =>
  env.TIER2_S3_REGION || env.AWS_REGION ? { ...env, TIER2_S3_REGION: env.TIER2_S3_REGION || env.AWS_REGION } : env;

function s3KeyFaults(v: ReturnType<typeof reader>): Fault[] {
  if (v.has("tier2.s3.access_key_id") !== v.has("tier2.s3.secret_access_key"))
    return [{ key: "tier2.s3.access_key_id, tier2.s3.secret_access_key", problem: "give both or neither" }];
  return v.has("tier2.s3.session_token") && !v.has("tier2.s3.access_key_id")
    ? [{ key: "tier2.s3.session_token", problem: "has no effect without the keys it belongs to" }]
    : [];
}

function s3Of(v: ReturnType<typeof reader>): S3Config {
  const optional = {
    endpoint: "endpoint",
    accessKeyId: "access_key_id",
    secretAccessKey: "secret_access_key",
    sessionToken: "session_token",
    customCaBundleFile: "custom_ca_bundle_file",
  };
  return {
    bucketName: v.text("tier2.s3.bucket_name"),
    region: v.text("tier2.s3.region"),
    prefix: v.text("tier2.s3.prefix"),
    ...optionals(optional, (key) => v.optional(`tier2.s3.${key}`)),
    checksum: v.text("tier2.s3.checksum") === "sha256" ? "sha256" : "crc32",
    conditionalWrites: v.boolean("tier2.s3.conditional_writes"),
  };
}

/** The object store of tier 2 alone, whatever the rest of a server's configuration is. Throws KLIO-CONFIG with all faults of it. */
export function resolveS3Config(text: string | undefined, env: Environment, where: string): Resolved<S3Config> {
  const faults: Fault[] = [];
  const warnings: string[] = [];
  const isOurs = (key: string) => key.startsWith("tier2.s3.");
  const options = serverOptions.filter(({ key }) => isOurs(key));
  const v = reader(readOptions(options, text, withRegion(env), isOurs, faults, warnings));
  faults.push(...s3KeyFaults(v));
  if (faults.length > 0) throw configError(faults, where);
  return { config: s3Of(v), warnings: warnings.filter((warning) => warning.startsWith("unknown key tier2.s3.")) };
}

/** Throws KLIO-CONFIG with all faults. `text`: the YAML file's, undefined when there is none. */
export function resolveServerConfig(
  text: string | undefined,
  env: Environment,
  tiers: ServerTiers & { adminSocketPath: string; where: string },
): Resolved<ServerConfig> {
  const faults: Fault[] = [];
  const warnings: string[] = [];
  const isDue = (key: string) =>
    key.startsWith("tls.") || (tiers.tier1 && key.startsWith("tier1.")) || (tiers.tier2 && key.startsWith("tier2."));
  const values = readOptions(serverOptions, text, withRegion(env), isDue, faults, warnings);
  const v = reader(values);
  if (!tiers.tier1 && !tiers.tier2)
    faults.push({ key: "--tier1, --tier2", problem: "at least one tier must be enabled" });
  if (tiers.tier2 && !v.boolean("tier2.s3.enabled"))
    faults.push({ key: "tier2.s3.enabled", problem: "the S3 configuration is missing: must be true with --tier2" });
  faults.push(...s3KeyFaults(v));
  // Of an address that is refused it is known that an external queue is meant.
  if (tiers.tier1 && !faults.some(({ key }) => key === "queue.url")) faults.push(...queueFaults(v));
  const directories = [
    ...(tiers.tier1 ? [...wholeDirectories, "tier1.base.cache"] : []),
    ...(tiers.tier1 && !v.has("queue.url") ? ["queue_directory"] : []),
    ...(tiers.tier2 ? ["tier2.cache"] : []),
  ];
  faults.push(...directoryFaults(directories.filter(v.has).map((key) => ({ key, path: v.text(key) }))));
  const listens = [
    "tier1.base.listen_address",
    "tier1.wal.listen_address",
    "tier2.base_listen_address",
    "tier2.wal_listen_address",
    "console_listen_address",
  ];
  const used = listens.filter(
    (key) =>
      v.has(key) &&
      !v.text(key).endsWith(":0") &&
      (key === "console_listen_address" || tiers[key.startsWith("tier1") ? "tier1" : "tier2"]),
  );
  for (const key of used) {
    const twin = used.find((other) => other !== key && v.text(other) === v.text(key));
    if (twin !== undefined && twin > key)
      faults.push({ key, value: v.text(key), problem: `is also the value of ${twin}` });
  }
  if (faults.length > 0) throw configError(faults, tiers.where);
  const keyFiles = (tier: "tier1" | "tier2") => ({
    encryptionKeyFile: v.text(`${tier}.encryption_key_file`),
    identityFile: v.text(`${tier}.identity_file`),
  });
  return {
    warnings,
    config: {
      tls: { cert: v.text("tls.cert"), key: v.text("tls.key"), clientCaCert: v.text("tls.client_ca_cert") },
      ...(tiers.tier1 && {
        tier1: {
          ...keyFiles("tier1"),
          base: {
            cache: v.text("tier1.base.cache"),
            repository: v.text("tier1.base.repository"),
            listenAddress: v.text("tier1.base.listen_address"),
          },
          wal: { listenAddress: v.text("tier1.wal.listen_address"), path: v.text("tier1.wal.path") },
        },
        ...(v.has("queue.url") ? { queue: queueOf(v) } : { queueDirectory: v.text("queue_directory") }),
      }),
      ...(tiers.tier2 && {
        tier2: {
          ...keyFiles("tier2"),
          baseListenAddress: v.text("tier2.base_listen_address"),
          walListenAddress: v.text("tier2.wal_listen_address"),
          cache: v.text("tier2.cache"),
          s3: s3Of(v),
        },
      }),
      consoleListenAddress: v.text("console_listen_address"),
      adminSocketPath: tiers.adminSocketPath,
    },
  };
}

function queueFaults(v: ReturnType<typeof reader>): Fault[] {
  const faults: Fault[] = [];
  const both = (one: string, other: string) => {
    if (v.has(one) !== v.has(other)) faults.push({ key: `${one}, ${other}`, problem: "give both or neither" });
  };
  if (!v.has("queue.url")) {
    if (!v.has("queue_directory"))
      faults.push({
        key: "queue_directory",
        problem: "is missing (absolute path of a directory; or set QUEUE_DIRECTORY; or queue.url for an external NATS)",
      });
    const idle = serverOptions.map(({ key }) => key).filter((key) => key.startsWith("queue.") && v.has(key));
    for (const key of idle.filter((one) => one !== "queue.replicas" || v.number(one) !== 1))
      faults.push({ key, problem: "has no effect without queue.url: the embedded queue would be used" });
    return faults;
  }
  if (!v.has("queue.namespace"))
    faults.push({ key: "queue.namespace", problem: "is missing: with queue.url each server needs one of its own" });
  both("queue.user", "queue.password_file");
  both("queue.client_cert", "queue.client_key");
  const given = ["queue.user", "queue.credentials_file", "queue.token_file"].filter((key) => v.has(key));
  if (given.length > 1) faults.push({ key: given.join(", "), problem: "give one of them" });
  return faults;
}

function queueOf(v: ReturnType<typeof reader>): QueueConfig {
  const files = {
    user: "user",
    passwordFile: "password_file",
    credentialsFile: "credentials_file",
    tokenFile: "token_file",
    caCert: "ca_cert",
    clientCert: "client_cert",
    clientKey: "client_key",
  };
  return {
    url: v.text("queue.url"),
    namespace: v.text("queue.namespace"),
    replicas: v.number("queue.replicas"),
    ...optionals(files, (key) => v.optional(`queue.${key}`)),
  };
}

function optionals<K extends string>(
  keys: Record<K, string>,
  read: (key: string) => string | undefined,
): { [P in K]?: string } {
  const entries = Object.entries<string>(keys).flatMap(([name, key]) => {
    const value = read(key);
    return value === undefined ? [] : [[name, value] as const];
  });
  return Object.fromEntries(entries) as { [P in K]?: string };
}

/** Throws KLIO-CONFIG with all faults. `needs`: the sections the command cannot do without. */
export function resolveClientConfig(
  text: string | undefined,
  env: Environment,
  needs: readonly ClientSection[],
  where: string,
): Resolved<ClientConfig> {
  const faults: Fault[] = [];
  const warnings: string[] = [];
  const sectionOf = (key: string): ClientSection | undefined =>
    key.startsWith("source.")
      ? "source"
      : key.startsWith("client.base.")
        ? "base"
        : key.startsWith("client.wal.")
          ? "wal"
          : undefined;
  const isDue = (key: string) => {
    const section = sectionOf(key);
    return section === undefined || needs.includes(section);
  };
  const values = readOptions(clientOptions, text, env, isDue, faults, warnings);
  const v = reader(values);
  if (needs.includes("base") && !v.has("client.base.url") && !v.has("client.base.tier2_url"))
    faults.push({ key: "client.base.url, client.base.tier2_url", problem: "at least one is required" });
  if (needs.includes("wal") && !v.has("client.wal.address") && !v.has("client.wal.tier2_address"))
    faults.push({ key: "client.wal.address, client.wal.tier2_address", problem: "at least one is required" });
  if (faults.length > 0) throw configError(faults, where);
  const tls = (section: string): TlsFiles | undefined =>
    ["server_cert_path", "client_cert_path", "client_key_path"].every((key) => v.has(`client.${section}.${key}`))
      ? {
          serverCertPath: v.text(`client.${section}.server_cert_path`),
          clientCertPath: v.text(`client.${section}.client_cert_path`),
          clientKeyPath: v.text(`client.${section}.client_key_path`),
        }
      : undefined;
  const base = tls("base");
  const wal = tls("wal");
  const rules = (tier: string) =>
    Object.fromEntries(
      Object.entries(retentionKeys).flatMap(([rule, name]) => {
        const key = `${tier}_retention.${name}`;
        return v.has(key) ? [[rule, v.number(key)] as const] : [];
      }),
    );
  const source: SourceConfig | undefined =
    v.has("source.dsn") && v.has("source.standard_dsn") && v.has("source.slot")
      ? {
          dsn: v.text("source.dsn"),
          standardDsn: v.text("source.standard_dsn"),
          slot: v.text("source.slot"),
          standbyMessageTimeoutMs: v.number("source.standby_message_timeout_seconds") * 1000,
          bufferBytes: v.number("source.buffer_size"),
          gapPolicy: v.text("source.gap_policy") === "record" ? "record" : "block",
        }
      : undefined;
  return {
    warnings,
    config: {
      clusterName: v.text("client.cluster_name"),
      ...(source && { source }),
      ...(base && {
        base: {
          ...base,
          ...optionals({ url: "url", tier2Url: "tier2_url" }, (key) => v.optional(`client.base.${key}`)),
        },
      }),
      ...(wal && {
        wal: {
          ...wal,
          ...optionals({ address: "address", tier2Address: "tier2_address" }, (key) => v.optional(`client.wal.${key}`)),
        },
      }),
      tier1Retention: rules("tier1"),
      tier2Retention: rules("tier2"),
      tier1Enabled: v.boolean("tier1_enabled"),
      tier2BackupEnabled: v.boolean("tier2_backup_enabled"),
      tier2RecoveryEnabled: v.boolean("tier2_recovery_enabled"),
      ...(v.has("backup.verify_percent") && { verifyPercent: v.number("backup.verify_percent") }),
      walPrefetch: {
        count: v.number("wal_prefetch.count"),
        maxConcurrentDownloads: v.number("wal_prefetch.max_concurrent_downloads"),
      },
    },
  };
}
