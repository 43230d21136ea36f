// A store that works on a disk whose power fails again and again, and what must be true after each failure.
import { createHash } from "node:crypto";
import { WalStore } from "../../src/actors/spool/wal-store.ts";
import type { WalWriter } from "../../src/actors/spool/wal-writer.ts";
import { nextSegment, segmentAt } from "../../src/domain/wal-segment.ts";
import { KlioError } from "../../src/errors.ts";
import { attachDisk } from "./attach-disk.ts";
import { type Lie, MemoryDisk } from "./memory-disk.ts";
import { type Random, random } from "./random.ts";
import { type TestLog, testLog } from "./test-log.ts";
import { SYSTEM_ID, walSegment } from "./wal-bytes.ts";
import { newMasterKey, read } from "./wal-store.ts";

/** Each life of a disk has a path of its own: what is left of an earlier one must not reach it. */
let lives = 0;
const CLUSTERS = ["alpha", "beta"];

/** What somebody was told of a cluster. */
type Told = {
  isRegistered: boolean;
  gaps: string[];
  /** Raw bytes told durable, by name; `complete` when that was told. */
  durable: Map<string, { rawBytes: number; complete: boolean }>;
  /** Names whose removal was begun. */
  removed: Set<string>;
};

/** What a seed did: how often power failed, and how many raw bytes were confirmed in the end. */
export type PowerLossResult = { failures: number; confirmedBytes: number; completeFiles: number; damaged: number };

