// A repository of one tier with its server, on loopback, as the tests want it.
import { createActor } from "xstate";
import { runChild } from "../../src/actors/process/run-child.actor.ts";
import { kopiaServerSpec } from "../../src/actors/snapshots/kopia-server.ts";
import { openClusterSnapshots } from "../../src/actors/snapshots/open-cluster-snapshots.ts";
import { openSnapshotRepository, type RepositoryOptions } from "../../src/actors/snapshots/open-repository.ts";
import type { KopiaRepository } from "../../src/actors/snapshots/repository.ts";
import { findTool } from "../../src/config/tools.ts";
import { type Certificates, createCertificates } from "../../src/demo/certificates.ts";
import { freePort } from "../../src/demo/local-postgres.ts";
import { unwrap } from "../../src/domain/outcome.ts";
import type { ClusterSnapshots, TierName } from "../../src/domain/snapshots.ts";
import { childProcess } from "../../src/machines/child-process.machine.ts";
import { eventually } from "./eventually.ts";
import { type TestLog, testLog } from "./test-log.ts";

export const kopia = findTool("kopia", process.env);

export type SnapshotServer = AsyncDisposable & {
  repository: KopiaRepository;
  url: string;
  port: number;
  certificates: Certificates;
  log: TestLog;
  pid(): number;
  open(cluster: string): Promise<ClusterSnapshots>;
  stop(): Promise<void>;
};

export function repositoryOptions(
  directory: string,
  more: Partial<RepositoryOptions> & { tier?: TierName } = {},
): RepositoryOptions {
  return {
    tier: "tier1",
    kopia,
    storage: { kind: "directory", path: `${directory}/repository` },
    passPhrase: "a pass-phrase of the tests",
    cacheDirectory: `${directory}/cache`,
    stateDirectory: `${directory}/state`,
    readOnly: false,
    log: testLog(),
    ...more,
  };
}

export async function startSnapshotServer(
  directory: string,
  more: Partial<RepositoryOptions> & { clusters?: string[]; port?: number; certificates?: Certificates } = {},
): Promise<SnapshotServer> {
  const { clusters, certificates: given, port: wanted, ...options } = more;
  const log = testLog();
  const repository = unwrap(await openSnapshotRepository(repositoryOptions(directory, { log, ...options })));
  const certificates = given ?? (await createCertificates(`${directory}/tls`, { clusters: clusters ?? ["alpha"] }));
  const port = wanted ?? (await freePort());
  const gone = Promise.withResolvers<void>();
  const spec = () => kopiaServerSpec(repository, { listenAddress: `127.0.0.1:${port}`, tls: certificates.server, log });
  const actor = createActor(childProcess.provide({ actors: { runChild: runChild(spec, () => gone.resolve()) } }), {
    id: "childProcess/kopia",
    input: { name: "kopia", firstMs: 100, limitMs: 1000, stableMs: 10_000 },
  });
  actor.start();
  await eventually(() => actor.getSnapshot().matches({ running: "ready" }) || actor.getSnapshot().status !== "active", {
    what: "the repository server",
  });
  if (actor.getSnapshot().value === "failed") throw new Error(actor.getSnapshot().context.reason);
  const url = `https://127.0.0.1:${port}`;
  const stop = async () => {
    if (actor.getSnapshot().status !== "active") return;
    actor.send({ type: "shutdown.requested" });
    await gone.promise;
  };
  return {
    repository,
    url,
    port,
    certificates,
    log,
    pid: () => actor.getSnapshot().context.pid,
    async open(cluster) {
      const access = unwrap(await repository.clusterAccess("klio", cluster));
      return unwrap(
        await openClusterSnapshots({ tier: repository.tier, kopia, url, access, temporaryDirectory: directory, log }),
      );
    },
    stop,
    async [Symbol.asyncDispose]() {
      await stop();
      await repository[Symbol.asyncDispose]();
    },
  };
}
