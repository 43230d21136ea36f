// `klio server start`: the role machine around the server's parts.
import { fromPromise, toPromise } from "xstate";
import type { Environment, ServerConfig } from "../config/config.ts";
import { createConsole } from "../console/console.ts";
import { type Failure, failureOf, type Outcome, ok } from "../domain/outcome.ts";
import { errorTable, exitStatus, KlioError } from "../errors.ts";
import { role } from "../machines/role.machine.ts";
import { startTelemetry } from "../telemetry/telemetry.ts";
import { commandLog } from "./command-log.ts";
import { openServer } from "./server-parts.ts";

export type ServerOptions = {
  config: ServerConfig;
  env: Environment;
  stderr: NodeJS.WritableStream & { isTTY?: boolean };
  logLevel: string;
  signal: AbortSignal;
};

/** Within Kubernetes' usual 30 s, with room for the last export of telemetry. */
const DRAIN_LIMIT_MS = 20_000;

/** Serves until the signal or a failure. Returns the exit status; rejects with the KlioError of a failed start. */
export async function runServer(options: ServerOptions): Promise<number> {
  const { env, stderr, signal, logLevel } = options;
  const log = commandLog(stderr, logLevel);
  const console = createConsole({ log, title: "Klio server" });
  const telemetry = await startTelemetry({ service: "klio-server", env, log, inspect: console.inspect });
  const parts = new AsyncDisposableStack();
  const failed = Promise.withResolvers<Failure>();
  const stop = new AbortController();
  const machine = role.provide({
    actors: {
      openParts: fromPromise<Outcome<null>, null>(async () => {
        try {
          await openServer({ ...options, signal: stop.signal, log, telemetry, console, parts, failed: failed.resolve });
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
  const started = Date.now();
  try {
    const actor = telemetry.start(machine, {
      id: "role/server",
      input: { name: "server", drainLimitMs: DRAIN_LIMIT_MS },
    });
    const stopped = toPromise(actor);
    const shutdown = () => {
      log.info("server.draining", "asked to stop: draining");
      stop.abort();
      actor.send({ type: "shutdown.requested" });
    };
    if (signal.aborted) shutdown();
    else signal.addEventListener("abort", shutdown, { once: true });
    const serving = actor.subscribe((snapshot) => {
      if (!snapshot.matches("serving")) return;
      serving.unsubscribe();
      log.info("server.serving", `serving after ${Date.now() - started} ms`);
    });
    const { failure, drained } = await stopped;
    if (!drained) log.warn("server.drain.limit", `not everything was closed within ${DRAIN_LIMIT_MS} ms`);
    if (failure === null || signal.aborted) return exitStatus.done;
    throw new KlioError(failure.code, failure.reason, { hint: errorTable[failure.code].cure });
  } finally {
    log.info("server.stopped", "stopped");
    console.close();
    await telemetry.shutdown();
  }
}
