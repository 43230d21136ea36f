import { createHash, randomBytes } from "node:crypto";
import { zstdCompressSync } from "node:zlib";
import { create } from "@bufbuild/protobuf";
import { Metadata, status } from "@grpc/grpc-js";
import { expect, test } from "vitest";
import { openChannel } from "../../../src/actors/grpc/client-channel.ts";
import { walMethods } from "../../../src/actors/grpc/wal-methods.ts";
import { BlockCodec, GetRequestSchema, type GetResult } from "../../../src/proto/generated/klio/wal/v1/wal_pb.ts";
import { encodePut } from "../../../src/wire/wal-message.ts";
import { eventually } from "../../support/eventually.ts";
import { SYSTEM_ID, walSegment } from "../../support/wal-bytes.ts";
import { send, startWalServer, upload } from "../../support/wal-server.ts";
import { read, SEGMENT_BYTES } from "../../support/wal-store.ts";

const name = "000000010000000000000003";
const segment = walSegment(name, SEGMENT_BYTES);
const compressible = Buffer.from(segment);
for (let at = 8192; at < SEGMENT_BYTES; at += 8192) compressible.fill(at & 0xff, at + 40, at + 8192);
const start = { systemId: SYSTEM_ID, currentWalName: name };

test("after RequestWALStart large blocks go compressed, are stored as they came, and come back as they were", async () => {
  await using server = await startWalServer();
  const client = await server.client();
  expect(await client.requestWalStart(start)).toMatchObject({ kind: "ok" });
  const sent = await send(client, compressible, { walName: name }, 300_000);
  expect(sent).toMatchObject({ kind: "ok", value: { durableBytes: SEGMENT_BYTES, complete: true } });
  expect((await read(server.store, "alpha", name))?.equals(compressible)).toBe(true);
  const [stored] = await server.store.list("alpha");
  expect(stored?.storedBytes).toBeLessThan(SEGMENT_BYTES / 4);
});

test("E2: compressed blocks that come again in part are compared, and only the rest is stored", async () => {
  await using server = await startWalServer();
  const client = await server.client();
  await client.requestWalStart(start);
  const first = upload(client, { walName: name });
  first.call.sendCopy(compressible.subarray(0, 300_000));
  await eventually(() => first.acks.at(-1)?.durableBytes === 300_000);
  first.call.cancel();
  await first.call.ended;
  await eventually(async () => {
    const again = await send(client, compressible, { walName: name, fromOffset: 204_800 }, 200_000);
    return again.kind === "ok" && again.value.complete;
  });
  expect((await read(server.store, "alpha", name))?.equals(compressible)).toBe(true);
});

test("a block that is no zstd frame, or not of the length it says, is refused, and nothing of it is stored", async () => {
  await using server = await startWalServer();
  const client = await server.client();
  await client.requestWalStart(start);
  const { cert, key } = server.certificates.client("alpha");
  const tls = { serverCertPath: server.certificates.server.cert, clientCertPath: cert, clientKeyPath: key };
  const { client: channel } = await openChannel(server.server.address, tls, []);
  const fields = { cluster: "alpha", walName: name, segmentBytes: SEGMENT_BYTES, sendToTier2: false, offset: 0 };
  const frame = zstdCompressSync(segment.subarray(0, 100_000));
  const bad: [Buffer, number][] = [
    [randomBytes(500), 100_000],
    [frame, 99_999],
    [frame.subarray(0, -1), 100_000],
    [Buffer.concat([frame, frame]), 200_000],
    [frame, 0],
    [zstdCompressSync(Buffer.alloc(64 << 20)), 1 << 20],
    [zstdCompressSync(Buffer.alloc(2 << 20)), 2 << 20],
  ];
  const { path, serialize, deserialize } = walMethods.stream;
  for (const [block, packedFrom] of bad) {
    const call = channel.makeBidiStreamRequest(path, serialize, deserialize, new Metadata());
    const ended = new Promise((resolve) => call.once("error", resolve));
    call.on("data", () => undefined);
    call.write(encodePut({ ...fields, packedFrom }, block));
    expect(await ended).toMatchObject({ code: status.INVALID_ARGUMENT });
  }
  channel.close();
  expect((await server.store.list("alpha")).every(({ storedBytes }) => storedBytes === 0)).toBe(true);
  const sent = await send(client, segment, { walName: name }); // the server is as well as before
  expect(sent.kind).toBe("ok");
});

test("a file goes out as it is stored to who takes it so, and raw to an older client, which gets the same bytes", async () => {
  await using server = await startWalServer();
  const client = await server.client();
  await client.requestWalStart(start);
  await send(client, compressible, { walName: name }, 300_000);
  const answer = await client.get(name);
  const parts: Uint8Array[] = [];
  if (answer.kind === "ok") for await (const block of answer.value?.blocks ?? []) parts.push(block);
  expect(Buffer.concat(parts).equals(compressible)).toBe(true);

  const { cert, key } = server.certificates.client("alpha");
  const tls = { serverCertPath: server.certificates.server.cert, clientCertPath: cert, clientKeyPath: key };
  const { client: channel } = await openChannel(server.server.address, tls, []);
  const { path, serialize, deserialize } = walMethods.get;
  const ask = async (blockCodecs: BlockCodec[]) => {
    const request = create(GetRequestSchema, { clusterName: "alpha", walName: name, blockCodecs });
    const messages: GetResult[] = [];
    for await (const message of channel.makeServerStreamRequest(path, serialize, deserialize, request, new Metadata()))
      messages.push(message as GetResult);
    return messages;
  };
  const raw = await ask([]);
  expect(raw.every(({ codec, rawSize, sha256 }) => codec === 0 && rawSize === 0n && sha256.length === 0)).toBe(true);
  expect(Buffer.concat(raw.map(({ walBlock }) => walBlock)).equals(compressible)).toBe(true);
  const stored = await ask([BlockCodec.ZSTD]);
  expect(stored.reduce((sum, { walBlock }) => sum + walBlock.length, 0)).toBeLessThan(SEGMENT_BYTES / 4);
  expect(stored.reduce((sum, { rawSize }) => sum + rawSize, 0n)).toBe(BigInt(SEGMENT_BYTES));
  expect(Buffer.from(stored.at(-1)?.sha256 ?? []).equals(createHash("sha256").update(compressible).digest())).toBe(
    true,
  );
  channel.close();
});
