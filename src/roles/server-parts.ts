// The parts of a server in their order: tier 1, its base repository server, the way to tier 2, the WAL services, the admin
// socket. Tier 2 may come later than the rest.

import type { Caller } from "../actors/grpc/handlers.ts";
import type { AdminHandlers } from "../actors/grpc/serve-admin.actor.ts";
import { serveAdmin } from "../actors/grpc/serve-admin.actor.ts";
import { checkServerTls } from "../actors/grpc/serve-grpc.ts";
import { serveWal } from "../actors/grpc/serve-wal.actor.ts";
import { kopiaServerSpec } from "../actors/snapshots/kopia-server.ts";
import type { KopiaRepository } from "../actors/snapshots/repository.ts";
import type { Environment, ServerConfig, Tier1Config, Tier2Config } from "../config/config.ts";
import { findTool } from "../config/tools.ts";
import type { Console } from "../console/console.ts";
import { serveConsole } from "../console/serve-console.actor.ts";
import { type Frontier, noFrontier } from "../domain/frontier.ts";
import type { Log } from "../domain/log.ts";
import { type Failure, failureOf, unwrap } from "../domain/outcome.ts";
import type { TierName } from "../domain/snapshots.ts";
import { KlioError } from "../errors.ts";
import type { Telemetry } from "../telemetry/telemetry.ts";
import { watchBaseBackups } from "./base-metrics.ts";
import { type OffloadRole, startOffload } from "./offload.ts";
import { readOnlyAdmin } from "./offload-admin.ts";
import type { QueueSource } from "./offload-queue.ts";
import { ReadinessBoard } from "./server-readiness.ts";
import { type StatusSources, serverStatus } from "./server-status.ts";
import { openTier1, type Tier1 } from "./server-tier1.ts";
import { checkTier2, openTier2, type Tier2 } from "./server-tier2.ts";
import { type SourceContact, watchContact } from "./source-contact.ts";
import { type SourceExposure, watchExposure } from "./source-exposure.ts";
import { restoreStoredTimes } from "./stored-times.ts";
import { superviseChild } from "./supervise.ts";
import { whenTier2Opens } from "./tier2-patience.ts";
import { type VolumeName, watchVolumes } from "./volume-gauges.ts";

export type ServerSurroundings = {
  config: ServerConfig;
  env: Environment;
  telemetry: Telemetry;
  log: Log;
  console: Console;
  signal: AbortSignal;
  /** Everything that is opened is closed by it, in reverse order. */
  parts: AsyncDisposableStack;
  /** Called when a part fails for good while serving. */
  failed: (failure: Failure) => void;
};

const ADMIN_GRACE_MS = 2_000;
const nothing = () => undefined;

/** Variables that Kopia and S3 may need from our surroundings; no other of ours reaches a child. */
function passedOn(env: Environment): Record<string, string> {
  const wanted = /^(AWS_|HTTPS?_PROXY$|NO_PROXY$|https?_proxy$|no_proxy$|SSL_CERT_|PATH$)/;
  return Object.fromEntries(
    Object.entries(env).filter((entry): entry is [string, string] => entry[1] !== undefined && wanted.test(entry[0])),
  );
}

/** Opens everything. Rejects with the KlioError of what cannot be opened; what is open by then is on `parts`. */
export async function openServer(surroundings: ServerSurroundings): Promise<void> {
  const { config, parts, log, console } = surroundings;
  await checkServerTls(config.tls); // before anything is made
  const board = new ReadinessBoard();
  const http = await serveConsole({
    listenAddress: config.consoleListenAddress,
    console,
    readiness: () => board.read(),
    log,
  });
  parts.defer(() => http.close());
  log.info("server.console", `console and health on http://${http.address}/`, { address: http.address });
  const tools = { kopia: findTool("kopia", surroundings.env) };
  if (config.tier1 !== undefined) await openBothTiers({ ...surroundings, board, tools }, config.tier1);
  else if (config.tier2 !== undefined) await openTier2Alone({ ...surroundings, board, tools }, config.tier2);
  parts.defer(() => board.setOpen(false));
  board.setOpen(true);
}

function volumesOf({ tier2, queueDirectory }: ServerConfig, tier1?: Tier1Config): Partial<Record<VolumeName, string>> {
  return {
    ...(tier1 !== undefined && {
      tier1_wal: tier1.wal.path,
      tier1_base: tier1.base.repository,
      tier1_cache: tier1.base.cache,
    }),
    ...(tier2 !== undefined && { tier2_cache: tier2.cache }),
    ...(tier1 !== undefined && queueDirectory !== undefined && { queue: queueDirectory }),
  };
}

type Context = ServerSurroundings & { board: ReadinessBoard; tools: { kopia: string } };

