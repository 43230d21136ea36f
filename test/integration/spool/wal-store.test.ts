import { createHash, randomBytes } from "node:crypto";
import { readdir, readFile, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { crc32 } from "node:zlib";
import fc from "fast-check";
import { expect, test } from "vitest";
import { readMetadata } from "../../../src/actors/spool/cluster-metadata.ts";
import { decodeWalFile } from "../../../src/wire/wal-file.ts";
import { temporaryDirectory } from "../../support/temporary-directory.ts";
import { SYSTEM_ID, walSegment } from "../../support/wal-bytes.ts";
import { append, newMasterKey, openStore, put, read, SEGMENT_BYTES } from "../../support/wal-store.ts";

const cluster = "alpha";
const name = "000000010000000000000003";
const request = { cluster, name, segmentBytes: SEGMENT_BYTES, fromOffset: 0 };
const segment = walSegment(name, SEGMENT_BYTES);
const pathOf = (root: string, file: string) => join(root, cluster, file.slice(0, 16), file);
const code = (expected: string) => expect.objectContaining({ code: expected });

test("blocks of any size come back as the same bytes, and each acknowledgement is a prefix that grows", async () => {
  await using dir = await temporaryDirectory();
  const { store, facts } = await openStore(dir.path);
  await using _ = store;
  let serial = 16;
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.oneof(fc.integer({ min: 1, max: 300 }), fc.integer({ min: 1, max: 200_000 })), {
        minLength: 1,
        maxLength: 40,
      }),
      async (sizes) => {
        const file = `0000000100000000000000${(serial++).toString(16).toUpperCase()}`;
        const bytes = walSegment(file, SEGMENT_BYTES, serial % 2 === 0 ? { fill: 1 } : {});
        const acks: number[] = [];
        const writer = await store.openWriter({ ...request, name: file }, (rawBytes) => acks.push(rawBytes));
        let at = 0;
        for (let i = 0; at < bytes.length; i++) {
          const size = sizes[i] ?? 150_000;
          writer.append(bytes.subarray(at, at + size), at);
          at += Math.min(size, bytes.length - at);
          if (i % 7 === 0) await writer.whenBelow(100_000);
        }
        expect(await writer.durable()).toEqual({ rawBytes: SEGMENT_BYTES });
        await writer.complete();
        await writer.close();
        expect(acks.toSorted((a, b) => a - b)).toEqual(acks);
        expect(acks.at(-1)).toBe(SEGMENT_BYTES);
        expect((await read(store, cluster, file))?.equals(bytes)).toBe(true);
        const { size: stored } = await stat(pathOf(dir.path, file));
        const reported = facts.splice(0).reduce((sum, fact) => sum + (fact.type === "wal.durable" ? fact.bytes : 0), 0);
        expect(reported).toBe(stored);
      },
    ),
    { numRuns: 25 },
  );
});

test("files and directories lie where they should, and are nobody else's to read", async () => {
  await using dir = await temporaryDirectory();
  const root = join(dir.path, "wal");
  const { store } = await openStore(root);
  await using _ = store;
  await store.registerCluster(cluster, SYSTEM_ID);
  await put(store, cluster, name, segment);
  const history = Buffer.from("1\t0/3000000\tno recovery target specified\n");
  await put(store, cluster, "00000002.history", history);
  await put(store, cluster, `${name}.00000028.backup`, Buffer.from("START WAL LOCATION"));
  const open = await store.openWriter({ ...request, name: "000000010000000000000004" });
  const mode = async (path: string) => ((await stat(join(root, path))).mode & 0o777).toString(8);
  expect(await readdir(join(root, cluster))).toEqual([
    "0000000100000000",
    `${name}.00000028.backup`,
    "00000002.history",
    "metadata",
  ]);
  expect((await readdir(join(root, cluster, "0000000100000000"))).sort()).toEqual([
    name,
    "000000010000000000000004.partial",
  ]);
  expect(await mode(".")).toBe("750");
  expect(await mode(cluster)).toBe("750");
  expect(await mode(`${cluster}/0000000100000000`)).toBe("750");
  for (const file of ["metadata", "00000002.history", `0000000100000000/${name}`])
    expect(await mode(`${cluster}/${file}`)).toBe("600");
  expect((await store.list(cluster)).map((file) => file.name)).toEqual(
    [name, `${name}.00000028.backup`, "00000002.history"].concat("000000010000000000000004.partial").sort(),
  );
  expect(await store.clusters()).toEqual([cluster]);
  expect(await read(store, cluster, "00000002.history")).toEqual(history);
  expect(await read(store, cluster, "00000003.history")).toBeUndefined();
  expect(await read(store, cluster, `${name}.partial`)).toBeUndefined();
  await open.close();
});

