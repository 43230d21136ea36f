// What goes over the wire to a store: connections that are kept, bodies that wait until they are wanted, and answers that come early.
import { createServer, type RequestListener, type Server } from "node:http";
import type { AddressInfo, Socket } from "node:net";
import { text } from "node:stream/consumers";
import { afterEach, expect, test } from "vitest";
import { s3HttpHandler } from "../../src/actors/s3/http-handler.ts";
import { type ObjectStore, openObjectStore } from "../../src/actors/s3/object-store.ts";

let close: () => Promise<void> = async () => undefined;
afterEach(() => close());

const portOf = (server: Server) => (server.address() as AddressInfo).port;

/** A store that answers as told; `sockets`: the accepted connections. */
async function store(prepare: (server: Server) => void) {
  const server = createServer({ keepAliveTimeout: 60_000 });
  const sockets: Socket[] = [];
  server.on("connection", (socket) => sockets.push(socket));
  prepare(server);
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const endpoint = `http://127.0.0.1:${portOf(server)}`;
  const objects: ObjectStore = openObjectStore({
    bucketName: "bucket",
    region: "us-east-1",
    endpoint,
    accessKeyId: "key",
    secretAccessKey: "secret",
  });
  close = async () => {
    objects.close();
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  };
  return { objects, sockets, port: portOf(server) };
}

const segment = Buffer.alloc(16 << 20, 7);
const taken: RequestListener = (request, response) => {
  request.resume().once("end", () => response.setHeader("etag", '"x"').end());
};

test("segments go over one kept connection, each behind the store's consent", async () => {
  let consents = 0;
  const { objects, sockets } = await store((server) =>
    server.on("checkContinue", (request, response) => {
      consents += 1;
      response.writeContinue();
      taken(request, response);
    }),
  );
  for (const key of ["a", "b", "c"]) expect(await objects.put(key, segment)).toMatchObject({ kind: "ok" });
  expect([consents, sockets.length]).toEqual([3, 1]);
});

test("a refused condition costs no body, and the next segment is sent all the same", async () => {
  let received = 0;
  let isRefusing = true;
  const { objects } = await store((server) =>
    server.on("checkContinue", (request, response) => {
      request.on("data", (chunk: Buffer) => {
        received += chunk.length;
      });
      if (isRefusing) return response.writeHead(412).end();
      response.writeContinue();
      taken(request, response);
    }),
  );
  const condition = { kind: "absent" } as const;
  expect(await objects.put("a", segment, { condition })).toEqual({ kind: "ok", value: { kind: "refused" } });
  expect(received).toBe(0);
  isRefusing = false;
  expect(await objects.put("b", segment, { condition })).toMatchObject({ kind: "ok", value: { kind: "stored" } });
  expect(received).toBe(segment.length);
});

test("a store that says nothing to the question gets the body in the end", async () => {
  let received = 0;
  const { objects } = await store((server) =>
    server.on("checkContinue", (request, response) => {
      request.on("data", (chunk: Buffer) => {
        received += chunk.length;
      });
      taken(request, response); // without a word in between
    }),
  );
  expect(await objects.put("a", segment)).toMatchObject({ kind: "ok" });
  expect(received).toBe(segment.length);
});

test("a kept connection that the store closed meanwhile is no failure", async () => {
  let requests = 0;
  const { objects, sockets } = await store((server) =>
    server.on("checkContinue", (request, response) => {
      requests += 1;
      // The second comes over the kept connection, which is reset in place of an answer.
      if (requests === 2) return void request.socket.resetAndDestroy();
      response.writeContinue();
      taken(request, response);
    }),
  );
  for (const key of ["a", "b"]) expect(await objects.put(key, segment)).toMatchObject({ kind: "ok" });
  expect([requests, sockets.length]).toEqual([3, 2]);
});

test("KLIO-S3-DOWN: a new connection that is reset, and a body that the store breaks off, are told", async () => {
  const { objects } = await store((server) =>
    server.on("checkContinue", (request, response) => {
      if (request.url?.includes("at-once") === true) return void request.socket.resetAndDestroy();
      response.writeContinue();
      request.once("data", () => request.socket.resetAndDestroy());
    }),
  );
  expect(await objects.put("at-once", segment)).toMatchObject({ kind: "retryable", code: "KLIO-S3-DOWN" });
  expect(await objects.put("later", segment)).toMatchObject({ kind: "retryable", code: "KLIO-S3-DOWN" });
});

