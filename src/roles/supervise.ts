// A supervised child process as a part of a role: start it, wait until it is ready, hear when it is given up, stop it.
import type { ActorRefFrom } from "xstate";
import { type ChildSpec, runChild } from "../actors/process/run-child.actor.ts";
import type { Log } from "../domain/log.ts";
import { type ErrorCode, errorText, KlioError } from "../errors.ts";
import { childProcess } from "../machines/child-process.machine.ts";
import type { Telemetry } from "../telemetry/telemetry.ts";

export type SupervisedChild = {
  readonly name: string;
  /** Process id, 0 while it is down. */
  pid(): number;
  isReady(): boolean;
  /** Since the running process became ready; 0 while none is. */
  uptimeSeconds(): number;
  /** Resolves with the reason when the child was given up; never otherwise. */
  readonly failed: Promise<KlioError>;
  /** Resolves when the process is gone. Safe to call twice. */
  stop(): Promise<void>;
};

/** First wait 250 ms, at most 15 s between two starts; a child that lived 30 s has proven itself. */
const RESTART = { firstMs: 250, limitMs: 15_000, stableMs: 30_000 };

/**
 * Starts the child and resolves when it is ready. Rejects with `refusalCode` when it refuses to start, or when it ends
 * before it was ready for the first time (a start that needs several attempts is none).
 */
export async function superviseChild(options: {
  name: string;
  spec: () => ChildSpec;
  refusalCode: ErrorCode;
  telemetry: Telemetry;
  log: Log;
  signal: AbortSignal;
}): Promise<SupervisedChild> {
  const { name, log } = options;
  let alive = 0;
  let isProven = false;
  let onGone: (() => void) | undefined;
  const logic = runChild(
    () => {
      alive += 1;
      const { refusal, ...spec } = options.spec();
      // What ran once can run again: a port that somebody holds for a moment must not end the whole server.
      return isProven || refusal === undefined ? spec : { ...spec, refusal };
    },
    () => {
      alive -= 1;
      if (alive === 0) onGone?.();
    },
  );
  const machine = childProcess.provide({ actors: { runChild: logic } });
  const actor: ActorRefFrom<typeof childProcess> = options.telemetry.start(machine, {
    id: `childProcess/${name}`,
    input: { name, ...RESTART },
  });
  const given = Promise.withResolvers<KlioError>();
  const ready = Promise.withResolvers<void>();
  const refuse = (reason: string) => {
    const error = new KlioError(options.refusalCode, `${name} cannot run: ${reason}`);
    given.resolve(error);
    ready.reject(error);
  };
  options.telemetry.hydrate("klio.child.restarts", { child: name }, 0);
  let readyAtMs = 0;
  actor.on("child.ready", () => {
    readyAtMs = performance.now();
    log.info("child.ready", `${name} is ready`, { child: name, pid: actor.getSnapshot().context.pid });
    ready.resolve();
  });
  actor.on("child.restarted", ({ reason }) => {
    log.warn("child.ended", `${name} ended (${reason}); it is started again`, { child: name, reason });
    if (!isProven) refuse(reason);
  });
  actor.on("child.failed", ({ reason }) => {
    log.error("child.failed", `${name} is given up: ${reason}`, { child: name, reason });
    refuse(reason);
  });
  actor.subscribe({ error: (error) => refuse(errorText(error)) });
  const stop = async () => {
    actor.send({ type: "shutdown.requested" });
    if (alive > 0) {
      const gone = Promise.withResolvers<void>();
      onGone = gone.resolve;
      await gone.promise;
    }
  };
  const aborted = () => ready.reject(new KlioError("KLIO-CANCELLED", `the start of ${name} was cancelled`));
  options.signal.addEventListener("abort", aborted, { once: true });
  try {
    if (options.signal.aborted) aborted();
    await ready.promise;
    isProven = true;
  } catch (error) {
    await stop();
    throw error;
  } finally {
    options.signal.removeEventListener("abort", aborted);
  }
  const isReady = () => {
    const { value } = actor.getSnapshot();
    return typeof value === "object" && value.running === "ready";
  };
  return {
    name,
    pid: () => actor.getSnapshot().context.pid,
    isReady,
    uptimeSeconds: () => (isReady() ? (performance.now() - readyAtMs) / 1000 : 0),
    failed: given.promise,
    stop,
  };
}