test("P1, E1, E3: bytes count as durable, and a file as complete, only when they are", async () => {
  await using dir = await temporaryDirectory();
  const { store } = await openStore(dir.path);
  await using _ = store;
  const acks: number[] = [];
  const writer = await store.openWriter(request, (rawBytes) => acks.push(rawBytes));
  writer.append(segment.subarray(0, 5000), 0);
  expect(acks).toEqual([]);
  expect(writer.durableBytes).toBe(0);
  await writer.durable();
  expect(acks).toEqual([5000]);
  expect((await read(store, cluster, `${name}.partial`))?.length).toBe(5000);
  await expect(writer.complete()).rejects.toThrow(code("KLIO-BUG"));
  await append(writer, segment, { from: 5000 });
  expect(await read(store, cluster, name)).toBeUndefined();
  await writer.complete();
  expect((await read(store, cluster, name))?.equals(segment)).toBe(true);
  await writer.close();
  await writer.close();
});

test("E5: what arrives during a write goes out with the next one", async () => {
  await using dir = await temporaryDirectory();
  const { store } = await openStore(dir.path);
  await using _ = store;
  const acks: number[] = [];
  const writer = await store.openWriter(request, (rawBytes) => acks.push(rawBytes));
  for (let at = 0; at < 50_000; at += 100) writer.append(segment.subarray(at, at + 100), at);
  await writer.durable();
  expect(acks).toEqual([100, 50_000]);
  await writer.close();
});

test("E2: a file is resumed behind its last durable byte, in as many openings as it takes", async () => {
  await using dir = await temporaryDirectory();
  const masterKey = newMasterKey();
  let at = 0;
  for (const to of [10, 8191, 8200, 500_000, SEGMENT_BYTES]) {
    const { store } = await openStore(dir.path, masterKey);
    await using _ = store;
    expect(await store.position(cluster)).toEqual(at === 0 ? undefined : { walName: name, resumeOffset: at });
    const writer = await store.openWriter({ ...request, fromOffset: at, systemId: SYSTEM_ID });
    await append(writer, segment, { from: at, to });
    if (to === SEGMENT_BYTES) await writer.complete();
    await writer.close();
    at = to;
  }
  const { store } = await openStore(dir.path, masterKey);
  await using _ = store;
  expect((await read(store, cluster, name))?.equals(segment)).toBe(true);
  expect(await store.position(cluster)).toEqual({ walName: "000000010000000000000004", resumeOffset: 0 });
});

test("P2, E2: bytes that come again must be the same ones; confirmed bytes are never replaced", async () => {
  await using dir = await temporaryDirectory();
  const { store } = await openStore(dir.path);
  await using _ = store;
  const first = await store.openWriter(request);
  await append(first, segment, { to: 300_000 });
  await first.close();

  const wrong = Buffer.from(segment);
  wrong[250_000] = (wrong[250_000] ?? 0) ^ 1;
  const other = await store.openWriter(request);
  await expect(append(other, wrong)).rejects.toThrow(/the first 300000 bytes are stored already, and differ/);
  await other.close();

  for (const fromOffset of [0, 100_000, 300_000]) {
    const acks: number[] = [];
    const again = await store.openWriter({ ...request, fromOffset }, (rawBytes) => acks.push(rawBytes));
    await append(again, segment, { from: fromOffset, to: 299_999 });
    expect(acks).toEqual([]);
    await again.close();
  }
  await expect(store.openWriter({ ...request, fromOffset: 300_001 })).rejects.toThrow(code("KLIO-WAL-MISMATCH"));
  await put(store, cluster, name, segment);
  await put(store, cluster, name, segment); // a complete file that comes again
  await expect(put(store, cluster, name, wrong)).rejects.toThrow(code("KLIO-WAL-MISMATCH"));
  expect((await read(store, cluster, name))?.equals(segment)).toBe(true);
  await expect(store.openWriter({ ...request, segmentBytes: 2 * SEGMENT_BYTES })).rejects.toThrow(
    /has 1048576 bytes, not 2097152/,
  );
});

