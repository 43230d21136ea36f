// Each state of the statecharts on the WAL path: how a process comes to it, to be killed (-9) at the moment it enters it; or why
// none can be killed there.
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { killHard } from "../../src/demo/process-tree.ts";
import { eventually } from "./eventually.ts";
import type { Managed, Provocation, Sweep } from "./kill-sweep.ts";

/** What a process is made to do. */
type Way = (sweep: Sweep) => Provocation;
/**
 * `gap`: WAL is lost on the way, and a base backup must follow. `promotion`: what streams does so from a standby. `undo`: once it
 * is dead.
 */
export type StateRow =
  | { victim: Managed; way: Way; needs?: "gap" | "promotion"; undo?: (sweep: Sweep) => Promise<unknown> }
  | { never: string };

/** Its next life comes there by itself. */
const restart: Way = () => ({ once: killHard });
const writing: Way = (sweep) => ({ often: () => sweep.switchWal() });
const stopping: Way = () => ({ once: (pid) => process.kill(pid, "SIGTERM") });
const losing =
  (other: Managed): Way =>
  (sweep) => ({ once: () => killHard(sweep.pid(other) ?? 0) });
const losingChild: Way = (sweep) => ({ once: () => killHard(sweep.pid("nats-server") ?? 0) });

/** A client that sends one block, and says no more. */
const sending =
  (file: { walName: string; segmentBytes: number } | "current", bytes: number): Way =>
  (sweep) => ({
    async often() {
      const client = await sweep.connect();
      const [row] = await sweep.stage.postgres.query("select pg_walfile_name(pg_current_wal_lsn()) as name");
      const { walName, segmentBytes } =
        file === "current" ? { walName: String(row?.name), segmentBytes: 16 << 20 } : file;
      const upload = client.upload({
        walName,
        segmentBytes,
        sendToTier2: false,
        method: "stream",
        fromOffset: 0,
        onAck: () => undefined,
      });
      upload.sendCopy(new Uint8Array(bytes));
      upload.finish();
      await upload.ended;
      client.close();
    },
  });

/** A client that reads a file: the first one that is stored, or one that is not. `onBlock`: with each block. */
const reading =
  (what: "stored" | "missing", onBlock: (abort: AbortController) => void = () => undefined): Way =>
  (sweep) => ({
    async often() {
      const client = await sweep.connect();
      const list = await client.list();
      const stored = list.kind === "ok" ? list.value.find(({ complete }) => complete)?.name : undefined;
      const abort = new AbortController();
      const name = what === "stored" ? (stored ?? "") : "0000000100000000000000FE";
      const answer = await client.get(name, { signal: abort.signal });
      if (answer.kind === "ok" && answer.value !== undefined)
        try {
          for await (const _ of answer.value.blocks) onBlock(abort);
        } catch {
          // the server is gone, or the client has given up
        }
      client.close();
    },
  });

/** A client that gives up while it reads. */
const leaving = reading("stored", (abort) => abort.abort());

const hbaOf = (sweep: Sweep) => join(sweep.stage.postgres.dataDirectory, "pg_hba.conf");
const REFUSAL = "host replication postgres 127.0.0.1/32 reject\n";

/** PostgreSQL lets no stream in, whatever else the sidecar asks; then, with the slot at rest, `meanwhile`. */
const refusing =
  (meanwhile?: (sweep: Sweep) => Promise<unknown>): Way =>
  (sweep) => ({
    async once() {
      const file = hbaOf(sweep);
      writeFileSync(file, REFUSAL + readFileSync(file, "utf8"));
      await sweep.stage.postgres.query("select pg_reload_conf()");
      await sweep.stage.postgres.query(ENDING);
      await meanwhile?.(sweep);
    },
  });
const ENDING = "select pg_terminate_backend(pid, 5000) from pg_stat_replication where application_name = 'klio'";
const DROPPING = "select pg_drop_replication_slot('klio')";

async function admitting(sweep: Sweep): Promise<void> {
  const file = hbaOf(sweep);
  writeFileSync(file, readFileSync(file, "utf8").replace(REFUSAL, ""));
  await sweep.stage.postgres.query("select pg_reload_conf()");
}

/** So much WAL by its positions, of max_slot_wal_keep_size = 1 GB. */
const writingSegments = (count: number) => async (sweep: Sweep) => {
  for (let i = 0; i < count; i++) await sweep.emptySegment();
  await sweep.stage.postgres.query("checkpoint");
};

