// What distance costs: bulk ingest through a proxy that delays each direction, against the same proxy without delay.
import { slowLink } from "../../test/support/slow-link.ts";
import type { Figure } from "../run.ts";
import { median, spread } from "../statistics.ts";
import { receiveByKlio } from "./bulk.ts";
import type { WalBench } from "./stage.ts";
import type { Range } from "./workload.ts";

const ROUND_TRIP_MS = 20;

export const linkClusters = (rounds: number) =>
  Array.from({ length: rounds }, (_, n) => [`near-${n}`, `far-${n}`]).flat();

export async function benchLink(bench: WalBench, range: Range, rounds: number): Promise<Figure[]> {
  const server = { port: Number(bench.serverAddress.split(":")[1]) };
  await using near = await slowLink(server, 0);
  await using far = await slowLink(server, ROUND_TRIP_MS);
  const ratios: number[] = [];
  const speeds: number[] = [];
  for (let round = 0; round < rounds; round++) {
    const runs = { near: 0, far: 0 };
    for (const which of round % 2 === 0 ? (["near", "far"] as const) : (["far", "near"] as const)) {
      const { port } = which === "near" ? near : far;
      runs[which] = (await receiveByKlio(bench, range, `${which}-${round}`, `127.0.0.1:${port}`)).mibPerSecond;
    }
    ratios.push((1 - runs.far / runs.near) * 100);
    speeds.push(runs.far);
  }
  return [
    { name: `bulk ${range.kind}, 20 ms of round trip to the server`, value: median(speeds), unit: "MiB/s" },
    {
      name: `bulk ${range.kind}: what 20 ms of round trip cost`,
      value: median(ratios),
      unit: `% ${spread(ratios)}`,
      bound: 15,
    },
  ];
}
