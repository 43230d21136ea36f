import { expect, test } from "vitest";
import { stringify } from "yaml";
import { clientOptions, serverOptions, variableOf } from "../../../src/config/options.ts";
import { resolveClientConfig, resolveS3Config, resolveServerConfig } from "../../../src/config/resolve.ts";
import { KlioError } from "../../../src/errors.ts";

const server = {
  tls: { cert: "/tls/server.crt", key: "/tls/server.key", client_ca_cert: "/tls/ca.crt" },
  tier1: {
    encryption_key_file: "/keys/t1.age",
    identity_file: "/keys/t1.identity",
    base: { cache: "/cache1", repository: "/data/base", listen_address: ":51515" },
    wal: { listen_address: ":52000", path: "/data/wal" },
  },
  tier2: {
    encryption_key_file: "/keys/t2.age",
    identity_file: "/keys/t2.identity",
    base_listen_address: ":51516",
    wal_listen_address: ":52001",
    cache: "/cache2",
    s3: { enabled: true, bucket_name: "backups", region: "eu-central-1", prefix: "/team/a/" },
  },
  queue_directory: "/queue",
};
const both = { tier1: true, tier2: true, adminSocketPath: "/run/admin", where: "klio.yaml" };
const client = {
  source: {
    dsn: "postgresql://u:geheim@h/db?replication=yes",
    standard_dsn: "postgresql://u:geheim@h/db",
    slot: "klio",
  },
  client: {
    cluster_name: "alpha",
    base: { url: "https://server:51515", server_cert_path: "/s", client_cert_path: "/c", client_key_path: "/k" },
    wal: { address: "server:52000", server_cert_path: "/s", client_cert_path: "/c", client_key_path: "/k" },
  },
};
const all = ["source", "base", "wal"] as const;

function faultsOf(run: () => unknown): KlioError {
  try {
    run();
  } catch (error) {
    if (error instanceof KlioError) return error;
    throw error;
  }
  throw new Error("no fault was reported");
}

test("a whole server configuration is resolved, defaults applied", () => {
  const { config, warnings } = resolveServerConfig(stringify(server), {}, both);
  expect(warnings).toEqual([]);
  expect(config).toEqual({
    tls: { cert: "/tls/server.crt", key: "/tls/server.key", clientCaCert: "/tls/ca.crt" },
    tier1: {
      encryptionKeyFile: "/keys/t1.age",
      identityFile: "/keys/t1.identity",
      base: { cache: "/cache1", repository: "/data/base", listenAddress: ":51515" },
      wal: { listenAddress: ":52000", path: "/data/wal" },
    },
    tier2: {
      encryptionKeyFile: "/keys/t2.age",
      identityFile: "/keys/t2.identity",
      baseListenAddress: ":51516",
      walListenAddress: ":52001",
      cache: "/cache2",
      s3: {
        bucketName: "backups",
        region: "eu-central-1",
        prefix: "team/a",
        checksum: "crc32",
        conditionalWrites: true,
      },
    },
    queueDirectory: "/queue",
    consoleListenAddress: "127.0.0.1:9474",
    adminSocketPath: "/run/admin",
  });
});

test("environment over file; an empty variable is an unset one; AWS_REGION fills in", () => {
  const env = { TIER1_WAL_PATH: "/env/wal", TIER1_BASE_CACHE: "", TIER2_S3_BUCKET_NAME: "from-env" };
  const { config } = resolveServerConfig(stringify(server), env, both);
  expect([config.tier1?.wal.path, config.tier1?.base.cache, config.tier2?.s3.bucketName]).toEqual([
    "/env/wal",
    "/cache1",
    "from-env",
  ]);
  const { region: _, ...s3 } = server.tier2.s3;
  const withoutRegion = stringify({ ...server, tier2: { ...server.tier2, s3 } });
  expect(resolveServerConfig(withoutRegion, { AWS_REGION: "us-west-2" }, both).config.tier2?.s3.region).toBe(
    "us-west-2",
  );
});

