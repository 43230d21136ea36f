// The way to tier 2 of a server in a process of its own, which ends itself with SIGKILL as soon as a statechart is in a given state:
// for tests of what the next start finds. Started with fork(); the setting is its first message, what came of it the answer.
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import type { InspectionEvent } from "xstate";
import { openObjectStore } from "../../src/actors/s3/object-store.ts";
import type { S3Settings } from "../../src/actors/s3/s3-client.ts";
import { verifyTier2Key } from "../../src/actors/s3/tier2-key.ts";
import { openTier2WalReader } from "../../src/actors/s3/tier2-wal-reader.ts";
import { openSnapshotRepository } from "../../src/actors/snapshots/open-repository.ts";
import { WalStore } from "../../src/actors/spool/wal-store.ts";
import { findTool } from "../../src/config/tools.ts";
import { unwrap } from "../../src/domain/outcome.ts";
import { TIER2_PIN } from "../../src/domain/snapshots.ts";
import { startOffload } from "../../src/roles/offload.ts";
import { noTelemetry } from "../../src/telemetry/telemetry.ts";
import { masterKeyOf } from "../../src/wire/wal-file-header.ts";
import { eventually } from "./eventually.ts";
import { ListedRepository } from "./offload-bench.ts";
import { testLog } from "./test-log.ts";
import { walSegment } from "./wal-bytes.ts";
import { put } from "./wal-store.ts";

export const PASS_PHRASE = "a pass-phrase of tier 2";
export const CLUSTER = "alpha";
const SEGMENT_BYTES = 1 << 20;

export type ProcessSetting = {
  directory: string;
  /** Hex, of tier 1. */
  masterKey: string;
  s3: S3Settings;
  /** Segments that are stored before anything is relayed; those that are there already stay. */
  segments: string[];
  /** Tasks of files that tier 1 has not. */
  gone?: string[];
  /** With base repositories below `directory`; the backup of this name is closed. Else there are no backups. */
  backup?: { name: string; startWal: string; endWal: string };
  kill?: { machine: string; state: string };
};
export type ProcessAnswer = {
  /** Names on tier 2, and those whose content is another one than on tier 1. */
  held: string[];
  different: string[];
  failed: string[];
  frontier: string;
  backups: { name: string; tier2: boolean; isPinned: boolean; corrupt: string[] }[];
};

/** `copying`, or `relaying.copying`: the active states, joined. */
function pathOf(value: unknown): string {
  if (typeof value === "string") return value;
  return Object.entries(value as object)
    .map(([state, inner]) => `${state}.${pathOf(inner)}`)
    .join(" ");
}

