import { execFileSync, spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { appendFileSync, rmSync } from "node:fs";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { expect, test } from "vitest";
import { lineSplitter } from "../../../src/actors/process/run-command.ts";
import { WalStore } from "../../../src/actors/spool/wal-store.ts";
import { masterKeyOf } from "../../../src/wire/wal-file-header.ts";
import { appendForever, BYTES, CLUSTER, steadySegment } from "../../support/append-wal.ts";
import { eventually } from "../../support/eventually.ts";
import { temporaryDirectory } from "../../support/temporary-directory.ts";
import { testLog } from "../../support/test-log.ts";
import { read } from "../../support/wal-store.ts";

const program = join(import.meta.dirname, "../../support/append-wal.ts");

/** Runs the writer and keeps its lines; `limit`: largest file it may write, in KiB. */
function startWriter(directory: string, key: string, block: number, limitKiB?: number) {
  const args = [program, directory, key, String(block)];
  const child =
    limitKiB === undefined
      ? spawn(process.execPath, args, { stdio: ["ignore", "pipe", "inherit"] })
      : spawn("/bin/bash", ["-c", `ulimit -f ${limitKiB}; exec "$0" "$@"`, process.execPath, ...args], {
          stdio: ["ignore", "pipe", "inherit"],
        });
  const lines: string[] = [];
  const splitter = lineSplitter((line) => lines.push(line));
  child.stdout?.setEncoding("utf8").on("data", (text: string) => splitter.push(text));
  const ended = new Promise<void>((resolve) => child.once("close", () => resolve()));
  return { child, lines, ended };
}

async function openAgain(directory: string, key: string) {
  const log = testLog();
  const masterKey = masterKeyOf(Buffer.from(key, "hex"));
  const store = await WalStore.open({ directory, masterKey, log, report: () => undefined });
  return { store, log };
}

/** Everything that was told durable is there, as it was sent. */
async function expectAllThere(store: WalStore, lines: string[]): Promise<void> {
  const durable = new Map<string, number>();
  for (const line of lines) {
    const [name = "", value = ""] = line.split(" ");
    if (name === "failed") continue;
    durable.set(name, value === "done" ? BYTES : Math.max(Number(value), durable.get(name) ?? 0));
  }
  expect(durable.size).toBeGreaterThan(0);
  for (const [name, rawBytes] of durable) {
    const isDone = lines.includes(`${name} done`);
    const stored =
      (await read(store, CLUSTER, name)) ?? (isDone ? undefined : await read(store, CLUSTER, `${name}.partial`));
    expect(stored?.length, name).toBeGreaterThanOrEqual(rawBytes);
    expect(stored?.equals(steadySegment(name).subarray(0, stored.length)), name).toBe(true);
  }
}

test.each([
  ["small blocks, as synchronous commits make them", 700],
  ["large blocks, as catching up makes them", 200_000],
])("P8, E1, E2: kill -9 in the middle of appends loses nothing that was confirmed: %s", async (_, block) => {
  await using dir = await temporaryDirectory();
  const key = randomBytes(32).toString("hex");
  const lines: string[] = [];
  for (let round = 0; round < 4; round++) {
    const writer = startWriter(dir.path, key, block);
    const enough = block < 1000 ? 150 + 40 * round : 10 + 3 * round;
    await eventually(() => writer.lines.length > enough, { what: "acknowledgements" });
    writer.child.kill("SIGKILL");
    await writer.ended;
    expect(writer.lines.filter((line) => line.startsWith("failed"))).toEqual([]);
    lines.push(...writer.lines);
    const { store } = await openAgain(dir.path, key); // the lock of the killed process does not stand in the way
    await expectAllThere(store, lines);
    const at = await store.position(CLUSTER);
    expect(at?.resumeOffset).toBeLessThan(BYTES);
    await store.close();
  }
});

test("KLIO-DISK-FULL: a write beyond what the process may write is told as a full disk; nothing confirmed is lost", async () => {
  await using dir = await temporaryDirectory();
  const key = randomBytes(32).toString("hex");
  const limited = startWriter(dir.path, key, 50_000, 600); // a file ends at 600 KiB, a segment has 1 MiB
  await limited.ended;
  expect(limited.lines.at(-1)).toBe("failed KLIO-DISK-FULL");
  const { store } = await openAgain(dir.path, key);
  await using _ = store;
  await expectAllThere(store, limited.lines);
  const lines: string[] = [];
  await appendForever(
    store,
    50_000,
    (line) => lines.push(line),
    () => lines.some((line) => line.endsWith("done")),
  );
  await expectAllThere(store, [...limited.lines, ...lines]);
});

test.runIf(process.getuid?.() === 0)(
  "P10: a full volume is refused with KLIO-DISK-FULL, is whole afterwards, and work resumes by itself",
  async () => {
    await using dir = await temporaryDirectory();
    const volume = join(dir.path, "volume");
    await mkdir(volume);
    execFileSync("mount", ["-t", "tmpfs", "-o", "size=3m", "tmpfs", volume]);
    try {
      const key = randomBytes(32).toString("hex");
      const { store } = await openAgain(volume, key);
      const lines: string[] = [];
      await expect(appendForever(store, 30_000, (line) => lines.push(line))).rejects.toMatchObject({
        code: "KLIO-DISK-FULL",
      });
      expect(lines.filter((line) => line.endsWith("done")).length).toBeGreaterThan(1);
      await expectAllThere(store, lines);
      await expect(appendForever(store, 30_000, (line) => lines.push(line))).rejects.toMatchObject({
        code: "KLIO-DISK-FULL",
      });
      const filler = join(volume, ".filler");
      expect(() => {
        for (;;) appendFileSync(filler, Buffer.alloc(4096));
      }).toThrow(/ENOSPC/);
      await expect(store.registerCluster("beta", "1")).rejects.toMatchObject({ code: "KLIO-DISK-FULL" });
      expect(await store.metadata("beta")).toBeUndefined();
      rmSync(filler);
      execFileSync("mount", ["-o", "remount,size=6m", volume]);
      const before = lines.length;
      await appendForever(
        store,
        30_000,
        (line) => lines.push(line),
        () => lines.slice(before).some((line) => line.endsWith("done")),
      );
      await expectAllThere(store, lines);
      await store.close();
    } finally {
      execFileSync("umount", [volume]);
    }
  },
);
