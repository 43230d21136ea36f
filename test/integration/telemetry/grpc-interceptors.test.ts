// Calls of all kinds over a true connection: durations by status, and the caller's trace in the handler.
import {
  Client,
  credentials,
  type handleBidiStreamingCall,
  type handleUnaryCall,
  Metadata,
  Server,
  ServerCredentials,
  ServerInterceptingCall,
  type ServerInterceptor,
  type ServiceError,
  status,
} from "@grpc/grpc-js";
import { context, trace } from "@opentelemetry/api";
import { AsyncLocalStorageContextManager } from "@opentelemetry/context-async-hooks";
import { MeterProvider } from "@opentelemetry/sdk-metrics";
import { beforeAll, expect, test } from "vitest";
import { clientInterceptor, type RpcNames, serverInterceptor } from "../../../src/telemetry/grpc-interceptors.ts";
import { contextFrom } from "../../../src/telemetry/traceparent.ts";
import { eventually } from "../../support/eventually.ts";
import { AskedReader } from "../../support/span-tree.ts";

const traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const raw = (bytes: Buffer) => bytes;
const method = (name: string, isStream: boolean) => ({
  path: `/klio.wal.v1.WAL/${name}`,
  requestStream: isStream,
  responseStream: isStream,
  requestSerialize: raw,
  requestDeserialize: raw,
  responseSerialize: raw,
  responseDeserialize: raw,
});

beforeAll(() => {
  context.setGlobalContextManager(new AsyncLocalStorageContextManager().enable());
});

async function serve(names: RpcNames, others: ServerInterceptor[] = []) {
  const reader = new AskedReader();
  const meter = new MeterProvider({ readers: [reader] }).getMeter("klio.grpc");
  const seen: (string | undefined)[] = [];
  const note = () => seen.push(trace.getSpanContext(context.active())?.spanId);
  const unary: handleUnaryCall<Buffer, Buffer> = (call, answer) => {
    note();
    const text = call.request.toString();
    if (text === "throw") throw new Error("handler is broken");
    if (text === "missing") answer({ code: status.NOT_FOUND, details: "no such file" });
    else setImmediate(() => answer(null, Buffer.from(String(note()))));
  };
  const stream: handleBidiStreamingCall<Buffer, Buffer> = async (call) => {
    try {
      for await (const message of call) {
        note();
        call.write(message);
        if (message.toString() === "hold") await new Promise((resolve) => call.once("cancelled", resolve));
      }
      call.end();
    } catch (error) {
      if (!call.cancelled) throw error; // a cancelled call closes its stream
    }
  };
  const server = new Server({ interceptors: [serverInterceptor(meter, names), ...others] });
  server.addService({ Get: method("Get", false), Stream: method("Stream", true) }, { Get: unary, Stream: stream });
  const port = await new Promise<number>((resolve) =>
    server.bindAsync("127.0.0.1:0", ServerCredentials.createInsecure(), (_error, bound) => resolve(bound)),
  );
  const client = new Client(`127.0.0.1:${port}`, credentials.createInsecure(), {
    interceptors: [clientInterceptor(meter, names)],
  });
  const get = (text: string) =>
    new Promise<ServiceError | null>((resolve) =>
      client.makeUnaryRequest("/klio.wal.v1.WAL/Get", raw, raw, Buffer.from(text), (error) => resolve(error)),
    );
  /** Metric, method and status of each series, with its count. */
  const calls = async () =>
    Object.fromEntries(
      (await reader.metrics()).flatMap(({ descriptor, dataPoints }) =>
        dataPoints.map(({ attributes, value }) => [
          `${descriptor.name} ${descriptor.unit} ${Object.values(attributes).join(" ")}`,
          typeof value === "number" ? value : value.count,
        ]),
      ),
    );
  return {
    client,
    get,
    seen,
    calls,
    async [Symbol.asyncDispose]() {
      client.close();
      server.forceShutdown();
    },
  };
}

