// `klio sidecar` and `klio send-wal`: the role machine around the WAL stream, with the control socket where backups are asked
// for, and the console.
import { fromPromise, toPromise } from "xstate";
import { serveSidecar } from "../actors/grpc/serve-sidecar.actor.ts";
import type { ClientConfig, Environment } from "../config/config.ts";
import { createConsole } from "../console/console.ts";
import { serveConsole } from "../console/serve-console.actor.ts";
import { defaultBackupName, requireBackupName } from "../domain/backup-name.ts";
import type { Log } from "../domain/log.ts";
import { type Failure, failureOf, type Outcome, ok } from "../domain/outcome.ts";
import { errorTable, errorText, exitStatus, KlioError } from "../errors.ts";
import { role } from "../machines/role.machine.ts";
import { startTelemetry, type Telemetry } from "../telemetry/telemetry.ts";
import type { BaseBackupResult } from "./backup.ts";
import { openBackupHistory } from "./backup-history.ts";
import { commandLog } from "./command-log.ts";
import { type BackupRunner, sidecarControl } from "./sidecar-control.ts";
import { startWalStream } from "./wal-stream.ts";

type BackupWork = (
  ...asked: Parameters<BackupRunner>
) => Promise<Pick<BaseBackupResult, "metadataJson" | "unverified">>;

export type SidecarOptions = {
  config: ClientConfig;
  /** Stream from a primary only. */
  primary: boolean;
  /** Absent: no control socket, and no backups. */
  control?: { socketPath: string; backups: (parts: { telemetry: Telemetry; log: Log }) => BackupWork };
  /** `host:port` of console, /healthz and /readyz; absent: none. */
  consoleListenAddress?: string;
  env: Environment;
  stderr: NodeJS.WritableStream & { isTTY?: boolean };
  logLevel: string;
  signal: AbortSignal;
};

/** Above the stream's own drain limit; within Kubernetes' usual 30 s. */
const DRAIN_LIMIT_MS = 22_000;
const CONTROL_GRACE_MS = 2_000;

/** Runs until the signal. Returns the exit status; rejects with the KlioError of a failed start, or of a bug. */
export async function runSidecar(options: SidecarOptions): Promise<number> {
  const { env, stderr, signal, logLevel, config } = options;
  const log = commandLog(stderr, logLevel);
  const console = createConsole({ log, title: `Klio sidecar of ${config.clusterName}` });
  const telemetry = await startTelemetry({ service: "klio-plugin", env, log, inspect: console.inspect });
  const parts = new AsyncDisposableStack();
  const failed = Promise.withResolvers<Failure>();
  const machine = role.provide({
    actors: {
      openParts: fromPromise<Outcome<null>, null>(async () => {
        try {
          await openParts({ ...options, telemetry, log, console, parts, failed: failed.resolve });
          return ok(null);
        } catch (error) {
          return failureOf(error);
        }
      }),
      watchParts: fromPromise<Failure, null>(() => failed.promise),
      closeParts: fromPromise<null, null>(async () => {
        telemetry.holdGauges();
        await parts.disposeAsync();
        return null;
      }),
    },
  });
  try {
    const actor = telemetry.start(machine, {
      id: "role/sidecar",
      input: { name: "sidecar", drainLimitMs: DRAIN_LIMIT_MS },
    });
    const stopped = toPromise(actor);
    const shutdown = () => {
      log.info("sidecar.draining", "asked to stop: draining");
      actor.send({ type: "shutdown.requested" });
    };
    if (signal.aborted) shutdown();
    else signal.addEventListener("abort", shutdown, { once: true });
    const { failure, drained } = await stopped;
    signal.removeEventListener("abort", shutdown);
    if (!drained) log.warn("sidecar.drain.limit", `not everything was closed within ${DRAIN_LIMIT_MS} ms`);
    if (failure === null || signal.aborted) return exitStatus.done;
    throw new KlioError(failure.code, failure.reason, { hint: errorTable[failure.code].cure });
  } finally {
    log.info("sidecar.stopped", "stopped");
    console.close();
    await telemetry.shutdown();
  }
}

async function openParts(
  options: SidecarOptions & {
    telemetry: Telemetry;
    log: Log;
    console: ReturnType<typeof createConsole>;
    parts: AsyncDisposableStack;
    failed: (failure: Failure) => void;
  },
): Promise<void> {
  const { config, telemetry, log, parts, control, consoleListenAddress } = options;
  // First of all: until then the metrics know nothing of the backups before this process.
  const history =
    control === undefined
      ? undefined
      : await openBackupHistory(`${control.socketPath}.backups`, { config, env: options.env, telemetry, log });
  const stream = await startWalStream({ config, telemetry, log, primary: options.primary });
  parts.defer(() => stream.stop());
  const bug = (error: unknown) => options.failed({ kind: "fatal", code: "KLIO-BUG", reason: errorText(error) });
  stream.ended.catch(bug);
  if (control !== undefined && history !== undefined) {
    const { socketPath } = control;
    const run = control.backups({ telemetry, log });
    const runBackup: BackupRunner = async (request, onStep, signal) => {
      const name = requireBackupName(request.name === "" ? defaultBackupName(Date.now()) : request.name);
      return (await history.during(name, () => run({ ...request, name }, onStep, signal))).metadataJson;
    };
    const handlers = sidecarControl({ cluster: config.clusterName, stream, runBackup, log });
    const learning = new AbortController();
    const learned = history.learn(learning.signal).catch(bug);
    parts.defer(() => {
      learning.abort();
      return learned;
    });
    const server = await serveSidecar({ socketPath, handlers, interceptors: telemetry.serverInterceptors(), log });
    parts.defer(() => server.close(CONTROL_GRACE_MS));
    parts.defer(() => handlers.stop());
    log.info("sidecar.listening", `the control socket is ${socketPath}`, { socket_path: socketPath });
  }
  if (consoleListenAddress !== undefined) {
    const readiness = () => {
      const { state, condition } = stream.status();
      return {
        ready: state === "flowing",
        parts: [{ name: "stream", ready: state === "flowing", detail: condition || state }],
      };
    };
    const server = await serveConsole({
      listenAddress: consoleListenAddress,
      console: options.console,
      readiness,
      log,
    });
    parts.defer(() => server.close());
  }
}
