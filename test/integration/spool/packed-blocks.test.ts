import { expect, test } from "vitest";
import type { WalWriter } from "../../../src/actors/spool/wal-writer.ts";
import { zstdPack } from "../../../src/wire/zstd.ts";
import { temporaryDirectory } from "../../support/temporary-directory.ts";
import { walSegment } from "../../support/wal-bytes.ts";
import { append, openStore, read, SEGMENT_BYTES } from "../../support/wal-store.ts";

const cluster = "alpha";
const name = "000000010000000000000003";
const request = { cluster, name, segmentBytes: SEGMENT_BYTES };
const segment = walSegment(name, SEGMENT_BYTES, { fill: 1 });

/** As a call gives it: the raw bytes are overwritten as soon as the writer has returned. */
function appendPacked(writer: WalWriter, at: number, to: number): void {
  const raw = Buffer.from(segment.subarray(at, to));
  const payload = Buffer.from(zstdPack(raw));
  writer.appendPacked(raw, at, { codec: "zstd", payload, rawBytes: raw.length });
  raw.fill(0xee);
}

test("blocks that came compressed lie between raw ones, in their order, and their raw bytes are not kept", async () => {
  await using dir = await temporaryDirectory();
  const { store } = await openStore(dir.path);
  await using _ = store;
  const writer = await store.openWriter({ ...request, fromOffset: 0 });
  let at = 0;
  for (const [bytes, isPacked] of [
    [100, false],
    [20_000, true],
    [9_000, false],
    [9_000, false],
    [200_000, true],
    [100_000, false],
    [300_000, true],
    [SEGMENT_BYTES, true],
  ] as const) {
    const to = Math.min(SEGMENT_BYTES, at + bytes);
    if (isPacked) appendPacked(writer, at, to);
    else writer.append(segment.subarray(at, to), at);
    at = to;
  }
  await writer.complete();
  await writer.close();
  expect((await read(store, cluster, name))?.equals(segment)).toBe(true);
});

test("E2: of a compressed block that is stored in part only the rest is taken", async () => {
  await using dir = await temporaryDirectory();
  const { store } = await openStore(dir.path);
  await using _ = store;
  const first = await store.openWriter({ ...request, fromOffset: 0 });
  await append(first, segment, { to: 300_000 });
  await first.close();
  const again = await store.openWriter({ ...request, fromOffset: 204_800 });
  appendPacked(again, 204_800, 250_000); // all of it is there
  appendPacked(again, 250_000, 500_000);
  appendPacked(again, 500_000, SEGMENT_BYTES);
  await again.complete();
  await again.close();
  expect((await read(store, cluster, name))?.equals(segment)).toBe(true);
});
