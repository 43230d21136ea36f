// What every gRPC call tells: its duration as a histogram, and the trace it belongs to. There is no span per call, since
// one call may carry a day of WAL; the spans are those of the statecharts on either side.

import {
  InterceptingCall,
  type InterceptingListener,
  type Interceptor,
  ListenerBuilder,
  type Metadata,
  RequesterBuilder,
  ServerInterceptingCall,
  type ServerInterceptor,
  ServerListenerBuilder,
  status,
} from "@grpc/grpc-js";
import { type Context, context, type Histogram, type Meter, ROOT_CONTEXT, trace, ValueType } from "@opentelemetry/api";
import { contextFrom, traceparentIn } from "./traceparent.ts";

/** Which names: the present ones, those before them, or both (`OTEL_SEMCONV_STABILITY_OPT_IN`). */
export type RpcNames = "new" | "old" | "both";
type Side = "server" | "client";

const SECONDS = [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10];
const DESCRIPTION: Record<Side, string> = {
  server: "Measures the duration of an incoming Remote Procedure Call (RPC).",
  client: "Measures the duration of an outgoing Remote Procedure Call (RPC).",
};
const OLD_DESCRIPTION: Record<Side, string> = {
  server: "Measures the duration of inbound RPC.",
  client: "Measures the duration of outbound RPC.",
};
/** Statuses that say something about the server rather than about what it was asked for. */
const SERVER_ERRORS = new Set<number>([
  status.UNKNOWN,
  status.DEADLINE_EXCEEDED,
  status.UNIMPLEMENTED,
  status.INTERNAL,
  status.UNAVAILABLE,
  status.DATA_LOSS,
]);

type Finish = (code: number) => void;

/** Starts the clock of a call; only the first end counts. */
function timerOf(meter: Meter, side: Side, names: RpcNames): (method: string) => Finish {
  const present: Histogram | undefined =
    names === "old"
      ? undefined
      : meter.createHistogram(`rpc.${side}.call.duration`, {
          unit: "s",
          description: DESCRIPTION[side],
          advice: { explicitBucketBoundaries: SECONDS },
        });
  const old: Histogram | undefined =
    names === "new"
      ? undefined
      : meter.createHistogram(`rpc.${side}.duration`, {
          unit: "ms",
          description: OLD_DESCRIPTION[side],
          valueType: ValueType.DOUBLE,
        });
  return (method) => {
    const startedMs = performance.now();
    let isDone = false;
    return (code) => {
      if (isDone) return;
      isDone = true;
      const ms = performance.now() - startedMs;
      const name = status[code] ?? `CODE(${code})`;
      const isError = side === "client" ? code !== status.OK : SERVER_ERRORS.has(code);
      present?.record(ms / 1000, {
        "rpc.system.name": "grpc",
        "rpc.method": method,
        "rpc.response.status_code": name,
        ...(isError && { "error.type": name }),
      });
      const [service = "", call = ""] = method.split("/");
      old?.record(ms, {
        "rpc.system": "grpc",
        "rpc.service": service,
        "rpc.method": call,
        "rpc.grpc.status_code": code,
      });
    };
  };
}

const textIn = (metadata: Metadata, key: string): string | undefined => {
  const [value] = metadata.get(key);
  return typeof value === "string" ? value : undefined;
};

export function clientInterceptor(meter: Meter, names: RpcNames): Interceptor {
  const start = timerOf(meter, "client", names);
  return (options, nextCall) => {
    const finish = start(options.method_definition.path.slice(1));
    const active = context.active();
    return new InterceptingCall(
      nextCall(options),
      new RequesterBuilder()
        .withStart((metadata, _listener: InterceptingListener, next) => {
          const traceparent = traceparentIn(active);
          if (traceparent !== undefined) {
            metadata.set("traceparent", traceparent);
            const state = trace.getSpanContext(active)?.traceState?.serialize();
            if (state) metadata.set("tracestate", state);
          }
          const listener = new ListenerBuilder()
            .withOnReceiveStatus((end, pass) => {
              finish(end.code);
              pass(end);
            })
            .build();
          next(metadata, listener);
        })
        .build(),
    );
  };
}

/** Must come first among the interceptors, so that calls which another one refuses are counted, too. */
export function serverInterceptor(meter: Meter, names: RpcNames): ServerInterceptor {
  const start = timerOf(meter, "server", names);
  return (method, call) => {
    const finish = start(method.path.slice(1));
    let around: Context = ROOT_CONTEXT;
    return new ServerInterceptingCall(call, {
      start: (next) =>
        next(
          new ServerListenerBuilder()
            .withOnReceiveMetadata((metadata, pass) => {
              around = contextFrom(ROOT_CONTEXT, textIn(metadata, "traceparent"), textIn(metadata, "tracestate"));
              context.with(around, () => pass(metadata));
            })
            .withOnReceiveMessage((message, pass) => context.with(around, () => pass(message)))
            .withOnReceiveHalfClose((pass) => context.with(around, () => pass()))
            .withOnCancel(() => finish(status.CANCELLED))
            .build(),
        ),
      sendStatus: (end, next) => {
        finish(end.code ?? status.OK);
        next(end);
      },
    });
  };
}