test("a server can be configured by environment alone", () => {
  const env = Object.fromEntries(
    serverOptions.flatMap((o) => {
      const value = o.key
        .split(".")
        .reduce<unknown>((at, key) => (at as Record<string, unknown> | undefined)?.[key], server);
      return value === undefined ? [] : [[variableOf(o), String(value)]];
    }),
  );
  expect(resolveServerConfig(undefined, env, both).config).toEqual(
    resolveServerConfig(stringify(server), {}, both).config,
  );
});

test("KLIO-CONFIG: all faults are reported together, with key, value and what is accepted (P11)", () => {
  const bad = {
    tls: { cert: "/c" },
    tier1: { base: { cache: "relative", listen_address: "nowhere" }, wal: { listen_address: ":99999" } },
    tier2: { cache: "/x", s3: { enabled: "perhaps", bucket_name: "A", endpoint: "ftp://x", access_key_id: "AKIA" } },
  };
  const { code, message, exit } = faultsOf(() => resolveServerConfig(stringify(bad), {}, both));
  expect([code, exit]).toEqual(["KLIO-CONFIG", 64]);
  for (const line of [
    /in the configuration \(klio.yaml\)/,
    /tls\.key: is missing .*TLS_KEY/,
    /tier1\.base\.cache = "relative": must be absolute path/,
    /tier1\.base\.listen_address = "nowhere": must be host:port/,
    /tier1\.wal\.listen_address = ":99999"/,
    /tier2\.s3\.enabled = "perhaps": must be true or false/,
    /tier2\.s3\.bucket_name = "A"/,
    /tier2\.s3\.endpoint = "ftp:\/\/x"/,
    /give both or neither/,
    /queue_directory: is missing/,
  ])
    expect(message).toMatch(line);
  expect(message).not.toContain("AKIA");
});

test("tier 2 needs S3 enabled, a cache of its own and other ports than tier 1", () => {
  const clash = {
    ...server,
    tier2: {
      ...server.tier2,
      cache: "/cache1",
      wal_listen_address: ":52000",
      s3: { ...server.tier2.s3, enabled: false },
    },
  };
  const { message } = faultsOf(() => resolveServerConfig(stringify(clash), {}, both));
  expect(message).toMatch(/S3 configuration is missing/);
  expect(message).toMatch(/tier2\.cache = "\/cache1": must differ/);
  expect(message).toMatch(/= :52000: is also the value of/);
  expect(() => resolveServerConfig(stringify(clash), {}, { ...both, tier2: false })).not.toThrow();
});

test("no tier at all, a file that is no YAML, a file that is no mapping", () => {
  expect(
    faultsOf(() => resolveServerConfig(stringify(server), {}, { ...both, tier1: false, tier2: false })).message,
  ).toMatch(/at least one tier/);
  expect(faultsOf(() => resolveServerConfig("a: [", {}, both)).message).toMatch(/is not YAML/);
  expect(faultsOf(() => resolveServerConfig("- a", {}, both)).message).toMatch(/is not a YAML mapping/);
});

test("a value that looks like a number is taken as it is written, from the file as from the environment", () => {
  const s3 =
    "bucket_name: 0123, region: 1e3, prefix: 1.10, access_key_id: 00120345678901234567, secret_access_key: 0x1F";
  const text = `{ tier2: { s3: { ${s3} } } }`;
  const expected = {
    bucketName: "0123",
    region: "1e3",
    prefix: "1.10",
    accessKeyId: "00120345678901234567",
    secretAccessKey: "0x1F",
  };
  expect(resolveS3Config(text, {}, "f").config).toMatchObject(expected);
  const env = { TIER2_S3_BUCKET_NAME: "0123", TIER2_S3_REGION: "1e3", TIER2_S3_PREFIX: "1.10" };
  expect(resolveS3Config(text, env, "f").config).toMatchObject(expected);
});

