import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, test } from "vitest";
import { connectWal, type WalClient } from "../../../src/actors/grpc/wal-client.ts";
import { HEADROOM_BYTES } from "../../../src/wire/wal-message.ts";
import { eventually } from "../../support/eventually.ts";
import { SYSTEM_ID, walSegment } from "../../support/wal-bytes.ts";
import { send, startWalServer, upload } from "../../support/wal-server.ts";
import { put, read, SEGMENT_BYTES } from "../../support/wal-store.ts";

const name = "000000010000000000000003";
const segment = walSegment(name, SEGMENT_BYTES);
const failed = (code: string, reason: RegExp = /./) => ({
  kind: expect.stringMatching(/retryable|fatal/),
  code,
  reason: expect.stringMatching(reason),
});

async function get(client: WalClient, file: string): Promise<Buffer | undefined> {
  const answer = await client.get(file);
  if (answer.kind !== "ok" || answer.value === undefined) return undefined;
  const parts: Uint8Array[] = [];
  for await (const block of answer.value.blocks) parts.push(block);
  return Buffer.concat(parts);
}

test.each(["stream", "put"] as const)("a file sent by %s comes back as it was", async (method) => {
  await using server = await startWalServer();
  const client = await server.client();
  const sent = await send(client, segment, { walName: name, method });
  expect(sent).toMatchObject({ kind: "ok", value: { durableBytes: SEGMENT_BYTES, complete: true } });
  expect(sent.acks.at(-1)).toEqual({ durableBytes: SEGMENT_BYTES, complete: true });
  expect(sent.acks.map((ack) => ack.durableBytes)).toEqual(
    sent.acks.map((ack) => ack.durableBytes).toSorted((a, b) => a - b),
  );
  expect((await get(client, name))?.equals(segment)).toBe(true);
  expect(server.told).toEqual([
    { type: "wal.stored", cluster: "alpha", name, rawBytes: SEGMENT_BYTES, sendToTier2: true },
  ]);
  const received = server.facts.filter((fact) => fact.type === "wal.received");
  expect(received.reduce((sum, fact) => sum + fact.bytes, 0)).toBe(SEGMENT_BYTES);
  expect(await server.store.metadata("alpha")).toEqual({ systemId: SYSTEM_ID, gaps: [] });
});

test("each block is confirmed while the file is still open, and `complete` comes without the sender's end", async () => {
  await using server = await startWalServer();
  const client = await server.client();
  const { call, acks } = upload(client, { walName: name });
  const buffer = Buffer.alloc(HEADROOM_BYTES + 10_000);
  let sent = 0;
  for (let at = 0; at < 50_000; at += 10_000) {
    segment.copy(buffer, HEADROOM_BYTES, at, at + 10_000);
    const block = { buffer, start: HEADROOM_BYTES, end: buffer.length, release: () => undefined };
    await new Promise<void>((resolve) => call.send(block, resolve));
    sent += 10_000;
    await eventually(() => acks.at(-1)?.durableBytes === sent);
  }
  call.sendCopy(segment.subarray(sent));
  expect(await call.ended).toEqual({ kind: "ok", value: { durableBytes: SEGMENT_BYTES, complete: true } });
});

test("a cut connection leaves what was confirmed; the next one goes on behind it", async () => {
  await using server = await startWalServer();
  const first = await server.client();
  expect(await first.requestWalStart({ systemId: SYSTEM_ID, currentWalName: name })).toEqual({
    kind: "ok",
    value: { walName: name, resumeOffset: 0 },
  });
  const { call, acks } = upload(first, { walName: name });
  call.sendCopy(segment.subarray(0, 300_000));
  await eventually(() => acks.at(-1)?.durableBytes === 300_000);
  call.cancel();
  expect(await call.ended).toEqual(failed("KLIO-CANCELLED"));
  await eventually(() => server.told.length === 1);
  expect(server.told[0]).toMatchObject({ type: "wal.interrupted", name: `${name}.partial`, rawBytes: 300_000 });
  const second = await server.client();
  const start = await second.requestWalStart({ systemId: SYSTEM_ID, currentWalName: "000000010000000000000009" });
  expect(start).toEqual({ kind: "ok", value: { walName: name, resumeOffset: 300_000 } });
  expect((await get(second, `${name}.partial`))?.equals(segment.subarray(0, 300_000))).toBe(true);
  const rest = await send(second, segment, { walName: name, fromOffset: 300_000 });
  expect(rest).toMatchObject({ kind: "ok", value: { complete: true } });
  expect((await get(second, name))?.equals(segment)).toBe(true);
  expect(await second.requestWalStart({ systemId: SYSTEM_ID, currentWalName: name })).toMatchObject({
    value: { walName: "000000010000000000000004", resumeOffset: 0 },
  });
});

