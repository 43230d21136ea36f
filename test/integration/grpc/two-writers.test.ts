// One file, two calls that want to write it.
import { expect, test } from "vitest";
import { uploadIds } from "../../../src/actors/grpc/upload-id.ts";
import { eventually } from "../../support/eventually.ts";
import { walSegment } from "../../support/wal-bytes.ts";
import { send, startWalServer, upload } from "../../support/wal-server.ts";
import { read, SEGMENT_BYTES } from "../../support/wal-store.ts";

const name = "000000010000000000000003";
const segment = walSegment(name, SEGMENT_BYTES);
const busy = { kind: "retryable", code: "KLIO-WAL-BUSY" };

test("KLIO-WAL-BUSY: two writers of one file exclude each other; the second may come back", async () => {
  await using server = await startWalServer();
  const [one, two] = [await server.client(), await server.client()];
  const first = upload(one, { walName: name });
  first.call.sendCopy(segment.subarray(0, 8192));
  await eventually(() => first.acks.length > 0);
  expect(await send(two, segment, { walName: name })).toMatchObject(busy);
  first.call.cancel();
  await first.call.ended;
  await eventually(async () => (await send(two, segment, { walName: name })).kind === "ok");
});

test("a sender that came back takes over from its own earlier call, whose end nobody noticed; nobody else does", async () => {
  await using server = await startWalServer();
  const [one, two] = [await server.client(), await server.client()];
  const [own, other] = [uploadIds(), uploadIds()];
  const late = own();
  const first = upload(one, { walName: name, uploadId: own() });
  first.call.sendCopy(segment.subarray(0, 8192));
  await eventually(() => first.acks.length > 0);
  for (const uploadId of [other(), late])
    expect(await send(two, segment, { walName: name, uploadId })).toMatchObject(busy);
  expect(await send(two, segment, { walName: name, uploadId: own() })).toMatchObject({
    kind: "ok",
    value: { durableBytes: SEGMENT_BYTES, complete: true },
  });
  expect(await first.call.ended).toMatchObject({ kind: "ok", value: { durableBytes: 8192, complete: false } });
  expect((await read(server.store, "alpha", name))?.equals(segment)).toBe(true);
});