async function openBothTiers(context: Context, tier1Config: Tier1Config): Promise<void> {
  const { config, env, telemetry, log, parts, signal, board } = context;
  if (config.tier2 !== undefined) await checkTier2(config.tier2);
  const tier1 = await openTier1({ config: tier1Config, kopia: context.tools.kopia, report: telemetry.record, log });
  parts.defer(() => tier1.store.close());
  parts.use(tier1.repository);
  const { tier2: tier2Config } = config;
  let frontierOf = (_cluster: string): Frontier => noFrontier;
  const exposure = watchExposure({
    telemetry,
    ...(tier2Config !== undefined && { frontierOf: (cluster: string) => frontierOf(cluster) }),
  });
  parts.use(exposure);
  const contact = parts.use(watchContact({ telemetry }));
  await restoreStoredTimes(tier1.store, telemetry, log, (cluster, ms) => {
    exposure.known(cluster, "tier1", ms);
    contact.known(cluster, ms);
  });
  parts.defer(watchVolumes({ paths: volumesOf(config, tier1Config), telemetry, log }));
  // Tier 2 opens while tier 1 begins to serve (P4); it is closed after what uses it, because its place in the order is taken now.
  const tier2Parts = parts.use(new AsyncDisposableStack());
  const opening =
    tier2Config === undefined
      ? undefined
      : whenTier2Opens({
          open: async () => {
            await using attempt = new AsyncDisposableStack();
            const opened = await openTier2(tier2Options(context, tier2Config, false));
            attempt.defer(() => opened.objects.close());
            attempt.use(opened.repository);
            const onNewest = (cluster: string, ms: number) => exposure.known(cluster, "tier2", ms);
            await serveTier2({ ...context, parts: attempt }, tier2Config, opened, onNewest);
            tier2Parts.use(attempt.move());
            return opened;
          },
          log,
          signal,
        });
  // Whatever ends the start: the first try comes to its end before what it opened is closed.
  const tried = opening?.then(nothing, nothing);
  parts.defer(() => tried);
  await serveBase(context, tier1.repository, tier1Config.base.listenAddress);
  const offload = await startOffload({
    store: tier1.store,
    walDirectory: tier1Config.wal.path,
    repository: tier1.repository,
    ...(opening !== undefined && {
      tier2: { prefix: tier2Config?.s3.prefix ?? "", whenOpen: opening.then(({ opened }) => opened) },
    }),
    exposure: exposure.read,
    queue: queueSource(config, env, tier1.keyId),
    telemetry,
    log,
    signal,
  });
  parts.defer(() => offload.stop());
  frontierOf = (cluster) => offload.frontier(cluster);
  offload.failed.then((error) => context.failed(failureOf(error)));
  board.add("queue", offload.queueState, { required: false });
  await serveTier1(context, tier1, offload, { exposure, contact }, tier1Config);
  const tier2 = await opening;
  if (tier2 !== undefined) board.add("tier 2", tier2.look, { required: false });
  await serveAdminSocket(context, offload.admin);
}

/** `owner`: a name for this server's tier 1 that outlives a restart. */
function queueSource({ queue, queueDirectory }: ServerConfig, env: Environment, owner: string): QueueSource {
  if (queue === undefined)
    return { kind: "embedded", executable: findTool("nats-server", env), directory: queueDirectory ?? "" };
  const { url, namespace, replicas, user, passwordFile, credentialsFile, tokenFile, caCert, clientCert, clientKey } =
    queue;
  const tls = {
    ...(caCert !== undefined && { caFile: caCert }),
    ...(clientCert !== undefined && { certFile: clientCert }),
    ...(clientKey !== undefined && { keyFile: clientKey }),
  };
  return {
    kind: "external",
    address: {
      url,
      namespace,
      replicas,
      owner,
      isExternal: true,
      ...(user !== undefined && { user }),
      ...(passwordFile !== undefined && { passwordFile }),
      ...(credentialsFile !== undefined && { credentialsFile }),
      ...(tokenFile !== undefined && { tokenFile }),
      ...((url.includes("tls://") || Object.keys(tls).length > 0) && { tls }),
    },
  };
}

async function serveTier1(
  context: Context,
  { store, repository }: Tier1,
  offload: OffloadRole,
  { exposure, contact }: { exposure: SourceExposure; contact: SourceContact },
  config: Tier1Config,
): Promise<void> {
  const { telemetry, log, parts } = context;
  const onStored: OffloadRole["onStored"] = (fact) => {
    contact.heard(fact.cluster);
    offload.onStored(fact);
  };
  const base = parts.use(watchBaseBackups(repository, telemetry, log));
  const server = await serveWal({
    reader: store,
    store,
    tls: context.config.tls,
    listenAddress: config.wal.listenAddress,
    telemetry,
    log: log.with({ tier: "tier1" }),
    async closeBackup(request) {
      base.refresh();
      return offload.closeBackup(request);
    },
    maintainBackups: offload.maintainBackups,
    openRepository: repositoryAccess(repository, config.base.listenAddress),
    onStored,
    onInterrupted: onStored,
    onSource(cluster, report) {
      contact.heard(cluster);
      exposure.report(cluster, report);
    },
    status: statusText(offload.admin),
    onRead: (cluster, read) => offload.onRead(cluster, read),
  });
  parts.defer(() => server.close());
  context.board.add("WAL tier 1", () => ({ ready: true, detail: server.address }));
  log.info("server.wal", `WAL of tier 1 on ${server.address}`, { address: server.address, tier: "tier1" });
}