test("E4: KLIO-WAL-BUSY for a second writer, KLIO-DATA-LOCKED for a second server; a lock of a dead process is taken over", async () => {
  await using dir = await temporaryDirectory();
  const { store, masterKey } = await openStore(dir.path);
  const writer = await store.openWriter(request);
  await expect(store.openWriter(request)).rejects.toThrow(code("KLIO-WAL-BUSY"));
  await append(writer, segment, { to: 10 });
  await writer.close();
  const next = await store.openWriter({ ...request, fromOffset: 10 });
  await expect(openStore(dir.path, masterKey)).rejects.toThrow(code("KLIO-DATA-LOCKED"));
  await store.close(); // closes the writer, too
  expect(() => next.append(segment.subarray(10, 20), 10)).toThrow(/is closed/);
  const hostname = (await import("node:os")).hostname();
  for (const stale of [`${hostname} 999999999 1\n`, `${hostname} ${process.pid} 1\n`, `elsewhere 1 1\n`, "garbage"]) {
    await writeFile(join(dir.path, ".lock"), stale);
    const { store: after } = await openStore(dir.path, masterKey);
    await after.close();
  }
  await writeFile(join(dir.path, ".lock"), "garbage");
  const starts = await Promise.allSettled(Array.from({ length: 5 }, () => openStore(dir.path, masterKey)));
  expect(starts.filter((start) => start.status === "fulfilled")).toHaveLength(1);
  for (const start of starts) if (start.status === "fulfilled") await start.value.store.close();
  expect((await readdir(dir.path)).filter((file) => file.startsWith(".lock"))).toEqual([]);
});

test("wrong ranges are refused with KLIO-WAL-MISMATCH, and what was good before them stays", async () => {
  await using dir = await temporaryDirectory();
  const { store } = await openStore(dir.path);
  await using _ = store;
  const writer = await store.openWriter({ ...request, systemId: SYSTEM_ID });
  await append(writer, segment, { to: 16_384 });
  for (const [block, offset] of [
    [segment.subarray(16_384, 20_000), 16_385],
    [segment.subarray(16_384, 20_000), 8192],
    [segment.subarray(32_768, 40_000), 16_384],
    [Buffer.concat([segment, Buffer.alloc(1)]).subarray(16_384), 16_384],
  ] as const)
    expect(() => writer.append(block, offset)).toThrow(code("KLIO-WAL-MISMATCH"));
  await append(writer, segment, { from: 16_384 });
  await writer.complete();
  await writer.close();
  const foreign = walSegment("000000010000000000000004", SEGMENT_BYTES, { systemId: "1" });
  const next = await store.openWriter({ ...request, name: "000000010000000000000004", systemId: SYSTEM_ID });
  expect(() => next.append(foreign, 0)).toThrow(/of system 1/);
  await next.close();
  await expect(store.openWriter({ ...request, name: `${name}.partial` })).rejects.toThrow(code("KLIO-NAME-INVALID"));
  await expect(store.openWriter({ ...request, cluster: "../x" })).rejects.toThrow(code("KLIO-NAME-INVALID"));
  await expect(store.openWriter({ ...request, cluster: "repository.config" })).rejects.toThrow(
    code("KLIO-NAME-INVALID"),
  );
});

test("P3: a stream goes on at the first segment that is unfinished or missing, though later ones are stored", async () => {
  await using dir = await temporaryDirectory();
  const { store } = await openStore(dir.path);
  await using _ = store;
  const nameOf = (n: number) => `00000001000000000000000${n}`;
  const begin = async (n: number, bytes: number) => {
    const writer = await store.openWriter({ ...request, name: nameOf(n) });
    await append(writer, walSegment(nameOf(n), SEGMENT_BYTES, { fill: n }), { to: bytes });
    await writer.close();
  };
  const at = () => store.position(cluster);
  await store.registerCluster(cluster, SYSTEM_ID);
  for (const n of [3, 5]) await put(store, cluster, nameOf(n), walSegment(nameOf(n), SEGMENT_BYTES, { fill: n }));
  expect(await at()).toEqual({ walName: nameOf(4), resumeOffset: 0 });
  await begin(4, 50_000);
  await begin(6, 70_000);
  expect(await at()).toEqual({ walName: nameOf(4), resumeOffset: 50_000 });
  await put(store, cluster, nameOf(4), walSegment(nameOf(4), SEGMENT_BYTES, { fill: 4 }));
  expect(await at()).toEqual({ walName: nameOf(6), resumeOffset: 70_000 });
  await begin(7, 10);
  await store.resetStream(cluster, SYSTEM_ID, nameOf(8));
  expect(await at()).toEqual({ walName: nameOf(8), resumeOffset: 0 });
});

