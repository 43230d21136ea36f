// P8: the process on the way to tier 2 is killed (-9) in each state of a WAL file's and of a backup's way; the next start converges
// without a person.
import { fork } from "node:child_process";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { createTier2Key } from "../../src/actors/s3/tier2-key.ts";
import { TIER2_PIN } from "../../src/domain/snapshots.ts";
import { faultyS3, firstTimes, isPut, slowDown } from "../support/faulty-s3.ts";
import { CLUSTER, PASS_PHRASE, type ProcessAnswer, type ProcessSetting } from "../support/offload-process.ts";
import { testS3 } from "../support/s3.ts";
import { sampleMetadata, sampleTree, storeSample } from "../support/sample-backup.ts";
import { startSnapshotServer } from "../support/snapshot-server.ts";
import { temporaryDirectory } from "../support/temporary-directory.ts";

const child = fileURLToPath(new URL("../support/offload-process.ts", import.meta.url));
const wal = (n: number) => `0000000100000000${n.toString(16).toUpperCase().padStart(8, "0")}`;
const segments = [2, 3, 4].map(wal);

/** The answer, or the signal that ended the process. */
async function run(setting: ProcessSetting): Promise<ProcessAnswer | string> {
  const forked = fork(child, { stdio: ["ignore", "inherit", "inherit", "ipc"] });
  let told: { answer?: ProcessAnswer; error?: string } = {};
  forked.on("message", (message) => {
    told = message as typeof told;
  });
  forked.send(setting);
  const [code, signal] = await once(forked, "exit");
  if (told.error !== undefined) throw new Error(told.error);
  return told.answer ?? String(signal ?? code);
}

test.each([
  ["reading", {}],
  ["putting", {}],
  ["confirming", {}],
  ["offloaded", {}],
  ["backingOff", { isSlow: true }],
  ["searching", { gone: [wal(9)] }],
])(
  "P8: killed while a WAL file is %s",
  async (state, { isSlow = false, gone = [] }: { isSlow?: boolean; gone?: string[] }) => {
    await using directory = await temporaryDirectory();
    mkdirSync(join(directory.path, "s3"));
    await using s3 = await testS3(join(directory.path, "s3"));
    await using faulty = await faultyS3(s3.s3);
    await createTier2Key({ objects: s3.objects, prefix: "p", passPhrase: PASS_PHRASE });
    const setting: ProcessSetting = {
      directory: directory.path,
      masterKey: randomBytes(32).toString("hex"),
      s3: { ...s3.settings, endpoint: faulty.endpoint },
      segments,
      gone,
    };
    if (isSlow) faulty.spoil(firstTimes(4, isPut, slowDown));
    expect(await run({ ...setting, kill: { machine: "segmentOffload", state } })).toBe("SIGKILL");
    const answer = await run(setting);
    expect(answer).toEqual({ held: segments, different: [], failed: gone, frontier: segments.at(-1), backups: [] });
  },
);

test("P8: killed in one state of a backup after the other, each start goes on", async () => {
  await using directory = await temporaryDirectory();
  mkdirSync(join(directory.path, "s3"));
  await using s3 = await testS3(join(directory.path, "s3"));
  await createTier2Key({ objects: s3.objects, prefix: "p", passPhrase: PASS_PHRASE });
  const own = join(directory.path, "tier1");
  mkdirSync(own);
  {
    await using server = await startSnapshotServer(own, { clusters: [CLUSTER] });
    await using snapshots = await server.open(CLUSTER);
    const range = { startWal: segments[0]!, endWal: segments[1]!, segmentSize: 1 << 20 };
    await storeSample(snapshots, sampleTree(directory.path), sampleMetadata("b1", CLUSTER, range), TIER2_PIN);
  }
  const setting: ProcessSetting = {
    directory: directory.path,
    masterKey: randomBytes(32).toString("hex"),
    s3: s3.settings,
    segments,
    backup: { name: "b1", startWal: segments[0]!, endWal: segments[1]! },
  };
  for (const state of [
    "awaitingWal.looking",
    "choosing",
    "verifyingSource",
    "copying",
    "verifying",
    "applyingRetention",
    "unpinning",
    "maintaining",
  ])
    expect([state, await run({ ...setting, kill: { machine: "backupRelay", state } })]).toEqual([state, "SIGKILL"]);
  const answer = await run(setting);
  expect(answer).toEqual({
    held: segments,
    different: [],
    failed: [],
    frontier: segments.at(-1),
    backups: [{ name: "b1", tier2: true, isPinned: false, corrupt: [] }],
  });
});