async function relay(setting: ProcessSetting): Promise<ProcessAnswer> {
  const { directory, s3, segments, gone = [], backup, kill } = setting;
  const log = testLog();
  const walDirectory = join(directory, "wal");
  const masterKey = masterKeyOf(Buffer.from(setting.masterKey, "hex"));
  const store = await WalStore.open({ directory: walDirectory, masterKey, log, report: () => undefined });
  const stored = new Set((await store.list(CLUSTER)).map(({ name }) => name));
  for (const name of segments) if (!stored.has(name)) await put(store, CLUSTER, name, walSegment(name, SEGMENT_BYTES));
  const objects = openObjectStore(s3);
  const tier2Key = await verifyTier2Key({ objects, prefix: "p", passPhrase: PASS_PHRASE });
  if (tier2Key === undefined) throw new Error("tier 2 has no key");
  const reader = openTier2WalReader({ objects, prefix: "p", masterKey: tier2Key });
  const repositoryOf = async (tier: "tier1" | "tier2") => {
    if (backup === undefined) return new ListedRepository(tier);
    const { bucketName, region, endpoint, accessKeyId, secretAccessKey } = s3;
    const own = join(directory, tier);
    return unwrap(
      await openSnapshotRepository({
        tier,
        kopia: findTool("kopia", process.env),
        storage:
          tier === "tier1"
            ? { kind: "directory", path: join(own, "repository") }
            : {
                kind: "s3",
                bucket: bucketName,
                region,
                prefix: "p/base",
                ...(endpoint !== undefined && { endpoint }),
                ...(accessKeyId !== undefined && { accessKeyId }),
                ...(secretAccessKey !== undefined && { secretAccessKey }),
              },
        passPhrase: "a pass-phrase of the tests",
        cacheDirectory: join(own, "cache"),
        stateDirectory: join(own, "state"),
        readOnly: false,
        log,
      }),
    );
  };
  for (const tier of ["tier1", "tier2"]) mkdirSync(join(directory, tier), { recursive: true });
  const tier1 = await repositoryOf("tier1");
  const tier2 = await repositoryOf("tier2");
  const inspect = (event: InspectionEvent) => {
    if (kill === undefined || event.type !== "@xstate.snapshot" || !("value" in event.snapshot)) return;
    const { machine, value } = event.snapshot as unknown as { machine?: { id: string }; value: unknown };
    if (machine?.id === kill.machine && pathOf(value).endsWith(kill.state)) process.kill(process.pid, "SIGKILL");
  };
  const telemetry = noTelemetry({ inspect });
  const role = await startOffload({
    store,
    walDirectory,
    repository: tier1,
    tier2: { prefix: "p", whenOpen: Promise.resolve({ objects, reader, masterKey: tier2Key, repository: tier2 }) },
    queue: {
      kind: "embedded",
      executable: findTool("nats-server", process.env),
      directory: join(directory, "queue"),
    },
    telemetry,
    log,
    signal: new AbortController().signal,
    limits: { probe: { firstMs: 50, limitMs: 200 }, delaysMs: [100] },
  });
  for (const name of [...segments, ...gone]) role.onStored({ cluster: CLUSTER, name, sendToTier2: true });
  if (backup !== undefined)
    await role.closeBackup({
      cluster: CLUSTER,
      backupName: backup.name,
      timeline: 1,
      startWal: backup.startWal,
      endWal: backup.endWal,
      segmentBytes: SEGMENT_BYTES,
      sendToTier2: true,
      tier2RetentionPolicy: "",
      traceparent: "",
    });
  await eventually(() => role.admin.reconcile(), { timeoutMs: 60_000 });
  const latest = segments.toSorted().at(-1) ?? "";
  await eventually(() => role.frontier(CLUSTER).listed && role.frontier(CLUSTER).at === latest, { timeoutMs: 60_000 });
  await eventually(
    async () => {
      const { wal, backup: backups } = await role.admin.pending();
      return wal + backups === 0;
    },
    { timeoutMs: 90_000 },
  );
  const answer: ProcessAnswer = {
    held: (await reader.list(CLUSTER)).map(({ name }) => name),
    different: [],
    failed: [...(await role.admin.failed("wal")), ...(await role.admin.failed("backup"))].map(({ name }) => name),
    frontier: role.frontier(CLUSTER).at,
    backups: [],
  };
  for (const name of segments) {
    const [one, other] = await Promise.all([contentOf(store, name), contentOf(reader, name)]);
    if (one === undefined || other === undefined || !one.equals(other)) answer.different.push(name);
  }
  if (backup !== undefined) {
    const copies = unwrap(await tier2.backups(CLUSTER));
    for (const { metadata, snapshots } of unwrap(await tier1.backups(CLUSTER))) {
      const copy = copies.find((one) => one.metadata.name === metadata.name);
      const corrupt = copy === undefined ? [] : unwrap(await tier2.verify(copy.snapshots, { percent: 100 })).corrupt;
      const isPinned = snapshots.some(({ pins }) => pins.includes(TIER2_PIN));
      answer.backups.push({ name: metadata.name, tier2: copy !== undefined, isPinned, corrupt });
    }
  }
  await role.stop();
  for (const repository of [tier1, tier2]) await repository[Symbol.asyncDispose]();
  await store.close();
  objects.close();
  return answer;
}

async function contentOf(from: Pick<WalStore, "open">, name: string): Promise<Buffer | undefined> {
  const opened = await from.open(CLUSTER, name);
  if (opened === undefined) return undefined;
  const parts: Uint8Array[] = [];
  for await (const part of opened.blocks) parts.push(part);
  return Buffer.concat(parts);
}

if (import.meta.main)
  process.on("message", (setting: ProcessSetting) => {
    relay(setting).then(
      (answer) => process.send?.({ answer }, () => process.exit(0)),
      (error: unknown) => process.send?.({ error: String((error as Error).stack) }, () => process.exit(1)),
    );
  });