class Model {
  readonly #random: Random;
  readonly #segmentBytes: number;
  readonly #master = newMasterKey();
  readonly #attached: DisposableStack;
  #root = "";
  #disk: MemoryDisk;
  readonly #log: TestLog = testLog();
  readonly #told = new Map<string, Told>(
    CLUSTERS.map((cluster) => [cluster, { isRegistered: false, gaps: [], durable: new Map(), removed: new Set() }]),
  );
  readonly #contents = new Map<string, Buffer>();

  constructor(disk: MemoryDisk, chance: Random, attached: DisposableStack) {
    this.#attached = attached;
    this.#disk = this.#attach(disk);
    this.#random = chance;
    // Large segments use the thread pool, whose order chance does not decide.
    this.#segmentBytes = chance.chance(0.1) ? 256 << 10 : 32 << 10;
  }

  /** The disks before it stay where they were, off. */
  #attach(disk: MemoryDisk): MemoryDisk {
    this.#root = `/klio-memory-disk-${lives++}`;
    this.#attached.use(attachDisk(this.#root, disk));
    return disk;
  }

  async run(failures: number): Promise<PowerLossResult> {
    for (let failure = 0; failure < failures; failure++) {
      const off = this.#disk.powerFailsAfter(this.#random.int(150));
      await Promise.race([off, this.#work().then(() => off)]);
      this.#disk = this.#attach(this.#disk.powerReturns());
      this.#forgetLocks();
    }
    await this.#check();
    const durable = [...this.#told.values()].flatMap((told) => [...told.durable.values()]);
    return {
      failures,
      confirmedBytes: durable.reduce((sum, { rawBytes }) => sum + rawBytes, 0),
      completeFiles: durable.filter(({ complete }) => complete).length,
      damaged: this.#log.events().filter((event) => event === "wal.damaged").length,
    };
  }

  /** Locks are of this process, which goes on here: as if it were another one. */
  #forgetLocks(): void {
    const directory = this.#disk.find("/wal");
    if (directory?.kind !== "directory") return;
    for (const [name, inode] of directory.live)
      if (name.startsWith(".lock") && inode.kind === "file") {
        inode.live = Buffer.from(inode.live.toString().replace(/ \d+ \d+\n$/, " 1 1\n"));
        inode.base = inode.live;
      }
  }

  #open(): Promise<WalStore> {
    const options = {
      directory: `${this.#root}/wal`,
      masterKey: this.#master,
      log: this.#log,
      report: () => undefined,
    };
    return this.#withRoom(() => WalStore.open(options));
  }

  /** A full disk is told as such, and gets room again. */
  async #withRoom<T>(work: () => Promise<T>): Promise<T> {
    for (;;) {
      try {
        return await work();
      } catch (error) {
        if (!(error instanceof KlioError) || error.code !== "KLIO-DISK-FULL") throw error;
      }
    }
  }

  /** Opens the store, checks it, and uses it until the power fails. */
  async #work(): Promise<void> {
    const store = await this.#check();
    await Promise.all([...this.#told].map(([cluster, told]) => this.#use(store, cluster, told)));
  }

  async #check(): Promise<WalStore> {
    const store = await this.#open();
    for (const [cluster, told] of this.#told) await this.#checkCluster(store, cluster, told);
    return store;
  }

  async #checkCluster(store: WalStore, cluster: string, told: Told): Promise<void> {
    const metadata = await store.metadata(cluster);
    if (told.isRegistered && metadata?.systemId !== SYSTEM_ID) throw new Error(`${cluster} is not known any more`);
    for (const gap of told.gaps)
      if (metadata?.gaps.every(({ end }) => end !== gap)) throw new Error(`the gap to ${gap} is forgotten`);
    for (const [name, { rawBytes, complete }] of told.durable) {
      if (told.removed.has(name) || (name.length !== 24 && !complete)) continue;
      const final = await read(store, cluster, name);
      if (complete && final === undefined) throw new Error(`${name} is not complete any more`);
      const stored = final ?? (await read(store, cluster, `${name}.partial`));
      if (stored === undefined) throw new Error(`${name}: ${rawBytes} bytes were confirmed, none are there`);
      if (stored.length < rawBytes) throw new Error(`${name}: ${rawBytes} bytes confirmed, ${stored.length} there`);
      if (!stored.equals(this.#content(name, stored.length))) throw new Error(`${name} has other bytes`);
    }
    const segments = [...told.durable.keys()].filter((name) => name.length === 24 && !told.removed.has(name));
    const last = segments.toSorted().at(-1);
    if (last === undefined) return;
    const position = await store.position(cluster);
    if (position === undefined) throw new Error(`${cluster} has no position`);
    const { rawBytes = 0, complete = false } = told.durable.get(last) ?? {};
    const isBehind =
      position.walName > last || (position.walName === last && !complete && position.resumeOffset >= rawBytes);
    if (!isBehind)
      throw new Error(`${cluster} resumes at ${position.walName} ${position.resumeOffset}, before ${last} ${rawBytes}`);
  }

  /** Raw bytes of a file: the same at each call. */
  #content(name: string, length?: number): Buffer {
    const known = this.#contents.get(name) ?? this.#newContent(name);
    this.#contents.set(name, known);
    return known.subarray(0, length);
  }

  #newContent(name: string): Buffer {
    if (name.length !== 24) return Buffer.from(`1\t0/3000000\tsince ${name}\n`);
    const isCompressible = createHash("sha256").update(name).digest()[0]! < 128;
    return walSegment(name, this.#segmentBytes, isCompressible ? { fill: 7 } : {});
  }

  /** Until the power fails: what goes on without any call must not reach the next disk. */
  async #use(store: WalStore, cluster: string, told: Told): Promise<void> {
    const disk = this.#disk;
    while (disk === this.#disk) await this.#withRoom(() => this.#step(store, cluster, told));
  }

  async #step(store: WalStore, cluster: string, told: Told): Promise<void> {
    const what = this.#random.int(20);
    if (!told.isRegistered || what === 0) {
      await store.registerCluster(cluster, SYSTEM_ID);
      told.isRegistered = true;
    } else if (what === 1) await this.#write(store, cluster, told, "00000002.history", 0);
    else if (what === 2) await this.#gap(store, cluster, told);
    else if (what === 3) await this.#remove(store, cluster, told);
    else {
      const at = (await store.position(cluster)) ?? { walName: this.#first(), resumeOffset: 0 };
      // Older clients begin at the first byte again.
      await this.#write(store, cluster, told, at.walName, this.#random.chance(0.2) ? 0 : at.resumeOffset);
    }
  }

  #first(): string {
    return segmentAt(1, BigInt(this.#segmentBytes) * 3n, this.#segmentBytes);
  }

  async #gap(store: WalStore, cluster: string, told: Told): Promise<void> {
    const at = await store.position(cluster);
    if (at === undefined) return;
    const next = nextSegment(nextSegment(at.walName, this.#segmentBytes), this.#segmentBytes);
    await store.resetStream(cluster, SYSTEM_ID, next);
    told.gaps.push(next);
  }

  /** Retention: the oldest files go, never the last one. */
  async #remove(store: WalStore, cluster: string, told: Told): Promise<void> {
    const complete = [...told.durable].filter(([name, { complete }]) => complete && name.length === 24);
    const names = complete
      .map(([name]) => name)
      .toSorted()
      .slice(0, -2);
    for (const name of names) told.removed.add(name);
    await store.remove(cluster, names);
  }

  async #write(store: WalStore, cluster: string, told: Told, name: string, fromOffset: number): Promise<void> {
    const content = this.#content(name);
    const confirm = (rawBytes: number, complete = false) => {
      const known = told.durable.get(name);
      told.durable.set(name, {
        rawBytes: Math.max(rawBytes, known?.rawBytes ?? 0),
        complete: complete || known?.complete === true,
      });
    };
    const request = { cluster, name, segmentBytes: content.length, fromOffset };
    const writer = await store.openWriter(request, (rawBytes) => confirm(rawBytes));
    try {
      if (!(await this.#append(writer, content, fromOffset))) return;
      await writer.complete();
      confirm(content.length, true);
    } finally {
      await writer.close();
    }
  }

  /** False: it ends before the file does, as a connection does. */
  async #append(writer: WalWriter, content: Buffer, fromOffset: number): Promise<boolean> {
    const disk = this.#disk;
    const largest = this.#random.pick([300, 3_000, 20_000]);
    for (let at = fromOffset; at < content.length && disk === this.#disk; ) {
      const to = Math.min(content.length, at + 1 + this.#random.int(largest));
      writer.append(content.subarray(at, to), at);
      at = to;
      if (this.#random.chance(0.4)) await writer.durable();
      else if (this.#random.chance(0.5)) await new Promise((resolve) => setImmediate(resolve));
      if (this.#random.chance(0.02)) return false;
    }
    return disk === this.#disk;
  }
}

/**
 * Runs one seed. Rejects with what was broken; the message names the seed. `lie`: the disk breaks this promise, so that the
 * run should reject sooner or later.
 */
export async function losePower(seed: number, lie?: Lie): Promise<PowerLossResult> {
  const chance = random(seed);
  const disk = new MemoryDisk({
    random: chance,
    fullShare: chance.chance(0.25) ? 0.03 : 0,
    ...(lie !== undefined && { lie }),
  });
  using attached = new DisposableStack();
  try {
    return await new Model(disk, chance, attached).run(1 + chance.int(5));
  } catch (error) {
    throw new Error(`power loss, seed ${seed}: ${error instanceof Error ? error.message : String(error)}`, {
      cause: error,
    });
  }
}