test("position: unfinished, complete, gaps, timelines, and a file that is being written", async () => {
  await using dir = await temporaryDirectory();
  const { store } = await openStore(dir.path);
  await using _ = store;
  const at = () => store.position(cluster);
  expect(await at()).toBeUndefined();
  await put(store, cluster, "00000002.history", Buffer.from("1\t0/300000\tx\n"));
  expect(await at()).toBeUndefined();
  await put(store, cluster, "0000000100000000000000FF", walSegment("0000000100000000000000FF", SEGMENT_BYTES));
  expect(await at()).toEqual({ walName: "000000010000000000000100", resumeOffset: 0 });
  await store.registerCluster(cluster, SYSTEM_ID);
  await expect(store.resetStream(cluster, "1", "000000010000000100000000")).rejects.toThrow(code("KLIO-SYSTEM-ID"));
  await expect(store.resetStream(cluster, SYSTEM_ID, "0000000100000000000000FF")).rejects.toThrow(code("KLIO-USAGE"));
  await store.resetStream(cluster, SYSTEM_ID, "000000010000000000000120");
  expect(await at()).toEqual({ walName: "000000010000000000000120", resumeOffset: 0 });
  expect(await store.metadata(cluster)).toMatchObject({
    systemId: SYSTEM_ID,
    gaps: [{ start: "0000000100000000000000FF", end: "000000010000000000000120" }],
  });
  const next = "000000020000000000000130";
  const writer = await store.openWriter({ ...request, name: next });
  await append(writer, walSegment(next, SEGMENT_BYTES), { to: 1234 });
  expect(await at()).toEqual({ walName: next, resumeOffset: 1234 });
  await writer.close();
  expect(await at()).toEqual({ walName: next, resumeOffset: 1234 });
  await expect(store.resetStream("beta", SYSTEM_ID, next)).rejects.toThrow(code("KLIO-CLUSTER-UNKNOWN"));
  await store.registerCluster("beta", SYSTEM_ID);
  await expect(store.resetStream("beta", SYSTEM_ID, next)).rejects.toThrow(/there is no gap/);
});

test("E6: metadata that cannot be read is KLIO-STORE-IO, not an unknown cluster", async () => {
  await using dir = await temporaryDirectory();
  const { store, masterKey } = await openStore(dir.path);
  await using _ = store;
  expect(await store.metadata(cluster)).toBeUndefined();
  expect(await store.registerCluster(cluster, SYSTEM_ID)).toEqual({ systemId: SYSTEM_ID, gaps: [] });
  expect(await store.registerCluster(cluster, SYSTEM_ID)).toEqual({ systemId: SYSTEM_ID, gaps: [] });
  await expect(store.registerCluster(cluster, "2")).rejects.toThrow(code("KLIO-SYSTEM-ID"));
  await expect(store.registerCluster("beta", "abc")).rejects.toThrow(code("KLIO-USAGE"));
  const path = join(dir.path, cluster, "metadata");
  const good = await readFile(path);
  for (const bad of [Buffer.alloc(0), good.subarray(0, 50), good.subarray(0, good.length - 1), randomBytes(300)]) {
    await writeFile(path, bad);
    await expect(store.metadata(cluster)).rejects.toThrow(code("KLIO-STORE-IO"));
    await expect(store.registerCluster(cluster, "2")).rejects.toThrow(code("KLIO-STORE-IO"));
    await expect(store.position(cluster)).rejects.toThrow(code("KLIO-STORE-IO"));
  }
  await writeFile(path, good);
  await expect(readMetadata(join(dir.path, cluster), cluster, newMasterKey())).rejects.toThrow(code("KLIO-STORE-IO"));
  expect((await readMetadata(join(dir.path, cluster), cluster, masterKey))?.systemId).toBe(SYSTEM_ID);
});

test("a name whose stored WAL is of another system cannot be registered, even without metadata", async () => {
  await using dir = await temporaryDirectory();
  const { store } = await openStore(dir.path);
  await using _ = store;
  await put(store, cluster, name, segment);
  await expect(store.registerCluster(cluster, "2")).rejects.toThrow(code("KLIO-SYSTEM-ID"));
  expect((await store.registerCluster(cluster, SYSTEM_ID)).systemId).toBe(SYSTEM_ID);
});