test("an older client that begins at the first byte again completes the same file", async () => {
  await using server = await startWalServer();
  const client = await server.client();
  const { call, acks } = upload(client, { walName: name });
  call.sendCopy(segment.subarray(0, 300_000));
  call.finish();
  expect(await call.ended).toEqual({ kind: "ok", value: { durableBytes: 300_000, complete: false } });
  expect(acks.at(-1)?.complete).toBe(false);
  expect(await send(client, segment, { walName: name, method: "put" })).toMatchObject({ kind: "ok" });
  expect(await send(client, segment, { walName: name, method: "put" })).toMatchObject({ kind: "ok" });
  const other = walSegment(name, SEGMENT_BYTES);
  expect(await send(client, other, { walName: name, method: "put" })).toMatchObject(
    failed("KLIO-WAL-MISMATCH", /differ/),
  );
  expect((await get(client, name))?.equals(segment)).toBe(true);
});

test("a stop confirms what has come and sends the others away; the same file goes on after it", async () => {
  await using server = await startWalServer();
  const client = await server.client();
  const { call, acks } = upload(client, { walName: name });
  call.sendCopy(segment.subarray(0, 200_000));
  await eventually(() => acks.length > 0);
  call.sendCopy(segment.subarray(200_000, 200_500));
  await server.restart();
  expect(await call.ended).toEqual(failed("KLIO-SERVER-DOWN", /stopping|closed|reset/i));
  const confirmed = acks.at(-1)?.durableBytes ?? 0;
  const again = await server.client();
  const start = await again.requestWalStart({ systemId: SYSTEM_ID, currentWalName: name });
  expect(start).toMatchObject({ kind: "ok", value: { walName: name } });
  const fromOffset = start.kind === "ok" ? start.value.resumeOffset : -1;
  expect(fromOffset).toBeGreaterThanOrEqual(confirmed);
  expect(await send(again, segment, { walName: name, fromOffset })).toMatchObject({ kind: "ok" });
});

test("KLIO-WAL-MISMATCH: wrong WAL, gaps and too many bytes are refused; what was right stays", async () => {
  await using server = await startWalServer();
  const client = await server.client();
  await client.requestWalStart({ systemId: SYSTEM_ID, currentWalName: name });
  const shifted = Buffer.concat([segment.subarray(0, 16_384), segment.subarray(24_576), segment.subarray(0, 8192)]);
  expect(await send(client, shifted, { walName: name }, 8192)).toMatchObject(
    failed("KLIO-WAL-MISMATCH", /at 0\/304000/),
  );
  await eventually(() => server.told.length === 1);
  expect(server.told[0]).toMatchObject({ type: "wal.interrupted", rawBytes: 16_384 });
  expect(await send(client, segment, { walName: name, fromOffset: 20_000 })).toMatchObject(
    failed("KLIO-WAL-MISMATCH", /only 16384/),
  );
  expect(
    await send(client, Buffer.alloc(SEGMENT_BYTES, 7), { walName: "000000010000000000000004", method: "put" }),
  ).toMatchObject(failed("KLIO-WAL-MISMATCH", /15 to 18/));
  for (const method of ["put", "stream"] as const) {
    const { call } = upload(client, { walName: name, method });
    call.sendCopy(segment);
    if (method === "put") call.sendCopy(Buffer.alloc(1));
    call.finish();
    expect((await call.ended).kind).toBe(method === "put" ? "fatal" : "ok");
  }
});