test("an endpoint with a path is refused: only one half of tier 2 would heed it; so is one with a password", () => {
  const at = (endpoint: string) => () =>
    resolveS3Config(stringify({ tier2: { s3: { ...server.tier2.s3, endpoint } } }), {}, "f");
  for (const endpoint of ["https://s3.example.com", "http://127.0.0.1:9000/", "https://[::1]:9000"])
    expect(at(endpoint)().config.endpoint).toBe(endpoint);
  for (const endpoint of ["https://gw.example.com/s3", "https://h/?a=b", "https://h#x", "https://key:geheim@h"].concat(
    ["/geheim", "@geheim", " geheim", "#geheim", '"geheim', ",geheim"].map((rest) => `https://key:geheim${rest}@h`),
  )) {
    const { message } = faultsOf(at(endpoint));
    expect(message).toMatch(
      /tier2\.s3\.endpoint = .*: must be http:\/\/ or https:\/\/ URL without user, path or query/,
    );
    expect(message).not.toContain("geheim");
  }
});

test("what would have no effect is refused: a session token without its keys, options of an external queue without its URL", () => {
  const s3 = { ...server.tier2.s3, session_token: "geheim" };
  const queue = { urls: "nats://a:4222", namespace: "eu-1", user: "u", password_file: "/p", replicas: 3 };
  const text = stringify({ ...server, queue, tier2: { ...server.tier2, s3 } });
  const { message } = faultsOf(() => resolveServerConfig(text, {}, both));
  expect(message).toMatch(/^5 faults/);
  expect(message).toMatch(/tier2\.s3\.session_token: has no effect without the keys it belongs to/);
  for (const key of ["namespace", "user", "password_file", "replicas"])
    expect(message).toContain(`queue.${key}: has no effect without queue.url: the embedded queue would be used`);
  const refused = stringify({ ...server, queue: { ...queue, url: "http://a" } });
  expect(faultsOf(() => resolveServerConfig(refused, {}, both)).message).toMatch(/^1 fault in/);
});

test("each directory is one thing's own, however it is written", () => {
  const of = (wal: string, repository: string, cache: string, queue: string, cache2: string) => {
    const base = { ...server.tier1.base, repository, cache };
    const tier1 = { ...server.tier1, base, wal: { ...server.tier1.wal, path: wal } };
    const document = { ...server, tier1, queue_directory: queue, tier2: { ...server.tier2, cache: cache2 } };
    return () => resolveServerConfig(stringify(document), {}, both);
  };
  expect(of("/d/wal", "/d/wal-base", "/d/cache", "/d/queue", "/d/cache2")).not.toThrow();
  for (const [run, fault] of [
    [
      of("/d/wal", "/d/base", "/d/cache", "/d/queue", "/d/cache/"),
      'tier2.cache = "/d/cache/": must differ from tier1.base.cache',
    ],
    [
      of("/d/wal", "/d/base", "/d/cache", "/d/queue", "/d/x/../queue"),
      'tier2.cache = "/d/x/../queue": must differ from queue_directory',
    ],
    [
      of("/d/wal", "/d/wal", "/d/cache", "/d/queue", "/c"),
      'tier1.base.repository = "/d/wal": must differ from tier1.wal.path',
    ],
    [
      of("/d/wal", "/d/base", "/d/cache", "/d/wal/queue", "/c"),
      'queue_directory = "/d/wal/queue": must not lie inside tier1.wal.path',
    ],
    [
      of("/d/wal", "/d/base", "/d//base/cache", "/d/queue", "/c"),
      'tier1.base.cache = "/d//base/cache": must not lie inside tier1.base.repository',
    ],
    [
      of("/d/base/wal", "/d/base", "/d/cache", "/d/queue", "/c"),
      'tier1.wal.path = "/d/base/wal": must not lie inside tier1.base.repository',
    ],
  ] as const) {
    const { message } = faultsOf(run);
    expect(message).toMatch(/^1 fault in/);
    expect(message).toContain(fault);
  }
});

test("unknown keys are told, not refused", () => {
  const { warnings } = resolveServerConfig(stringify({ ...server, tier1: { ...server.tier1, wall: 1 } }), {}, both);
  expect(warnings).toEqual(["unknown key tier1.wall is ignored"]);
});