test("a file for another tier reads under that tier's key; tiny frames are packed anew; damage is not copied", async () => {
  await using dir = await temporaryDirectory();
  const { store, masterKey } = await openStore(dir.path);
  await using _ = store;
  const target = newMasterKey();
  const exported = async (file: string) => {
    const wal = await store.exportTo(cluster, file, target);
    const parts: Buffer[] = [];
    for await (const part of wal!.body()) parts.push(Buffer.from(part));
    const bytes = Buffer.concat(parts);
    expect(bytes.length).toBe(wal!.bytes);
    expect(crc32(bytes)).toBe(wal!.crc32);
    expect(createHash("sha256").update(bytes).digest()).toEqual(await wal!.digest("sha256"));
    await wal!.close();
    const source = async function* () {
      yield bytes;
    };
    const opened = await decodeWalFile(source(), { master: target, cluster, name: file });
    const raw: Uint8Array[] = [];
    for await (const block of opened!.blocks) raw.push(block);
    expect(Buffer.concat(raw).length).toBe(wal!.rawBytes);
    return { ...wal!, raw: Buffer.concat(raw) };
  };
  expect(await store.exportTo(cluster, name, target)).toBeUndefined();
  const filled = walSegment(name, SEGMENT_BYTES, { fill: 3 });
  const writer = await store.openWriter(request);
  for (let at = 0; at < 500_000; at += 5000) await append(writer, filled, { from: at, to: at + 5000 });
  await writer.close();
  const partial = await exported(`${name}.partial`);
  expect(partial).toMatchObject({ complete: false, rawBytes: 500_000 });
  expect(partial.raw.equals(filled.subarray(0, 500_000))).toBe(true);
  expect(partial.bytes).toBeLessThan((await stat(pathOf(dir.path, `${name}.partial`))).size / 5);
  await put(store, cluster, name, filled);
  const whole = await exported(name);
  expect(whole).toMatchObject({ complete: true, rawBytes: SEGMENT_BYTES });
  expect(whole.raw.equals(filled)).toBe(true);
  const large = "000000010000000000000009";
  const random = walSegment(large, SEGMENT_BYTES);
  await put(store, cluster, large, random);
  expect((await exported(large)).raw.equals(random)).toBe(true);
  expect((await exported(large)).bytes).toBe((await stat(pathOf(dir.path, large))).size);
  const unread = await store.exportTo(cluster, large, target);
  await unread?.close();
  const bytes = await readFile(pathOf(dir.path, large));
  bytes[900_000] = (bytes[900_000] ?? 0) ^ 1;
  await writeFile(pathOf(dir.path, large), bytes);
  await expect(store.exportTo(cluster, large, target)).rejects.toThrow(code("KLIO-WAL-DAMAGED"));
  await writeFile(pathOf(dir.path, large), bytes.subarray(0, 800_000));
  await expect(store.exportTo(cluster, large, target)).rejects.toThrow(code("KLIO-WAL-DAMAGED"));
  expect(masterKey.id).not.toBe(target.id);
});

test("removing: files go with their empty directory, those that are being written stay", async () => {
  await using dir = await temporaryDirectory();
  const { store } = await openStore(dir.path);
  await using _ = store;
  await put(store, cluster, name, segment);
  await put(store, cluster, "00000002.history", Buffer.from("1\t0/3\tx\n"));
  const busy = "000000010000000000000004";
  const writer = await store.openWriter({ ...request, name: busy });
  await append(writer, walSegment(busy, SEGMENT_BYTES), { to: 10 });
  expect(await store.remove(cluster, [name, `${busy}.partial`, "00000002.history"])).toBe(2);
  expect((await store.list(cluster)).map((file) => file.name)).toEqual([`${busy}.partial`]);
  await writer.close();
  expect(await store.remove(cluster, [`${busy}.partial`, name])).toBe(2);
  expect(await store.list(cluster)).toEqual([]);
  expect(await readdir(join(dir.path, cluster))).toEqual([]);
  await put(store, cluster, name, segment);
  await expect(store.remove(cluster, ["../../etc/passwd"])).rejects.toThrow(code("KLIO-NAME-INVALID"));
});

test("reading a file with another master key is told as such", async () => {
  await using dir = await temporaryDirectory();
  const { store } = await openStore(dir.path);
  await put(store, cluster, name, segment);
  await store.close();
  const { store: other } = await openStore(dir.path);
  await using _ = other;
  await expect(read(other, cluster, name)).rejects.toThrow(code("KLIO-KEY-MISMATCH"));
});