test("history and label files go the same way", async () => {
  await using server = await startWalServer();
  const client = await server.client();
  const history = Buffer.from("1\t0/3000000\tno recovery target specified\n");
  for (const walName of ["00000002.history", `${name}.00000028.backup`]) {
    expect(await send(client, history, { walName })).toMatchObject({ kind: "ok", value: { complete: true } });
    expect(await get(client, walName)).toEqual(history);
  }
  const { call } = upload(client, { walName: "00000003.history", segmentBytes: history.length, method: "put" });
  call.sendCopy(history);
  call.sendCopy(Buffer.alloc(0)); // as older clients end
  call.finish();
  expect(await call.ended).toMatchObject({ kind: "ok" });
  expect(await client.list()).toMatchObject({
    kind: "ok",
    value: [
      { name: `${name}.00000028.backup`, complete: true },
      { name: "00000002.history", complete: true },
      { name: "00000003.history", complete: true },
    ],
  });
});

test("P11: names and sizes that cannot be are refused before anything is touched", async () => {
  await using server = await startWalServer();
  const client = await server.client();
  for (const walName of ["x", "../../etc", `${name}.partial`, ""])
    expect(await send(client, segment, { walName })).toMatchObject(failed("KLIO-NAME-INVALID"));
  for (const segmentBytes of [0, 2 ** 40])
    expect(await send(client, segment, { walName: name, segmentBytes })).toMatchObject(failed("KLIO-USAGE"));
  expect(await send(client, segment.subarray(0, 1000), { walName: name })).toMatchObject(
    failed("KLIO-USAGE", /no size/),
  );
  expect(await client.requestWalStart({ systemId: "abc", currentWalName: name })).toEqual(failed("KLIO-USAGE"));
  expect(await client.requestWalStart({ systemId: "1", currentWalName: "00000002.history" })).toEqual(
    failed("KLIO-NAME-INVALID"),
  );
  expect(await client.get("nothing")).toEqual(failed("KLIO-NAME-INVALID"));
  expect(await server.store.clusters()).toEqual([]);
});

test("P6: KLIO-CLUSTER-DENIED: a certificate opens its own cluster on every rpc, and nothing else", async () => {
  await using server = await startWalServer();
  await put(server.store, "alpha", name, segment);
  await server.store.registerCluster("alpha", SYSTEM_ID);
  await expect(server.client("alpha", "beta")).rejects.toMatchObject({ code: "KLIO-CLUSTER-DENIED" });
  const beta = await server.client("beta");
  // The same connection, asking for another cluster: what a hostile client would do.
  const { cert, key } = server.certificates.client("beta");
  const { openChannel } = await import("../../../src/actors/grpc/client-channel.ts");
  const { askOnce, listAll, openGet } = await import("../../../src/actors/grpc/wal-call.ts");
  const { walMethods } = await import("../../../src/actors/grpc/wal-methods.ts");
  const { openUpload } = await import("../../../src/actors/grpc/wal-upload.ts");
  const pb = await import("../../../src/proto/generated/klio/wal/v1/wal_pb.ts");
  const { create } = await import("@bufbuild/protobuf");
  const tls = { serverCertPath: server.certificates.server.cert, clientCertPath: cert, clientKeyPath: key };
  const { client } = await openChannel(server.server.address, tls, []);
  const address = server.server.address;
  const ids = { clusterName: "alpha", systemId: SYSTEM_ID, currentWalName: name };
  const denied = failed("KLIO-CLUSTER-DENIED", /klio@beta does not open alpha/);
  const options = {
    walName: name,
    segmentBytes: SEGMENT_BYTES,
    sendToTier2: false,
    fromOffset: 0,
    packs: false,
    onAck: () => undefined,
  };
  for (const method of ["put", "stream"] as const) {
    const call = openUpload(client, walMethods, "alpha", address, { ...options, method });
    call.sendCopy(segment);
    call.finish();
    expect(await call.ended).toEqual(denied);
  }
  expect(
    await askOnce(client, address, walMethods.requestWalStart, create(pb.RequestWALStartRequestSchema, ids)),
  ).toEqual(denied);
  expect(
    await askOnce(client, address, walMethods.resetWalStream, create(pb.ResetWALStreamRequestSchema, ids)),
  ).toEqual(denied);
  expect(await askOnce(client, address, walMethods.getMetadata, create(pb.GetMetadataRequestSchema, ids))).toEqual(
    denied,
  );
  expect(await askOnce(client, address, walMethods.closeBackup, create(pb.CloseBackupRequestSchema, ids))).toEqual(
    denied,
  );
  expect(
    await askOnce(client, address, walMethods.openRepository, create(pb.OpenRepositoryRequestSchema, ids)),
  ).toEqual(denied);
  expect(
    await askOnce(client, address, walMethods.maintainBackups, create(pb.MaintainBackupsRequestSchema, ids)),
  ).toEqual(denied);
  expect(await listAll(client, address, "alpha", {})).toEqual(denied);
  expect(await openGet(client, address, "alpha", name, {})).toEqual(denied);
  client.close();
  expect(await beta.get(name)).toEqual({ kind: "ok", value: undefined });
});