async function openTier2Alone(context: Context, config: Tier2Config): Promise<void> {
  const tier2 = await openTier2(tier2Options(context, config, true));
  context.parts.defer(() => tier2.objects.close());
  context.parts.use(tier2.repository);
  const { telemetry, log } = context;
  context.parts.defer(watchVolumes({ paths: volumesOf(context.config), telemetry, log }));
  await serveTier2(context, config, tier2, () => undefined); // nothing is written here: nothing is exposed
  await serveAdminSocket(
    context,
    readOnlyAdmin(tier2.repository, (cluster) => serverStatus(tier2Alone(tier2), cluster)),
  );
}

const tier2Options = (context: Context, config: Tier2Config, readOnly: boolean) => ({
  config,
  kopia: context.tools.kopia,
  readOnly,
  environment: passedOn(context.env),
  log: context.log,
});

/** What is known where only tier 2 is read: its listing and its backups. */
const tier2Alone = (tier2: Tier2): StatusSources => ({
  tiers: () => ({ tier2 }),
  measures: async () => ({}),
  exposure: () => undefined,
  gaps: async () => [],
  divergence: () => undefined,
});

const statusText =
  ({ status }: Pick<AdminHandlers, "status">) =>
  async (cluster: string) =>
    JSON.stringify({ ...(await status(cluster)), queue: null }); // the queue is everybody's

/** The WAL and base repository services of tier 2: they only read. */
async function serveTier2(
  context: Context,
  config: Tier2Config,
  tier2: Tier2,
  onNewest: (cluster: string, newestMs: number) => void,
): Promise<void> {
  const { telemetry, log, parts } = context;
  await serveBase(context, tier2.repository, config.baseListenAddress);
  const refuse = async (): Promise<never> => {
    throw new KlioError("KLIO-READ-ONLY", "tier 2 takes no writes from clients");
  };
  const server = await serveWal({
    reader: tier2.reader,
    tls: context.config.tls,
    listenAddress: config.walListenAddress,
    telemetry,
    log: log.with({ tier: "tier2" }),
    closeBackup: refuse,
    maintainBackups: refuse,
    openRepository: repositoryAccess(tier2.repository, config.baseListenAddress),
    status: statusText({ status: (cluster) => serverStatus(tier2Alone(tier2), cluster) }),
  });
  parts.defer(() => server.close());
  parts.use(watchBaseBackups(tier2.repository, telemetry, log));
  await restoreStoredTimes(tier2.reader, telemetry, log, onNewest);
  log.info("server.wal", `WAL of tier 2 on ${server.address}`, { address: server.address, tier: "tier2" });
}

async function serveBase(context: Context, repository: KopiaRepository, listenAddress: string): Promise<void> {
  const { telemetry, log, signal, parts, board } = context;
  const { tier } = repository;
  const child = await superviseChild({
    name: `kopia ${tier}`,
    spec: () => kopiaServerSpec(repository, { listenAddress, tls: context.config.tls, log }),
    refusalCode: "KLIO-CHILD-FAILED",
    telemetry,
    log,
    signal,
  });
  parts.defer(() => child.stop());
  child.failed.then((error) => context.failed(failureOf(error)));
  const required = tier === "tier1" || context.config.tier1 === undefined;
  // One series without attributes: of the repository that backups are written to.
  if (required) {
    const stop = telemetry.observe("klio.base.uptime", () => [{ value: child.uptimeSeconds() }]);
    parts.defer(() => void stop());
  }
  board.add(`base repository ${tierText(tier)}`, () => ({ ready: child.isReady(), detail: listenAddress }), {
    required,
  });
}

const tierText = (tier: TierName) => (tier === "tier1" ? "tier 1" : "tier 2");

function repositoryAccess(repository: KopiaRepository, listenAddress: string) {
  const port = Number(listenAddress.slice(listenAddress.lastIndexOf(":") + 1));
  return async ({ user, cluster }: Caller) => ({ ...unwrap(await repository.clusterAccess(user, cluster)), port });
}

async function serveAdminSocket(context: Context, handlers: AdminHandlers): Promise<void> {
  const { telemetry, log, parts, config } = context;
  const interceptors = telemetry.serverInterceptors();
  const server = await serveAdmin({ socketPath: config.adminSocketPath, handlers, interceptors, log });
  parts.defer(() => server.close(ADMIN_GRACE_MS));
  log.info("server.admin", `the admin socket is ${config.adminSocketPath}`, { socket_path: config.adminSocketPath });
}