test("durations are told by method and status; errors of the asker are none of the server's", async () => {
  await using place = await serve("new");
  await place.get("fine");
  expect((await place.get("missing"))?.code).toBe(status.NOT_FOUND);
  expect((await place.get("throw"))?.code).toBe(status.UNKNOWN);
  expect(await place.calls()).toEqual({
    "rpc.client.call.duration s grpc klio.wal.v1.WAL/Get OK": 1,
    "rpc.client.call.duration s grpc klio.wal.v1.WAL/Get NOT_FOUND NOT_FOUND": 1,
    "rpc.client.call.duration s grpc klio.wal.v1.WAL/Get UNKNOWN UNKNOWN": 1,
    "rpc.server.call.duration s grpc klio.wal.v1.WAL/Get OK": 1,
    "rpc.server.call.duration s grpc klio.wal.v1.WAL/Get NOT_FOUND": 1,
    "rpc.server.call.duration s grpc klio.wal.v1.WAL/Get UNKNOWN UNKNOWN": 1,
  });
});

test("the older names come alone or beside the present ones", async () => {
  await using old = await serve("old");
  await old.get("fine");
  expect(await old.calls()).toEqual({
    "rpc.client.duration ms grpc klio.wal.v1.WAL Get 0": 1,
    "rpc.server.duration ms grpc klio.wal.v1.WAL Get 0": 1,
  });
  await using both = await serve("both");
  await both.get("fine");
  expect(Object.keys(await both.calls())).toHaveLength(4);
});

test("the caller's span is the active one in the handler, also behind a timer and for each message of a stream", async () => {
  await using place = await serve("new");
  const around = contextFrom(context.active(), traceparent);
  await context.with(around, () => place.get("fine"));
  const call = context.with(around, () => place.client.makeBidiStreamRequest("/klio.wal.v1.WAL/Stream", raw, raw));
  const echoed: string[] = [];
  call.on("data", (message: Buffer) => echoed.push(message.toString()));
  for (const text of ["a", "b", "c"]) call.write(Buffer.from(text));
  call.end();
  await new Promise((resolve) => call.on("end", resolve));
  expect(echoed).toEqual(["a", "b", "c"]);
  expect(place.seen).toEqual(Array.from({ length: 5 }, () => "b7ad6b7169203331"));
  await place.get("fine");
  expect(place.seen.at(-1)).toBeUndefined();
});

test("a call that another interceptor refuses is counted; a cancelled one, too", async () => {
  const refuse: ServerInterceptor = (_method, call) =>
    new ServerInterceptingCall(call, {
      start: (next) =>
        next({
          onReceiveMetadata: (metadata, pass) => {
            if (metadata.get("x-refuse").length > 0) call.sendStatus({ code: status.PERMISSION_DENIED, details: "no" });
            else pass(metadata);
          },
        }),
    });
  await using place = await serve("new", [refuse]);
  const metadata = new Metadata();
  metadata.set("x-refuse", "1");
  const refused = await new Promise<ServiceError | null>((resolve) =>
    place.client.makeUnaryRequest("/klio.wal.v1.WAL/Get", raw, raw, Buffer.from("x"), metadata, (error) =>
      resolve(error),
    ),
  );
  expect(refused?.code).toBe(status.PERMISSION_DENIED);
  const call = place.client.makeBidiStreamRequest("/klio.wal.v1.WAL/Stream", raw, raw);
  const ended = new Promise((resolve) => call.on("error", resolve));
  await new Promise((resolve) => {
    call.on("data", resolve);
    call.write(Buffer.from("hold"));
  });
  call.cancel();
  await ended;
  const isCounted = async () => {
    const counted = await place.calls();
    return counted["rpc.server.call.duration s grpc klio.wal.v1.WAL/Stream CANCELLED"] === 1 && counted;
  };
  expect(await eventually(isCounted)).toMatchObject({
    "rpc.client.call.duration s grpc klio.wal.v1.WAL/Get PERMISSION_DENIED PERMISSION_DENIED": 1,
    "rpc.client.call.duration s grpc klio.wal.v1.WAL/Stream CANCELLED CANCELLED": 1,
    "rpc.server.call.duration s grpc klio.wal.v1.WAL/Get PERMISSION_DENIED": 1,
  });
});