test("KLIO-READ-ONLY: a server without a store serves, and takes nothing", async () => {
  await using server = await startWalServer({ readOnly: true });
  await put(server.store, "alpha", name, segment);
  const client = await server.client();
  expect((await get(client, name))?.equals(segment)).toBe(true);
  const readOnly = failed("KLIO-READ-ONLY");
  for (const method of ["put", "stream"] as const)
    expect(await send(client, segment, { walName: name, method })).toMatchObject(readOnly);
  const ids = { systemId: SYSTEM_ID, currentWalName: name };
  expect(await client.requestWalStart(ids)).toEqual(readOnly);
  expect(await client.resetWalStream(ids)).toEqual(readOnly);
  const backup = { backupName: "b", timeline: 1, startWal: name, endWal: name, segmentBytes: SEGMENT_BYTES };
  expect(await client.closeBackup({ ...backup, sendToTier2: false, tier2RetentionPolicy: "" })).toEqual(readOnly);
  expect(await client.maintainBackups("")).toEqual(readOnly);
  expect(await client.metadata()).toEqual(failed("KLIO-CLUSTER-UNKNOWN"));
});

test("positions, gaps and metadata over the wire", async () => {
  await using server = await startWalServer();
  const client = await server.client();
  const ids = { systemId: SYSTEM_ID, currentWalName: name };
  expect(await client.metadata()).toEqual(failed("KLIO-CLUSTER-UNKNOWN"));
  expect(await client.resetWalStream(ids)).toEqual(failed("KLIO-CLUSTER-UNKNOWN"));
  await client.requestWalStart(ids);
  expect(await client.resetWalStream(ids)).toEqual(failed("KLIO-USAGE"));
  expect(await client.requestWalStart({ ...ids, systemId: "1" })).toEqual(
    failed("KLIO-SYSTEM-ID", /7300000000000000001/),
  );
  await send(client, segment, { walName: name });
  const next = "000000010000000000000007";
  expect(await client.resetWalStream({ ...ids, currentWalName: next })).toEqual({
    kind: "ok",
    value: { walName: next },
  });
  expect(await client.requestWalStart(ids)).toEqual({ kind: "ok", value: { walName: next, resumeOffset: 0 } });
  expect(await client.metadata()).toMatchObject({ value: { systemId: SYSTEM_ID, gaps: [{ start: name, end: next }] } });
});