test("a client configuration; sections only where a command needs them", () => {
  const { config } = resolveClientConfig(
    stringify({
      ...client,
      tier1_retention: { keep_latest: 3 },
      tier2_retention: { keep_daily: 0, recovery_window_days: 14 },
    }),
    {},
    all,
    "f",
  );
  expect(config).toMatchObject({
    clusterName: "alpha",
    source: { slot: "klio", standbyMessageTimeoutMs: 10_000, bufferBytes: 2_097_152 },
    wal: { address: "server:52000" },
    base: { url: "https://server:51515" },
    tier1Retention: { keepLatest: 3 },
    tier2Retention: { keepDaily: 0, recoveryWindowDays: 14 },
    walPrefetch: { count: 2, maxConcurrentDownloads: 4 },
    tier2BackupEnabled: false,
  });
  const onlyWal = { client: { cluster_name: "alpha", wal: client.client.wal } };
  expect(resolveClientConfig(stringify(onlyWal), {}, ["wal"], "f").config.source).toBeUndefined();
  const { message } = faultsOf(() => resolveClientConfig(stringify(onlyWal), {}, all, "f"));
  expect(message).toMatch(/source\.dsn: is missing/);
  expect(message).toMatch(/client\.base\.url, client\.base\.tier2_url: at least one is required/);
});

test("`retention` is accepted for tier 1; secrets are not shown (P9)", () => {
  const { config } = resolveClientConfig(stringify({ ...client, retention: { keep_weekly: 5 } }), {}, all, "f");
  expect(config.tier1Retention).toEqual({ keepWeekly: 5 });
  const bad = { ...client, source: { ...client.source, dsn: ["geheim"], slot: "No Slot" } };
  const { message } = faultsOf(() => resolveClientConfig(stringify(bad), {}, all, "f"));
  expect(message).toMatch(/source\.slot = "No Slot": must be a to z/);
  expect(message).not.toContain("geheim");
});

test("every option has help, an accepted form, and a key and a variable of its own", () => {
  for (const options of [serverOptions, clientOptions]) {
    expect(new Set(options.map(variableOf)).size).toBe(options.length);
    for (const o of options) {
      expect(o.help, o.key).toMatch(/\.$/);
      expect(o.accepts, o.key).not.toBe("");
      if (o.default !== undefined) expect(o.schema.safeParse(o.default).success, o.key).toBe(true);
    }
  }
});

test("an external queue takes the embedded one's place, and says all that is wrong with it", () => {
  const { queue_directory: _, ...without } = server;
  const external = (queue: object) => stringify({ ...without, queue });
  const { config } = resolveServerConfig(
    external({
      url: "tls://a:4222, tls://b:4222",
      namespace: "eu-1",
      user: "klio",
      password_file: "/p",
      ca_cert: "/ca",
    }),
    {},
    both,
  );
  expect(config.queueDirectory).toBeUndefined();
  expect(config.queue).toEqual({
    url: "tls://a:4222, tls://b:4222",
    namespace: "eu-1",
    user: "klio",
    passwordFile: "/p",
    caCert: "/ca",
    replicas: 1,
  });
  const error = faultsOf(() =>
    resolveServerConfig(
      external({ url: "nats://a:4222", user: "u", client_cert: "/c", credentials_file: "/x", token_file: "/t" }),
      {},
      both,
    ),
  );
  for (const fault of [
    /queue.namespace: is missing: with queue.url each server needs one of its own/,
    /queue.user, queue.password_file: give both or neither/,
    /queue.client_cert, queue.client_key: give both or neither/,
    /queue.user, queue.credentials_file, queue.token_file: give one of them/,
  ])
    expect(error.message).toMatch(fault);
  expect(faultsOf(() => resolveServerConfig(external({ url: "http://a" }), {}, both)).message).toMatch(
    /queue.url = "http:\/\/a": must be nats:\/\/ or tls:\/\/ URLs/,
  );
  // Secrets are files: an address is logged.
  const { message } = faultsOf(() => resolveServerConfig(external({ url: "nats://a,nats://u:geheim@b" }), {}, both));
  expect(message).toMatch(/queue.url = "nats:\/\/a,nats:\/\/\(secret\)@b": must be .*URLs without user or token/);
  expect(faultsOf(() => resolveServerConfig(stringify(without), {}, both)).message).toMatch(
    /queue_directory: is missing .*or queue.url for an external NATS/,
  );
});
