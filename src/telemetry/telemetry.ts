// The one door to telemetry: roles start their statecharts here and report facts here. Closed, it costs nothing and loads
// nothing; what it offers is the same.
import type { Interceptor, ServerInterceptor } from "@grpc/grpc-js";
import { type Context, ROOT_CONTEXT } from "@opentelemetry/api";
import type { Actor, AnyActorRef, AnyStateMachine, InputFrom, InspectionEvent } from "xstate";
import type { Environment } from "../config/config.ts";
import type { Report } from "../domain/facts.ts";
import type { Log } from "../domain/log.ts";
import { errorText } from "../errors.ts";
import { createRoot, StatechartBinder } from "./bind.ts";
import { Instruments, type Labels, type Reading } from "./instruments.ts";
import { isMeasured, recordFact } from "./metrics.ts";
import { type MetricName, metrics, type ServiceRole } from "./names.ts";
import type { SdkOptions } from "./sdk.ts";
import { isGateOpen } from "./telemetry-config.ts";
import { contextFrom } from "./traceparent.ts";

export type Inspect = (event: InspectionEvent) => void;
export type StartOptions<M extends AnyStateMachine> = {
  /** `<role>/<instance>`. */
  id: string;
  input: InputFrom<M>;
  /** What the actor's spans are below; by default the active context, which in a gRPC handler is the caller's span. */
  parent?: Context;
  /** W3C text of a remote parent; stands against `parent`. */
  traceparent?: string;
};

export interface Telemetry {
  readonly enabled: boolean;
  /** The Prometheus endpoint, when there is one. */
  readonly prometheus?: { host: string; port: number };
  /**
   * Creates and starts a root actor with its telemetry bound; facts that it and its children emit are recorded. Its errors are
   * the caller's: subscribe `{ error }`.
   */
  start<M extends AnyStateMachine>(machine: M, options: StartOptions<M>): Actor<M>;
  /** The machine with its telemetry bound, for actors that are not started here. Provide its actors first. */
  instrument<M extends AnyStateMachine>(machine: M): M;
  record: Report;
  /** States a value from outside this run: of a gauge that is restored from what is stored, or the 0 of a counter. */
  hydrate(metric: MetricName, labels: Labels, value: number): void;
  /** Asks at each collection, synchronously and from memory; the returned function takes it back. */
  observe(metric: MetricName, read: () => Iterable<Reading>): () => void;
  /** What observers tell now is told until the end: what they look at is about to be closed, before the last export. */
  holdGauges(): void;
  /** Must come first among a server's interceptors. */
  serverInterceptors(): ServerInterceptor[];
  clientInterceptors(): Interceptor[];
  /** Of the actor's outermost span, also when that has ended. */
  traceparentOf(actor: AnyActorRef): string | undefined;
  /** Flushes what is left, at most `SHUTDOWN_LIMIT_MS`. Never rejects; safe to call twice. */
  shutdown(): Promise<void>;
}

export const SHUTDOWN_LIMIT_MS = 5_000;

export type TelemetryOptions = {
  /** Name of the service when OTEL_SERVICE_NAME gives none. */
  service: "klio-server" | "klio-plugin" | "klio-restore" | "klio-operator" | "klio";
  env: Environment;
  log: Log;
  inspect?: Inspect;
  /** Further destinations of spans and metrics, for those who look at them in the same process. */
  destinations?: Pick<SdkOptions, "spanProcessors" | "metricReaders">;
};

/** A console that fails must not stop the actors it looks at. */
function harmless(inspect: Inspect | undefined, onFault: (error: unknown) => void): Inspect | undefined {
  if (inspect === undefined) return undefined;
  return (event) => {
    try {
      inspect(event);
    } catch (error) {
      onFault(error);
    }
  };
}

const nothing = () => undefined;

/** What the closed gate gives, and what tests use. */
export function noTelemetry({ inspect }: { inspect?: Inspect } = {}): Telemetry {
  const watched = harmless(inspect, nothing);
  return {
    enabled: false,
    start: (machine, { id, input }) => createRoot(machine, { id, input, inspect: watched }).start(),
    instrument: (machine) => machine,
    record: nothing,
    hydrate: nothing,
    observe: () => nothing,
    holdGauges: nothing,
    serverInterceptors: () => [],
    clientInterceptors: () => [],
    traceparentOf: nothing,
    shutdown: async () => undefined,
  };
}

/** Whose instruments start with 0; a process of another kind has none that must be there. */
const roles: Partial<Record<TelemetryOptions["service"], ServiceRole>> = {
  "klio-server": "server",
  "klio-plugin": "plugin",
};

/** A command is over before anyone scrapes it, and must not fail because a sidecar beside it has the port. */
export function unscraped(env: Environment): Environment {
  return env.OTEL_METRICS_EXPORTER?.trim() === "prometheus" ? { ...env, OTEL_METRICS_EXPORTER: "none" } : env;
}

/** Rejects with KLIO-CONFIG (all faults of the OTEL_* variables at once) or KLIO-PORT-BUSY. The caller shuts it down, last. */
export async function startTelemetry(options: TelemetryOptions): Promise<Telemetry> {
  const { service, env, log, inspect, destinations } = options;
  if (!isGateOpen(env)) return noTelemetry(inspect === undefined ? {} : { inspect });
  const [{ startSdk }, { clientInterceptor, serverInterceptor }] = await Promise.all([
    import("./sdk.ts"),
    import("./grpc-interceptors.ts"),
  ]);
  const sdk = await startSdk({ service, env, log, ...destinations });
  const onFault = (error: unknown) => sdk.warn(errorText(error));
  const instruments = new Instruments(sdk.meter("klio"), onFault);
  for (const [name, row] of Object.entries(metrics))
    if (row.zeroAtStart && row.roles.some((role) => role === roles[service]))
      instruments.hydrate(name as MetricName, {}, 0); // Object.entries widens the keys
  const record = (fact: { type: string }) => {
    if (isMeasured(fact)) recordFact(instruments, fact, Date.now() / 1000);
  };
  const binder = new StatechartBinder({ tracer: sdk.tracer, instruments, onFact: record, onFault });
  const watched = harmless(inspect, onFault);
  const rpc = sdk.meter("klio.grpc");
  const server = serverInterceptor(rpc, sdk.config.rpcNames);
  const client = clientInterceptor(rpc, sdk.config.rpcNames);
  let ending: Promise<void> | undefined;
  return {
    enabled: true,
    ...(sdk.prometheus !== undefined && { prometheus: sdk.prometheus }),
    start: (machine, { id, input, parent, traceparent }) => {
      const around = traceparent === undefined ? parent : contextFrom(parent ?? ROOT_CONTEXT, traceparent);
      return binder.start(machine, { id, input, parent: around, inspect: watched });
    },
    instrument: (machine) => binder.instrument(machine),
    record,
    hydrate: (metric, labels, value) => instruments.hydrate(metric, labels, value),
    observe: (metric, read) => instruments.observe(metric, read),
    holdGauges: () => instruments.hold(),
    serverInterceptors: () => [server],
    clientInterceptors: () => [client],
    traceparentOf: (actor) => binder.traceparentOf(actor),
    shutdown: () => {
      ending ??= sdk.shutdown(SHUTDOWN_LIMIT_MS);
      return ending;
    },
  };
}