/** While the sidecar is away its slot is dropped, and PostgreSQL removes what the server lacks. */
const losingWal: Way = (sweep) => ({
  async once(pid) {
    const { postgres } = sweep.stage;
    process.kill(pid, "SIGSTOP");
    const [row] = await postgres.query("select pg_walfile_name(pg_current_wal_lsn()) as name");
    await postgres.query(ENDING);
    await postgres.query(DROPPING);
    await eventually(async () => {
      await sweep.emptySegment();
      await postgres.query("checkpoint");
      return !existsSync(join(postgres.dataDirectory, "pg_wal", String(row?.name)));
    });
    killHard(pid);
  },
});

/** What it streams from is a standby, and is promoted now. */
const promoting: Way = (sweep) => ({ once: () => sweep.stage.postgres.query("select pg_promote(true, 60)") });

const transient = "left in the same step that enters it: no instant is in it";

export const killStates: Readonly<Record<string, Readonly<Record<string, StateRow>>>> = {
  walStream: {
    "attached.connecting": { victim: "sidecar", way: restart },
    "attached.identifying": { victim: "sidecar", way: restart },
    "attached.recordingGap": { victim: "sidecar", way: losingWal, needs: "gap" },
    "attached.securingSlot": { victim: "sidecar", way: restart },
    "attached.negotiating": { victim: "sidecar", way: restart },
    "attached.collectingHistories": { never: transient },
    "attached.fetchingHistory": { victim: "sidecar", way: promoting, needs: "promotion" },
    "attached.streaming.flowing": { victim: "sidecar", way: restart },
    "attached.streaming.draining": { victim: "sidecar", way: stopping },
    "attached.switchingTimeline": { victim: "sidecar", way: promoting, needs: "promotion" },
    failing: { never: transient },
    backingOff: { victim: "sidecar", way: losing("server") },
    blocked: { victim: "sidecar", way: refusing(), undo: admitting },
    stopped: { victim: "sidecar", way: stopping },
  },
  segmentShipment: {
    "active.opening": { victim: "sidecar", way: writing },
    "active.shipping": { victim: "sidecar", way: writing },
    "active.confirming": { victim: "sidecar", way: writing },
    shipped: { victim: "sidecar", way: writing },
    parted: { victim: "sidecar", way: stopping },
    interrupted: { victim: "sidecar", way: losing("server") },
    refused: { never: "only bytes that are not PostgreSQL's are refused, and this sidecar has none" },
  },
  walIngest: {
    receiving: { victim: "server", way: writing },
    draining: { victim: "server", way: stopping },
    sealing: { victim: "server", way: writing },
    leaving: { never: transient },
    judging: { never: transient },
    stored: { victim: "server", way: writing },
    partial: { victim: "server", way: losing("sidecar") },
    empty: { victim: "server", way: sending({ walName: "000000FE.history", segmentBytes: 100 }, 0) },
    refused: { victim: "server", way: sending({ walName: "0000000100000000000000FE", segmentBytes: 12_345 }, 8192) },
    failed: { victim: "server", way: sending("current", 8192) },
  },
  walServing: {
    serving: { victim: "server", way: reading("stored") },
    served: { victim: "server", way: reading("stored") },
    missing: { victim: "server", way: reading("missing") },
    withdrawn: { victim: "server", way: leaving },
    failed: { never: "only a damaged file cannot be read, and there is none" },
  },
  childProcess: {
    "running.starting": { victim: "server", way: restart },
    "running.ready": { victim: "server", way: restart },
    restarting: { victim: "server", way: losingChild },
    failed: { never: "only a program that is missing cannot be started, and the server says so before it serves" },
    stopped: { victim: "server", way: stopping },
  },
  role: {
    starting: { victim: "server", way: restart },
    serving: { victim: "server", way: restart },
    draining: { victim: "server", way: stopping },
    stopped: { victim: "server", way: stopping },
  },
  slotGuard: {
    reading: { victim: "sidecar", way: restart },
    settled: { never: transient },
    watching: { victim: "sidecar", way: restart },
    lagging: { victim: "sidecar", way: refusing(writingSegments(24)), undo: admitting },
    endangered: { victim: "sidecar", way: refusing((sweep) => sweep.stage.postgres.query(DROPPING)), undo: admitting },
    lost: { victim: "sidecar", way: refusing(writingSegments(70)), needs: "gap", undo: admitting },
    stopped: { victim: "sidecar", way: stopping },
  },
};
