// P6, P11: whatever a client sends, shows or asks for, and whatever became of the stored files, the server goes on, says what is
// wrong, and gives out no byte that is not the one asked for. KLIO_FUZZ_SEED runs one seed, KLIO_FUZZ_SEEDS that many.
import { randomBytes } from "node:crypto";
import { copyFile, readFile, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { zstdCompressSync } from "node:zlib";
import { create } from "@bufbuild/protobuf";
import { ChannelCredentials, Client, Metadata, type ServiceError } from "@grpc/grpc-js";
import { expect, test } from "vitest";
import type { WalClient } from "../../../src/actors/grpc/wal-client.ts";
import { walMethods } from "../../../src/actors/grpc/wal-methods.ts";
import { createCertificates } from "../../../src/demo/certificates.ts";
import { walPath } from "../../../src/domain/wal-segment.ts";
import { GetRequestSchema } from "../../../src/proto/generated/klio/wal/v1/wal_pb.ts";
import { encodePut } from "../../../src/wire/wal-message.ts";
import { isErrorCode } from "../../support/error-codes.ts";
import { type Random, random, seeds } from "../../support/random.ts";
import { temporaryDirectory } from "../../support/temporary-directory.ts";
import { SYSTEM_ID, walSegment } from "../../support/wal-bytes.ts";
import { send, startWalServer, type TestWalServer } from "../../support/wal-server.ts";
import { append, put, read, SEGMENT_BYTES } from "../../support/wal-store.ts";

const name = "000000010000000000000003";
const next = "000000010000000000000004";
const segment = walSegment(name, SEGMENT_BYTES);

/** What a hostile or broken client knows how to do: bytes on a connection with a certificate of `alpha`. */
async function rawClient(server: TestWalServer, files = server.certificates.client("alpha")): Promise<Client> {
  const [ca, cert, key] = await Promise.all(
    [server.certificates.caCert, files.cert, files.key].map((path) => readFile(path)),
  );
  return new Client(server.server.address, ChannelCredentials.createSsl(ca ?? null, key, cert), {
    "grpc.ssl_target_name_override": "localhost",
    "grpc.enable_retries": 0,
  });
}

type Ended = { code: number; klioCode: string };

/** Sends messages as they are; resolves with how the call ended. */
function callRaw(client: Client, path: string, messages: readonly Buffer[], kind: "put" | "stream"): Promise<Ended> {
  const identity = (bytes: Buffer) => bytes;
  return new Promise((resolve) => {
    const ended = (error: Partial<ServiceError> | null) =>
      resolve({ code: error?.code ?? 0, klioCode: String(error?.metadata?.get("klio-code")[0] ?? "") });
    const deadline = { deadline: Date.now() + 30_000 };
    const call =
      kind === "put"
        ? client.makeClientStreamRequest(path, identity, identity, new Metadata(), deadline, ended)
        : client.makeBidiStreamRequest(path, identity, identity, new Metadata(), deadline);
    call.on("error", ended);
    if (kind === "stream") call.on("data", () => undefined).on("end", () => ended(null));
    for (const message of messages) call.write(message);
    call.end();
  });
}

const NAMES = ["", ".", "..", "../beta", "/etc/passwd", "a\0b", "ä", `${name}.partial`, `${name}/x`, "0".repeat(300)];
const NUMBERS = [0, 1, 7, 8191, 8192, SEGMENT_BYTES, 2 ** 31, 2 ** 40, 2 ** 53 - 1];

function badMessages(chance: Random): Buffer[] {
  const at = chance.pick([0, 0, 8192, 100_000]);
  const block = segment.subarray(at, at + 1 + chance.int(50_000));
  const fields = { cluster: "alpha", walName: name, segmentBytes: SEGMENT_BYTES, sendToTier2: false, offset: at };
  const good = encodePut(fields, block);
  const ways: (() => Buffer[])[] = [
    () => [randomBytes(1 + chance.int(200))],
    () => [good.subarray(0, chance.int(good.length))],
    () => {
      const flipped = Buffer.from(good);
      for (let i = 0; i <= chance.int(4); i++) {
        const bit = chance.int(80 * 8);
        flipped[bit >> 3] = (flipped[bit >> 3] ?? 0) ^ (1 << (bit & 7));
      }
      return [flipped];
    },
    () => [Buffer.concat([good, randomBytes(1 + chance.int(20))])],
    () => [good, encodePut({ ...fields, walName: next, offset: at + block.length }, block)],
    () => [good, encodePut({ ...fields, offset: chance.pick(NUMBERS) }, block)],
    () => [encodePut({ ...fields, cluster: chance.pick([...NAMES, "beta"]) }, block)],
    () => [encodePut({ ...fields, walName: chance.pick(NAMES) }, block)],
    () => [encodePut({ ...fields, segmentBytes: chance.pick(NUMBERS) }, block)],
    () => [encodePut({ ...fields, offset: chance.pick(NUMBERS) }, block)],
    () => [encodePut({ ...fields, packedFrom: chance.pick(NUMBERS) }, zstdCompressSync(block))],
    () => {
      const packed = zstdCompressSync(block);
      packed[chance.int(packed.length)] = chance.int(256);
      return [encodePut({ ...fields, packedFrom: block.length }, packed)];
    },
    () => [encodePut({ ...fields, packedFrom: block.length }, block)],
  ];
  return chance.pick(ways)();
}

test("P6, P11: no message ends the server, reaches another cluster, or leaves a file that cannot be read", async () => {
  await using server = await startWalServer();
  await server.store.registerCluster("alpha", SYSTEM_ID);
  await server.store.registerCluster("beta", SYSTEM_ID);
  await put(server.store, "beta", name, segment);
  const before = await readFile(join(server.directory, "beta", walPath(name)));
  const client = await rawClient(server);
  const others = Object.values(walMethods).filter(({ path }) => !/Put|Stream$/.test(path));
  try {
    for (const seed of seeds("KLIO_FUZZ", 600)) {
      const chance = random(seed);
      const kind = chance.pick(["put", "stream"] as const);
      const path = chance.chance(0.8) ? walMethods[kind].path : chance.pick(others).path;
      const ended = await callRaw(client, path, badMessages(chance), kind);
      const isExplained = ended.code === 0 || path !== walMethods[kind].path || isErrorCode(ended.klioCode);
      expect(isExplained, `seed ${seed} of ${path}: status ${ended.code} ${ended.klioCode}`).toBe(true);
      expect(["KLIO-BUG", "KLIO-STORE-IO"], `seed ${seed} of ${path}`).not.toContain(ended.klioCode);
    }
  } finally {
    client.close();
  }
  expect(await readFile(join(server.directory, "beta", walPath(name)))).toEqual(before);
  expect((await server.store.list("beta")).map((file) => file.name)).toEqual([name]);
  expect((await server.store.clusters()).toSorted()).toEqual(["alpha", "beta"]);
  for (const file of await server.store.list("alpha")) await read(server.store, "alpha", file.name);
  const sent = await send(await server.client(), walSegment(next, SEGMENT_BYTES), { walName: next });
  expect(sent.kind).toBe("ok");
}, 240_000);

/** Asks for the segment of `alpha`; how many messages came. */
function blocksOf(client: Client): Promise<number> {
  const { path, serialize, deserialize } = walMethods.get;
  const request = create(GetRequestSchema, { clusterName: "alpha", walName: name });
  const call = client.makeServerStreamRequest(path, serialize, deserialize, request);
  let blocks = 0;
  call.on("data", () => blocks++);
  return new Promise((resolve) => {
    call.on("error", () => resolve(blocks));
    call.on("end", () => resolve(blocks));
  });
}

test("P11: a refusal that quotes megabytes is told and logged all the same, in short", async () => {
  await using server = await startWalServer();
  const client = await rawClient(server);
  const fields = { cluster: "alpha", walName: name, segmentBytes: SEGMENT_BYTES, sendToTier2: false, offset: 0 };
  const long = "A".repeat(4 << 20);
  for (const kind of ["put", "stream"] as const)
    for (const bad of [{ walName: long }, { cluster: long }]) {
      const message = encodePut({ ...fields, ...bad }, segment.subarray(0, 100));
      expect((await callRaw(client, walMethods[kind].path, [message], kind)).klioCode).toBe("KLIO-NAME-INVALID");
    }
  client.close();
  expect(Math.max(...server.log.lines.map(({ message }) => message.length))).toBeLessThan(1_200);
});

test("P6: certificates that are expired, of the future, of another authority, nobody's or without a cluster open nothing", async () => {
  await using directory = await temporaryDirectory();
  await using server = await startWalServer();
  await server.store.registerCluster("alpha", SYSTEM_ID);
  await put(server.store, "alpha", name, segment);
  const own = server.certificates;
  const foreign = await createCertificates(join(directory.path, "foreign"), { clusters: ["alpha"] });
  const shown = [
    await own.issue("expired", "klio@alpha", { from: -10, to: -1 }),
    await own.issue("future", "klio@alpha", { from: 1, to: 10 }),
    foreign.client("alpha"),
    own.server,
    ...(await Promise.all(
      ["alpha", "@alpha", "klio@", "klio@alpha@beta", "klio@beta", "klio@ALPHA", "klio@alph"].map((subject, index) =>
        own.issue(`subject-${index}`, subject),
      ),
    )),
    undefined,
  ];
  const request = encodePut(
    { cluster: "alpha", walName: next, segmentBytes: SEGMENT_BYTES, sendToTier2: false, offset: 0 },
    walSegment(next, SEGMENT_BYTES).subarray(0, 10_000),
  );
  const good = await rawClient(server);
  expect(await blocksOf(good)).toBeGreaterThan(0);
  good.close();
  for (const files of shown) {
    const client =
      files === undefined
        ? new Client(server.server.address, ChannelCredentials.createSsl(await readFile(own.caCert)), {
            "grpc.ssl_target_name_override": "localhost",
          })
        : await rawClient(server, files);
    for (const kind of ["put", "stream"] as const)
      expect((await callRaw(client, walMethods[kind].path, [request], kind)).code, files?.cert).toBeGreaterThan(0);
    expect(await blocksOf(client), files?.cert).toBe(0);
    client.close();
  }
  expect((await server.store.list("alpha")).map((file) => file.name)).toEqual([name]);
}, 120_000);

/** What a client gets of a file: its bytes, and whether it was told that they are all. */
async function fetched(client: WalClient, file: string): Promise<{ bytes: Buffer; isWhole: boolean }> {
  const answer = await client.get(file);
  const parts: Uint8Array[] = [];
  if (answer.kind !== "ok" || answer.value === undefined) return { bytes: Buffer.alloc(0), isWhole: false };
  try {
    for await (const block of answer.value.blocks) parts.push(block);
    return { bytes: Buffer.concat(parts), isWhole: true };
  } catch {
    return { bytes: Buffer.concat(parts), isWhole: false };
  }
}

/** Offsets into every part of a file of this layout: header, first frames, the middle, the last frame or footer. */
function offsets(length: number, chance: Random): number[] {
  const dense = Array.from({ length: 400 }, (_, at) => at);
  const tail = Array.from({ length: 120 }, (_, back) => length - 1 - back);
  const between = Array.from({ length: 60 }, () => chance.int(length));
  return [...dense, ...between, ...tail].filter((at, index) => index % 3 === chance.int(3) && at < length);
}

test.each([
  ["already complete", name],
  ["unfinished", `${name}.partial`],
])(
  "every flipped bit and every cut of an %s file is found when it is read",
  async (_, file) => {
    await using server = await startWalServer();
    await server.store.registerCluster("alpha", SYSTEM_ID);
    const isComplete = file === name;
    if (isComplete) await put(server.store, "alpha", name, segment);
    else {
      const writer = await server.store.openWriter({
        cluster: "alpha",
        name,
        segmentBytes: SEGMENT_BYTES,
        fromOffset: 0,
      });
      for (let at = 0; at < 60_000; at += 20_000) await append(writer, segment, { from: at, to: at + 20_000 });
      await writer.close();
    }
    const path = join(server.directory, "alpha", walPath(file));
    const bytes = await readFile(path);
    const raw = isComplete ? segment : segment.subarray(0, 60_000);
    const client = await server.client();
    expect(await fetched(client, file)).toEqual({ bytes: raw, isWhole: true });
    const chance = random(7);
    for (const at of offsets(bytes.length, chance)) {
      const changed = Buffer.from(bytes);
      changed[at] = (changed[at] ?? 0) ^ (1 << chance.int(8));
      await writeFile(path, changed);
      const found = await fetched(client, file);
      expect(found.isWhole, `byte ${at}`).toBe(false);
      expect(found.bytes.equals(raw.subarray(0, found.bytes.length)), `byte ${at}`).toBe(true);
      await writeFile(path, bytes);
      await truncate(path, at);
      const cut = await fetched(client, file);
      // An unfinished file is as long as its last whole frame.
      expect(cut.isWhole && isComplete, `cut at ${at}`).toBe(false);
      expect(cut.bytes.equals(raw.subarray(0, cut.bytes.length)), `cut at ${at}`).toBe(true);
      if (!isComplete) expect(cut.bytes.length, `cut at ${at}`).toBeLessThan(raw.length);
      await writeFile(path, bytes);
    }
    expect(await fetched(client, file)).toEqual({ bytes: raw, isWhole: true });
  },
  240_000,
);

test("a stored file in the place of another one, of the cluster or of another cluster, is not given out", async () => {
  await using server = await startWalServer();
  const client = await server.client();
  const secret = walSegment(name, SEGMENT_BYTES);
  await put(server.store, "beta", name, secret);
  await put(server.store, "alpha", name, segment);
  await put(server.store, "alpha", next, walSegment(next, SEGMENT_BYTES));
  const at = (cluster: string, file: string) => join(server.directory, cluster, walPath(file));
  for (const from of [at("beta", name), at("alpha", next)]) {
    await copyFile(from, at("alpha", name));
    expect(await fetched(client, name)).toEqual({ bytes: Buffer.alloc(0), isWhole: false });
  }
});
