import { readdir, readFile, rename, stat, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, test } from "vitest";
import { temporaryDirectory } from "../../support/temporary-directory.ts";
import { walSegment } from "../../support/wal-bytes.ts";
import { append, newMasterKey, openStore, put, read, SEGMENT_BYTES } from "../../support/wal-store.ts";

const cluster = "alpha";
const name = "000000010000000000000003";
const request = { cluster, name, segmentBytes: SEGMENT_BYTES, fromOffset: 0 };
const segment = walSegment(name, SEGMENT_BYTES);
const pathOf = (root: string, file: string) => join(root, cluster, file.slice(0, 16), file);
const code = (expected: string) => expect.objectContaining({ code: expected });

test("a torn tail is cut, zeros of a power loss too, and nothing before them", async () => {
  await using dir = await temporaryDirectory();
  const masterKey = newMasterKey();
  const path = pathOf(dir.path, `${name}.partial`);
  const prepare = async (tear: (size: number) => Promise<void>) => {
    const { store } = await openStore(dir.path, masterKey);
    const at = (await store.position(cluster))?.resumeOffset ?? 0;
    const writer = await store.openWriter({ ...request, fromOffset: at });
    await append(writer, segment, { from: at, to: at + 20_000, block: 20_000 });
    const { size } = await stat(path);
    await append(writer, segment, { from: at + 20_000, to: at + 40_000, block: 20_000 });
    await writer.close();
    await store.close();
    await tear(size);
    return at + 20_000;
  };
  const torn = [
    await prepare((size) => truncate(path, size + 1)),
    await prepare((size) => truncate(path, size + 15)),
    await prepare((size) => truncate(path, size + 10_000)),
    await prepare(async (size) => {
      await truncate(path, size);
      await truncate(path, size + 4096);
    }),
  ];
  expect(torn).toEqual([20_000, 40_000, 60_000, 80_000]);
  const { store, log } = await openStore(dir.path, masterKey);
  await using _ = store;
  expect(await store.position(cluster)).toEqual({ walName: name, resumeOffset: 80_000 });
  await put(store, cluster, name, segment);
  expect(log.events()).toContain("wal.torn");
  expect((await read(store, cluster, name))?.equals(segment)).toBe(true);
});

test("a tail of zeros that is longer than what is read at once is torn; a byte at its very end is damage", async () => {
  await using dir = await temporaryDirectory();
  const { store } = await openStore(dir.path);
  await using _ = store;
  const path = pathOf(dir.path, `${name}.partial`);
  const writer = await store.openWriter(request);
  await append(writer, segment, { to: 50_000, block: 50_000 });
  await writer.close();
  const { size } = await stat(path);
  await truncate(path, size + (4 << 20));
  const { crc32, rawBytes, close } = (await store.exportTo(cluster, `${name}.partial`, newMasterKey()))!;
  await close();
  expect([rawBytes, crc32 > 0]).toEqual([50_000, true]);
  const bytes = await readFile(path);
  bytes[bytes.length - 1] = 1;
  await writeFile(path, bytes);
  await expect(store.exportTo(cluster, `${name}.partial`, newMasterKey())).rejects.toThrow(code("KLIO-WAL-DAMAGED"));
});

test("a file that is torn within its header, or empty, begins anew", async () => {
  await using dir = await temporaryDirectory();
  const { store } = await openStore(dir.path);
  await using _ = store;
  const path = pathOf(dir.path, `${name}.partial`);
  for (const size of [0, 5, 60]) {
    const writer = await store.openWriter(request);
    await append(writer, segment, { to: 10 });
    await writer.close();
    await truncate(path, size);
    expect(await store.position(cluster)).toEqual({ walName: name, resumeOffset: 0 });
    expect(await read(store, cluster, `${name}.partial`)).toBeUndefined();
  }
  await put(store, cluster, name, segment);
});

test("E7: after a crash a torn last write is cut so that the rest can be read; damage before a later write never is", async () => {
  for (const [flipped, isTorn] of [
    [25_000, true],
    [15_000, false],
  ] as const) {
    await using dir = await temporaryDirectory();
    const { store, masterKey } = await openStore(dir.path);
    const path = pathOf(dir.path, `${name}.partial`);
    const writer = await store.openWriter(request);
    for (const to of [10_000, 20_000, 30_000]) await append(writer, segment, { from: to - 10_000, to });
    await writer.close();
    await store.close();
    const bytes = await readFile(path);
    bytes[flipped] = (bytes[flipped] ?? 0) ^ 4;
    await writeFile(path, bytes);
    const afterStop = await openStore(dir.path, masterKey);
    await expect(read(afterStop.store, cluster, `${name}.partial`)).rejects.toThrow(code("KLIO-WAL-DAMAGED"));
    await afterStop.store.close();
    await writeFile(join(dir.path, ".lock"), "another-host 1 1\n");
    const { store: afterCrash, log } = await openStore(dir.path, masterKey);
    await using _ = afterCrash;
    const reading = read(afterCrash, cluster, `${name}.partial`);
    if (isTorn) {
      expect((await reading)?.equals(segment.subarray(0, 20_000))).toBe(true);
      expect(log.events()).toContain("wal.torn");
    } else {
      await expect(reading).rejects.toThrow(code("KLIO-WAL-DAMAGED"));
      expect(await readFile(path)).toEqual(bytes);
    }
  }
});

