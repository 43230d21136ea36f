import { PassThrough } from "node:stream";
import type { ServerWritableStream } from "@grpc/grpc-js";
import { expect, test } from "vitest";
import { serverStream } from "../../../../src/actors/grpc/handlers.ts";
import { settle } from "../../../support/eventually.ts";
import { testLog } from "../../../support/test-log.ts";

type Call = ServerWritableStream<string, number>;

/** A stream that is full after each message, as one to a slow client is. */
function slowCall(): { stream: PassThrough; call: Call } {
  const stream = new PassThrough({ objectMode: true, highWaterMark: 1 });
  return { stream, call: Object.assign(stream, { cancelled: false, request: "" }) as unknown as Call };
}

async function* numbers(count: number) {
  for (let n = 0; n < count; n++) yield n;
}

test("a slow reader costs no listener per message, and gets every message", async () => {
  const { stream, call } = slowCall();
  const listeners = () =>
    stream.listenerCount("close") + stream.listenerCount("cancelled") + stream.listenerCount("drain");
  const own = listeners();
  serverStream<string, number>("Get", testLog(), () => numbers(50))(call);
  const got: number[] = [];
  let most = 0;
  for (let turns = 0; got.length < 50 && turns < 500; turns++) {
    await settle(1);
    most = Math.max(most, listeners());
    const next: unknown = stream.read();
    if (typeof next === "number") got.push(next);
  }
  expect(got).toEqual(Array.from({ length: 50 }, (_, n) => n));
  expect(most).toBeLessThanOrEqual(own + 3);
});

test("a client that hangs up while it is waited for ends the stream without a word", async () => {
  const { stream, call } = slowCall();
  const log = testLog();
  let made = 0;
  const endless = async function* () {
    for (;;) yield made++;
  };
  serverStream<string, number>("Get", log, () => endless())(call);
  await settle(4);
  const waiting = made;
  Object.assign(call, { cancelled: true });
  stream.emit("cancelled");
  await settle(4);
  expect(made).toBeLessThanOrEqual(waiting + 1);
  expect(log.events()).toEqual([]);
});