test("KLIO-CANCELLED: a request that is given up ends its connection", async () => {
  const asked = Promise.withResolvers<void>();
  const { objects, sockets } = await store((server) => server.on("checkContinue", () => asked.resolve()));
  const abort = new AbortController();
  const putting = objects.put("a", segment, { signal: abort.signal });
  await asked.promise;
  const ended = new Promise<void>((resolve) => sockets[0]?.once("close", () => resolve()));
  abort.abort();
  expect(await putting).toMatchObject({ code: "KLIO-CANCELLED" });
  await ended;
});

test("an answer that has begun can be given up, which ends its connection", async () => {
  const { sockets, port } = await store((server) =>
    server.on("request", (_, response) => void response.writeHead(200, { "content-length": "1000" }).write("<?xml")),
  );
  const handler = s3HttpHandler(undefined);
  const abort = new AbortController();
  const asked = { protocol: "http:", hostname: "127.0.0.1", port, method: "GET", path: "/", headers: {} };
  const { response } = await handler.handle(asked, { abortSignal: abort.signal });
  const ended = new Promise<void>((resolve) => sockets[0]?.once("close", () => resolve()));
  abort.abort();
  await expect(text(response.body)).rejects.toMatchObject({ name: "AbortError" });
  await ended;
  handler.destroy();
});

test("what stands still is given up: a body that nobody takes, an answer that does not come, one that stops in its middle", async () => {
  const { port } = await store((server) =>
    server.on("request", (request, response) => {
      if (request.url === "/untaken") return void request.pause();
      request.resume();
      if (request.url === "/cut") response.writeHead(200, { "content-length": "1000" }).write("a beginning");
    }),
  );
  const handler = s3HttpHandler(undefined, { idleMs: 300 });
  const ask = (path: string, body: Buffer) =>
    handler.handle({ protocol: "http:", hostname: "127.0.0.1", port, method: "PUT", path, headers: {}, body });
  const still = expect.objectContaining({ name: "TimeoutError", message: "no byte within 300 ms" });
  await expect(ask("/untaken", Buffer.alloc(64 << 20))).rejects.toEqual(still);
  await expect(ask("/unanswered", Buffer.from("x"))).rejects.toEqual(still);
  const { response } = await ask("/cut", Buffer.from("x"));
  await expect(text(response.body)).rejects.toEqual(still);
  handler.destroy();
});

test("what is merely slow is not given up: a body that is taken bit by bit, an answer that trickles in, one that is read late", async () => {
  const idleMs = 500;
  let ended = Promise.withResolvers<void>();
  const { port } = await store((server) =>
    server.on("request", (request, response) => {
      let pieces = 0;
      const tick = setInterval(() => {
        pieces += 1;
        if (request.url === "/trickles") response.write("x");
        else request.resume();
        if (pieces * 50 < 3 * idleMs) return;
        clearInterval(tick);
        request.removeAllListeners("data").resume();
        response.end(".", () => ended.resolve());
      }, 50);
      let passed = 0;
      request.on("data", (chunk: Buffer) => {
        passed += chunk.length;
        if (passed > pieces << 21) request.pause();
      });
    }),
  );
  const handler = s3HttpHandler(undefined, { idleMs });
  const ask = (path: string, body: Buffer) =>
    handler.handle({ protocol: "http:", hostname: "127.0.0.1", port, method: "PUT", path, headers: {}, body });
  const taken = await ask("/taken", Buffer.alloc(96 << 20));
  expect(await text(taken.response.body)).toBe(".");
  const trickled = await ask("/trickles", Buffer.from(""));
  expect(await text(trickled.response.body)).toMatch(/^x+\.$/);
  ended = Promise.withResolvers();
  const late = await ask("/trickles", Buffer.from(""));
  await ended.promise;
  expect(await text(late.response.body)).toMatch(/^x+\.$/);
  handler.destroy();
});