test("backups: the caller's functions get the request, checked, and their errors travel as they are", async () => {
  const asked: unknown[] = [];
  await using server = await startWalServer({
    closeBackup: async (request) => {
      asked.push(request);
      return { scheduled: true, missing: ["000000010000000000000004"] };
    },
    openRepository: async (caller) => ({
      user: `${caller.user}@${caller.cluster}`,
      password: "p",
      fingerprint: "ab",
      port: 51515,
    }),
    maintainBackups: async (request) => {
      asked.push(request);
      return { deletedBackups: ["old"], deletedOrphans: 2, deletedWalFiles: 3 };
    },
  });
  const client = await server.client();
  const backup = {
    backupName: "b1",
    timeline: 1,
    startWal: name,
    endWal: "000000010000000000000004",
    segmentBytes: SEGMENT_BYTES,
    sendToTier2: true,
    tier2RetentionPolicy: '{"keepLatest":3}',
  };
  expect(await client.closeBackup(backup)).toEqual({
    kind: "ok",
    value: { scheduled: true, missing: [backup.endWal] },
  });
  expect(asked).toEqual([{ cluster: "alpha", ...backup, traceparent: "" }]);
  for (const bad of [
    { segmentBytes: 0 },
    { segmentBytes: 3 },
    { endWal: "000000010000000000000001" },
    { startWal: "x" },
  ])
    expect(await client.closeBackup({ ...backup, ...bad })).toMatchObject({ kind: "fatal" });
  expect(asked).toHaveLength(1);
  expect(await client.openRepository()).toEqual({
    kind: "ok",
    value: { user: "klio@alpha", password: "p", fingerprint: "ab", port: 51515 },
  });
  expect(await client.maintainBackups('{"keepLatest":1}')).toEqual({
    kind: "ok",
    value: { deletedBackups: ["old"], deletedOrphans: 2, deletedWalFiles: 3 },
  });
  await using plain = await startWalServer();
  expect(await (await plain.client()).openRepository()).toEqual(
    failed("KLIO-TIER-MISSING", /not configured in this test/),
  );
});

test("KLIO-WAL-DAMAGED reaches a client that reads a damaged file", async () => {
  await using server = await startWalServer();
  const client = await server.client();
  await put(server.store, "alpha", name, segment);
  const path = join(server.directory, "alpha", name.slice(0, 16), name);
  const { writeFile } = await import("node:fs/promises");
  const bytes = await readFile(path);
  bytes[bytes.length - 5000] = (bytes[bytes.length - 5000] ?? 0) ^ 1;
  await writeFile(path, bytes);
  // Whether the first block came before the damage or not, the file does not pass for whole.
  await expect(
    (async () => {
      const answer = await client.get(name);
      if (answer.kind !== "ok") throw Object.assign(new Error(answer.reason), { code: answer.code });
      for await (const _ of answer.value?.blocks ?? []);
    })(),
  ).rejects.toMatchObject({ code: "KLIO-WAL-DAMAGED" });
  expect(await read(server.store, "alpha", "000000010000000000000004")).toBeUndefined();
});

test("clients tell what is wrong with the way to the server", async () => {
  await using server = await startWalServer();
  const client = await server.client();
  const address = server.server.address;
  const { cert, key } = server.certificates.client("alpha");
  const common = { clusterName: "alpha", telemetry: { clientInterceptors: () => [] }, log: server.log };
  const tls = { serverCertPath: server.certificates.server.cert, clientCertPath: cert, clientKeyPath: key };
  const byAuthority = await connectWal({
    ...common,
    address,
    tls: { ...tls, serverCertPath: server.certificates.caCert },
  });
  expect(await byAuthority.get(name)).toEqual({ kind: "ok", value: undefined });
  byAuthority.close();
  const distrusting = await connectWal({ ...common, address, tls: { ...tls, serverCertPath: cert } });
  expect(await distrusting.get(name)).toEqual(failed("KLIO-SERVER-REFUSED"));
  distrusting.close();
  await expect(connectWal({ ...common, address, tls: { ...tls, clientKeyPath: "/nowhere" } })).rejects.toMatchObject({
    code: "KLIO-CERTIFICATE",
  });
  const controller = new AbortController();
  controller.abort();
  expect(await client.metadata({ signal: controller.signal })).toEqual(failed("KLIO-CANCELLED"));
  await server.server.close();
  expect(await client.metadata()).toEqual(failed("KLIO-SERVER-DOWN"));
});
