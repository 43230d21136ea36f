// `npm run chaos wal [FIRST-SEED [SEEDS [MINUTES]]]`: kills every process of the WAL path at named points and random instants
// under load, one seed after the other, on one stage; then loses the primary and compares what is restored. A failing seed is
// named; a run that begins with it repeats it.
import { sweepKills } from "../test/support/kill-sweep.ts";

const [name, first = "1", count = "200", minutes = "Infinity"] = process.argv.slice(2);
if (name !== "wal") {
  process.stderr.write(`Error: no chaos ${JSON.stringify(name ?? "")}\nHint: npm run chaos wal\n`);
  process.exitCode = 64;
} else {
  const seeds = Array.from({ length: Number(count) }, (_, index) => Number(first) + index);
  const { kills, segments, commits, restored } = await sweepKills({
    seeds,
    deadlineMs: Number(minutes) * 60_000,
    tell: (text) => process.stdout.write(`${text}\n`),
  });
  process.stdout.write(`${kills} kills, ${segments} segments compared with pg_wal, ${commits} commits acknowledged\n`);
  process.stdout.write(`restored: ${JSON.stringify(restored)}\n`);
  process.exitCode = restored.lost + restored.different + restored.unexpected === 0 ? 0 : 1;
}
