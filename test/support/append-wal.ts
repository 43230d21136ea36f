// A process that writes WAL until it is killed, or fails: `node append-wal.ts DIRECTORY KEY-HEX BLOCK-BYTES`. After each group
// it prints what is durable (`name rawBytes`), for each finished file `name done`, and at last the code of its failure.
// The bytes are those of `steadySegment`, so that whoever started it can compare.
import { pathToFileURL } from "node:url";
import { WalStore } from "../../src/actors/spool/wal-store.ts";
import { segmentAt } from "../../src/domain/wal-segment.ts";
import { KlioError } from "../../src/errors.ts";
import { masterKeyOf } from "../../src/wire/wal-file-header.ts";
import { testLog } from "./test-log.ts";
import { walSegment } from "./wal-bytes.ts";

export const CLUSTER = "alpha";
export const BYTES = 1 << 20;

const steady = new Map<number, Buffer>();
/** Incompressible, and the same in every process. */
export function steadySegment(name: string): Buffer {
  const noise = steady.get(0) ?? makeNoise();
  steady.set(0, noise);
  const bytes = walSegment(name, BYTES, { fill: 0 });
  for (let page = 0; page < BYTES; page += 8192) noise.copy(bytes, page + 40, page + 40, page + 8192);
  return bytes;
}

function makeNoise(): Buffer {
  const noise = Buffer.alloc(BYTES);
  let state = 42;
  for (let i = 0; i < BYTES; i++) {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    noise[i] = state >>> 24;
  }
  return noise;
}

export async function appendForever(
  store: WalStore,
  block: number,
  print: (line: string) => void,
  isOver: () => boolean = () => false,
): Promise<void> {
  while (!isOver()) {
    const start = (await store.position(CLUSTER)) ?? { walName: segmentAt(1, 0x100000n, BYTES), resumeOffset: 0 };
    const { walName: name, resumeOffset: fromOffset } = start;
    const bytes = steadySegment(name);
    const writer = await store.openWriter({ cluster: CLUSTER, name, segmentBytes: BYTES, fromOffset }, (rawBytes) =>
      print(`${name} ${rawBytes}`),
    );
    try {
      for (let at = fromOffset; at < BYTES; at += block) {
        writer.append(bytes.subarray(at, at + block), at);
        if (at % (block * 8) === 0) await writer.whenBelow(block * 4);
      }
      await writer.complete();
      print(`${name} done`);
    } finally {
      await writer.close();
    }
  }
}

if (process.argv[1] !== undefined && import.meta.url === pathToFileURL(process.argv[1]).href) {
  const [directory = "", key = "", block = "8192"] = process.argv.slice(2);
  try {
    const masterKey = masterKeyOf(Buffer.from(key, "hex"));
    const store = await WalStore.open({ directory, masterKey, log: testLog(), report: () => undefined });
    await appendForever(store, Number(block), (line) => process.stdout.write(`${line}\n`));
  } catch (error) {
    process.stdout.write(`failed ${error instanceof KlioError ? error.code : String(error)}\n`);
    process.exitCode = 1;
  }
}
