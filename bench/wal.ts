// The price of Klio's WAL path beside pg_receivewal --synchronous: commit latency, bulk ingest, restore feed, memory, distance,
// what an outage of tier 2 costs, and requests per segment (which needs strace).
// Needs pg_receivewal and pgbench of PostgreSQL's client package on PATH. Parts can be named: `npm run bench wal bulk commit`.
// KLIO_BENCH_ROUNDS (5) and KLIO_BENCH_MIB (1024, of each kind of WAL) change its length.
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { openForWalking } from "../src/demo/run-as.ts";
import type { Figure } from "./run.ts";
import { benchBulk, bulkClusters } from "./wal/bulk.ts";
import { benchCommits, COMMIT_CLUSTER } from "./wal/commit.ts";
import { benchFeed, FEED_CLUSTER } from "./wal/feed.ts";
import { benchLink, linkClusters } from "./wal/link.ts";
import { benchMemory, memoryClusters } from "./wal/memory.ts";
import { benchOutage } from "./wal/outage.ts";
import { benchRequests } from "./wal/requests.ts";
import { WalBench } from "./wal/stage.ts";
import { makeWal } from "./wal/workload.ts";

const MIB = 1 << 20;
const measured = ["bulk", "commit", "link", "feed", "memory"];

export async function benchWal(parts: readonly string[]): Promise<Figure[]> {
  const wants = (part: string) => parts.length === 0 || parts.includes(part);
  const rounds = Number(process.env.KLIO_BENCH_ROUNDS ?? 5);
  const directory = mkdtempSync(join(tmpdir(), "klio-bench-"));
  openForWalking(directory);
  try {
    const figures: Figure[] = [];
    if (measured.some(wants)) figures.push(...(await benchBesidePostgres(join(directory, "wal"), rounds, wants)));
    if (wants("outage")) {
      mkdirSync(join(directory, "outage"));
      figures.push(...(await benchOutage(join(directory, "outage"), rounds, 3)));
    }
    if (wants("requests")) {
      mkdirSync(join(directory, "requests"));
      figures.push(...(await benchRequests(join(directory, "requests"))));
    }
    return figures;
  } finally {
    if (process.env.KLIO_BENCH_KEEP === undefined) rmSync(directory, { recursive: true, force: true });
  }
}

/** All parts that share one server without a tier 2. */
async function benchBesidePostgres(
  directory: string,
  rounds: number,
  wants: (part: string) => boolean,
): Promise<Figure[]> {
  mkdirSync(directory);
  await using bench = await WalBench.open(directory, [
    ...bulkClusters(rounds),
    ...linkClusters(rounds),
    ...memoryClusters,
    COMMIT_CLUSTER,
    FEED_CLUSTER,
  ]);
  const say = (text: string) => void process.stderr.write(`${text}\n`);
  say("making WAL");
  const ranges = await makeWal(bench, Number(process.env.KLIO_BENCH_MIB ?? 1024) * MIB);
  for (const { kind, bytes } of ranges) say(`${kind}: ${(bytes / MIB).toFixed(0)} MiB`);
  const figures: Figure[] = [];
  const [copy] = ranges;
  if (wants("bulk")) figures.push(...(await benchBulk(bench, ranges, rounds)));
  if (wants("commit")) figures.push(...(await benchCommits(bench, rounds, 5)));
  if (wants("link") && copy !== undefined) figures.push(...(await benchLink(bench, copy, rounds)));
  if (wants("feed")) figures.push(...(await benchFeed(bench, rounds)));
  if (wants("memory")) figures.push(...(await benchMemory(bench)));
  return figures;
}
