// What distance costs: bulk ingest through a proxy that delays each direction, against the same proxy without delay.
import { connect, createServer, type Server, type Socket } from "node:net";
import type { Figure } from "../run.ts";
import { median, spread } from "../statistics.ts";
import { receiveByKlio } from "./bulk.ts";
import type { WalBench } from "./stage.ts";
import type { Range } from "./workload.ts";

const ONE_WAY_MS = 10;
const LIMIT_BYTES = 64 << 20;

/** Forwards with a delay; order is kept, and a slow reader holds its writer back. */
function delayed(from: Socket, to: Socket, delayMs: number): void {
  const waiting: { at: number; chunk: Buffer }[] = [];
  let isTimed = false;
  let bytes = 0;
  const wake = (inMs: number) => {
    isTimed = true;
    setTimeout(flush, Math.max(0, inMs));
  };
  const flush = () => {
    isTimed = false;
    const now = performance.now();
    for (let next = waiting[0]; next !== undefined && next.at <= now; next = waiting[0]) {
      waiting.shift();
      bytes -= next.chunk.length;
      to.write(next.chunk);
    }
    if (bytes < LIMIT_BYTES) from.resume();
    const [next] = waiting;
    if (next !== undefined) wake(next.at - performance.now());
    else if (from.readableEnded) to.end();
  };
  from.on("data", (chunk: Buffer) => {
    if (delayMs === 0) {
      if (!to.write(chunk)) from.pause();
      return;
    }
    waiting.push({ at: performance.now() + delayMs, chunk });
    bytes += chunk.length;
    if (bytes > LIMIT_BYTES) from.pause();
    if (!isTimed) wake(delayMs);
  });
  to.on("drain", () => from.resume());
  from.on("end", () => {
    if (waiting.length === 0) to.end();
  });
  from.on("error", () => to.destroy());
}

async function proxy(target: string, delayMs: number): Promise<{ address: string; server: Server }> {
  const [host = "", port = ""] = target.split(":");
  const server = createServer((client) => {
    const upstream = connect(Number(port), host);
    delayed(client, upstream, delayMs);
    delayed(upstream, client, delayMs);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const at = server.address();
  if (at === null || typeof at === "string") throw new Error("the proxy has no port");
  return { address: `127.0.0.1:${at.port}`, server };
}

export const linkClusters = (rounds: number) =>
  Array.from({ length: rounds }, (_, n) => [`near-${n}`, `far-${n}`]).flat();

export async function benchLink(bench: WalBench, range: Range, rounds: number): Promise<Figure[]> {
  const near = await proxy(bench.serverAddress, 0);
  const far = await proxy(bench.serverAddress, ONE_WAY_MS);
  const ratios: number[] = [];
  const speeds: number[] = [];
  for (let round = 0; round < rounds; round++) {
    const runs = { near: 0, far: 0 };
    for (const which of round % 2 === 0 ? (["near", "far"] as const) : (["far", "near"] as const)) {
      const address = which === "near" ? near.address : far.address;
      runs[which] = (await receiveByKlio(bench, range, `${which}-${round}`, address)).mibPerSecond;
    }
    ratios.push((1 - runs.far / runs.near) * 100);
    speeds.push(runs.far);
  }
  near.server.close();
  far.server.close();
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
