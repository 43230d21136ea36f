// What goes over the wire to a store: connections that are kept, bodies that wait until they are wanted, and answers that come early.
import { createServer, type RequestListener, type Server } from "node:http";
import type { AddressInfo, Socket } from "node:net";
import { afterEach, expect, test } from "vitest";
import { type ObjectStore, openObjectStore } from "../../src/actors/s3/object-store.ts";

let close: () => Promise<void> = async () => undefined;
afterEach(() => close());

/** A store that answers as told; `connections` counts the accepted ones. */
async function store(prepare: (server: Server) => void) {
  const server = createServer({ keepAliveTimeout: 60_000 });
  const sockets: Socket[] = [];
  server.on("connection", (socket) => sockets.push(socket));
  prepare(server);
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const endpoint = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
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
  return { objects, sockets };
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
