// Opens the repository of a tier on the server: verifies one that exists, creates one that is missing.
import { randomBytes } from "node:crypto";
import { chmod, mkdir, rm } from "node:fs/promises";
import { join } from "node:path";
import type { Log } from "../../domain/log.ts";
import { type Failure, failure, failureOf, type Outcome, ok } from "../../domain/outcome.ts";
import type { TierName } from "../../domain/snapshots.ts";
import { connectDirect, createRepository, narrowConnection } from "./connection.ts";
import { removeBorrowed } from "./copy-backup.ts";
import { type Kopia, runKopia } from "./kopia.ts";
import { KopiaRepository } from "./repository.ts";
import { accessDifference, ensureRules } from "./repository-rules.ts";
import { RepositoryUsers } from "./repository-user.ts";
import { inspectDirectory, type SnapshotStorage, storageEnvironment, storagePeer, storageText } from "./storage.ts";

export type RepositoryOptions = {
  tier: TierName;
  /** Absolute path of the snapshot program. */
  kopia: string;
  storage: SnapshotStorage;
  passPhrase: string;
  /** Emptied when a repository is created. */
  cacheDirectory: string;
  /** Private directory of this tier for connection files; survives restarts or not, as it likes. */
  stateDirectory: string;
  /** Nothing is created, nothing is changed. */
  readOnly: boolean;
  /** Default true: a missing repository is created (unless `readOnly`). */
  create?: boolean;
  /** Variables for the program: proxies, credentials of the object store's own chain. */
  environment?: Readonly<Record<string, string>>;
  log: Log;
  /** For the server to read it anew; default two minutes. */
  refreshMs?: number;
};

const REFRESH_MS = 120_000;

/**
 * Soft limits. Tier 1 is a local disk: a second copy of it would only hide damage and fill the volume, also from a client
 * that verifies through its server.
 */
const CACHES: Readonly<Record<TierName, { contentMB: number; metadataMB: number } | "none">> = {
  tier1: "none",
  tier2: { contentMB: 2048, metadataMB: 2048 },
};

function makeKopia({ kopia, stateDirectory, environment, tier, log }: RepositoryOptions): Kopia {
  return { executable: kopia, home: stateDirectory, environment: environment ?? {}, log: log.with({ tier }) };
}

async function prepare(options: RepositoryOptions): Promise<void> {
  await mkdir(options.stateDirectory, { recursive: true, mode: 0o700 });
  await chmod(options.stateDirectory, 0o700);
  if (options.storage.kind === "directory" && !options.readOnly)
    await mkdir(options.storage.path, { recursive: true, mode: 0o750 });
}

/**
 * Is there a repository, and does the pass-phrase open it? Nothing is written but connection files. For S3 "absent" may
 * also mean that bucket or access key do not exist; creating one tells.
 */
export async function probeSnapshotRepository(options: RepositoryOptions): Promise<Outcome<"present" | "absent">> {
  await prepare({ ...options, readOnly: true });
  const { storage } = options;
  // The program writes into whatever directory it is pointed at, so it is asked only about repositories.
  if (storage.kind === "directory" && (await inspectDirectory(storage.path)).kind !== "repository") return ok("absent");
  const configFile = join(options.stateDirectory, "probe.config");
  try {
    const connected = await connectDirect(makeKopia(options), storage, options.passPhrase, {
      configFile,
      cache: "none",
      readOnly: true,
    });
    if (connected === "connected") return ok("present");
    return connected === "absent" ? ok("absent") : connected;
  } catch (error) {
    return failureOf(error);
  } finally {
    await rm(configFile, { force: true });
  }
}

/**
 * `known`: what a probe found a moment ago. Failures: KLIO-KEY-MISMATCH, KLIO-S3-*, KLIO-REPOSITORY, KLIO-DISK-FULL,
 * KLIO-TOOL-MISSING. The caller disposes it.
 */
