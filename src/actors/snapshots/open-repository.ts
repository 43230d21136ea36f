// Opens the repository of a tier on the server: verifies one that exists, creates one that is missing.
import { randomBytes } from "node:crypto";
import { chmod, mkdir, rm } from "node:fs/promises";
import { join } from "node:path";
import type { Log } from "../../domain/log.ts";
import { type Failure, failure, failureOf, type Outcome, ok } from "../../domain/outcome.ts";
import type { TierName } from "../../domain/snapshots.ts";
import { type CacheSizes, connectDirect, createRepository } from "./connection.ts";
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
};

/** Soft limits. Tier 1 is a local disk: a second copy of its contents would only hide damage and fill the volume. */
const CACHES: Readonly<Record<TierName, { contentMB: number; metadataMB: number }>> = {
  tier1: { contentMB: 0, metadataMB: 512 },
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
    if (probed.value === "absent") {
      const failed = await createMissing(options, kopia);
      if (failed !== undefined) return failed;
    }
    return await openExisting(options, kopia);
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

async function openExisting(options: RepositoryOptions, kopia: Kopia): Promise<Outcome<KopiaRepository>> {
  const { storage, passPhrase, stateDirectory, readOnly, tier } = options;
  await removeBorrowed(stateDirectory);
  await mkdir(options.cacheDirectory, { recursive: true, mode: 0o700 });
  const sizes: CacheSizes = { ...CACHES[tier], directory: options.cacheDirectory };
  const configs = {
    direct: join(stateDirectory, "direct.config"),
    cold: join(stateDirectory, "cold.config"),
    served: join(stateDirectory, "served.config"),
  };
  // On tier 1 the server has no caches either, so that a client's verification through it reads the disk.
  const caches: Record<keyof typeof configs, CacheSizes> = {
    direct: sizes,
    cold: "none",
    served: tier === "tier1" ? "none" : sizes,
  };
  for (const name of ["direct", "cold", "served"] as const) {
    const connected = await connectDirect(kopia, storage, passPhrase, {
      configFile: configs[name],
      cache: caches[name],
      readOnly: readOnly || name === "cold",
    });
    if (connected === "absent")
      return failure("KLIO-REPOSITORY", `the base repository in ${storageText(storage)} is gone`);
    if (connected !== "connected") return connected;
  }
  const run = (args: readonly string[]) =>
    runKopia(kopia, { args, configFile: configs.direct, password: passPhrase, env: storageEnvironment(storage) });
  const failed = readOnly ? await checkAccess(run, options) : await ensureRules(run, tier, storagePeer(storage));
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