test("damage inside an unfinished file is told, kept aside, and asked for again", async () => {
  await using dir = await temporaryDirectory();
  const { store, log } = await openStore(dir.path);
  await using _ = store;
  const path = pathOf(dir.path, `${name}.partial`);
  const writer = await store.openWriter(request);
  for (const to of [10_000, 20_000, 30_000]) await append(writer, segment, { from: to - 10_000, to });
  await writer.close();
  const bytes = await readFile(path);
  bytes[15_000] = (bytes[15_000] ?? 0) ^ 4;
  await writeFile(path, bytes);
  await expect(read(store, cluster, `${name}.partial`)).rejects.toThrow(code("KLIO-WAL-DAMAGED"));
  expect(await store.position(cluster)).toEqual({ walName: name, resumeOffset: 10_000 });
  const again = await store.openWriter({ ...request, fromOffset: 10_000 });
  expect(log.lines.find((line) => line.event === "wal.damaged")).toMatchObject({ level: "error" });
  expect(await readFile(`${path}.damaged`)).toEqual(bytes);
  await append(again, segment, { from: 10_000 });
  await again.complete();
  await again.close();
  expect((await read(store, cluster, name))?.equals(segment)).toBe(true);
  expect(await readdir(join(dir.path, cluster, name.slice(0, 16)))).toEqual([name]);
});

test("a damaged complete file is replaced when it comes again whole, not before", async () => {
  await using dir = await temporaryDirectory();
  const { store } = await openStore(dir.path);
  await using _ = store;
  await put(store, cluster, name, segment);
  const bytes = await readFile(pathOf(dir.path, name));
  bytes[500_000] = (bytes[500_000] ?? 0) ^ 4;
  await writeFile(pathOf(dir.path, name), bytes);
  await expect(read(store, cluster, name)).rejects.toThrow(code("KLIO-WAL-DAMAGED"));
  const half = await store.openWriter(request);
  await append(half, segment, { to: 300_000 });
  await half.close();
  expect(await readFile(pathOf(dir.path, name))).toEqual(bytes);
  expect(await readdir(join(dir.path, cluster, name.slice(0, 16)))).toEqual([name]);
  await put(store, cluster, name, segment);
  expect((await read(store, cluster, name))?.equals(segment)).toBe(true);
});

test("left-overs of a killed run: temporaries go, a whole file gets its final name", async () => {
  await using dir = await temporaryDirectory();
  const { store, masterKey } = await openStore(dir.path);
  await put(store, cluster, name, segment);
  await store.close();
  await rename(pathOf(dir.path, name), pathOf(dir.path, `${name}.partial`));
  const temporaries = [".lock.0123456789ab.tmp", `${cluster}/.metadata.0123456789ab.tmp`].map((file) =>
    join(dir.path, file),
  );
  temporaries.push(pathOf(dir.path, name).replace(name, `.${name}.0123456789ab.tmp`));
  for (const file of temporaries) await writeFile(file, "half");
  const { store: after, log } = await openStore(dir.path, masterKey);
  await using _ = after;
  expect(log.events()).toEqual(expect.arrayContaining(["wal.finished", "wal.cleaned"]));
  expect((await read(after, cluster, name))?.equals(segment)).toBe(true);
  for (const file of temporaries) await expect(stat(file)).rejects.toThrow(/ENOENT/);
});

test("a file with all its bytes and no footer is finished when its position is asked for", async () => {
  await using dir = await temporaryDirectory();
  const { store } = await openStore(dir.path);
  await using _ = store;
  const writer = await store.openWriter(request);
  await append(writer, segment);
  expect(await store.position(cluster)).toEqual({ walName: name, resumeOffset: SEGMENT_BYTES });
  await writer.close(); // as a killed process would leave it
  expect(await read(store, cluster, name)).toBeUndefined();
  expect(await store.position(cluster)).toEqual({ walName: "000000010000000000000004", resumeOffset: 0 });
  expect((await read(store, cluster, name))?.equals(segment)).toBe(true);
});