export async function openSnapshotRepository(
  options: RepositoryOptions,
  known?: "present" | "absent",
): Promise<Outcome<KopiaRepository>> {
  const kopia = makeKopia(options);
  try {
    const probed = known === undefined ? await probeSnapshotRepository(options) : ok(known);
    if (probed.kind !== "ok") return probed;
    await prepare(options);
    const isNew = probed.value === "absent";
    const failed = isNew ? await createMissing(options, kopia) : undefined;
    return failed ?? (await openExisting(options, kopia, isNew));
  } catch (error) {
    return failureOf(error);
  }
}

async function createMissing(options: RepositoryOptions, kopia: Kopia): Promise<Failure | undefined> {
  const { storage, readOnly, create = true } = options;
  if (readOnly || !create)
    return failure(
      "KLIO-REPOSITORY",
      `there is no base repository in ${storageText(storage)}, and none may be created`,
    );
  const found = storage.kind === "directory" ? await inspectDirectory(storage.path) : undefined;
  if (found?.kind === "other")
    return failure(
      "KLIO-REPOSITORY",
      `${storageText(storage)} holds no base repository but other files, first ${JSON.stringify(found.foreign)}`,
    );
  await rm(options.cacheDirectory, { recursive: true, force: true });
  const failed = await createRepository(
    kopia,
    storage,
    options.passPhrase,
    join(options.stateDirectory, "create.config"),
  );
  if (failed === undefined)
    options.log.info("repository.created", `created the base repository in ${storageText(storage)}`, {
      tier: options.tier,
    });
  return failed;
}

async function openExisting(
  options: RepositoryOptions,
  kopia: Kopia,
  isNew: boolean,
): Promise<Outcome<KopiaRepository>> {
  const { storage, passPhrase, stateDirectory, readOnly, tier } = options;
  await removeBorrowed(stateDirectory);
  await mkdir(options.cacheDirectory, { recursive: true, mode: 0o700 });
  const limits = CACHES[tier];
  const configs = {
    direct: join(stateDirectory, "direct.config"),
    cold: join(stateDirectory, "cold.config"),
    served: join(stateDirectory, "served.config"),
  };
  const connected = await connectDirect(kopia, storage, passPhrase, {
    configFile: configs.direct,
    cache: limits === "none" ? limits : { ...limits, directory: options.cacheDirectory },
    readOnly,
  });
  if (connected === "absent")
    return failure("KLIO-REPOSITORY", `the base repository in ${storageText(storage)} is gone`);
  if (connected !== "connected") return connected;
  await narrowConnection(configs.direct, { configFile: configs.cold, cache: "none", readOnly: true });
  await narrowConnection(configs.direct, { configFile: configs.served, cache: "same", readOnly });
  const run = (args: readonly string[]) =>
    runKopia(kopia, { args, configFile: configs.direct, password: passPhrase, env: storageEnvironment(storage) });
  const failed = readOnly ? await checkAccess(run, options) : await ensureRules(run, tier, storagePeer(storage), isNew);
  if (failed !== undefined) return failed;
  const users = await RepositoryUsers.open(join(stateDirectory, "users"));
  return ok(
    new KopiaRepository({
      tier,
      readOnly,
      kopia,
      storage,
      passPhrase,
      configs,
      stateDirectory,
      users,
      control: { user: `control-${randomBytes(6).toString("hex")}`, password: randomBytes(32).toString("base64url") },
      refreshMs: options.refreshMs ?? REFRESH_MS,
    }),
  );
}

/** A read-only repository without its access rules would let every cluster read every other. */
async function checkAccess(
  run: (args: readonly string[]) => ReturnType<typeof runKopia>,
  { tier, storage }: RepositoryOptions,
): Promise<Failure | undefined> {
  const listed = await run(["server", "acl", "list", "--json"]);
  const { missing, wrong } = accessDifference(listed.code === 0 ? JSON.parse(listed.stdout) : [], tier);
  if (listed.code === 0 && missing.length === 0 && wrong.length === 0) return undefined;
  return failure(
    "KLIO-REPOSITORY",
    `the access rules of the base repository in ${storageText(storage)} are not complete; open it once for writing`,
  );
}
