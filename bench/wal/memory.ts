// Memory of the server while clusters stream at the same time, each as fast as it can.
import { connectWal, type WalClient } from "../../src/actors/grpc/wal-client.ts";
import { segmentAt } from "../../src/domain/wal-segment.ts";
import { noTelemetry } from "../../src/telemetry/telemetry.ts";
import { testLog } from "../../test/support/test-log.ts";
import { SYSTEM_ID } from "../../test/support/wal-bytes.ts";
import { send } from "../../test/support/wal-server.ts";
import type { Figure } from "../run.ts";
import { segmentLikeWal } from "../workload.ts";
import { forgetPeak, usageOf, type WalBench } from "./stage.ts";

const COUNTS = [1, 8, 32];
const SEGMENT_BYTES = 16 << 20;
const BLOCK_BYTES = 1 << 20;
/** Of each page of 8 KiB. */
const RANDOM_BYTES = 3_000;
const SEGMENTS = 6;

export const memoryClusters = Array.from({ length: Math.max(...COUNTS) }, (_, n) => `memory-${n}`);

async function stream(client: WalClient, from: number): Promise<void> {
  const name = (n: number) => segmentAt(1, BigInt(n) * BigInt(SEGMENT_BYTES), SEGMENT_BYTES);
  const started = await client.requestWalStart({ systemId: SYSTEM_ID, currentWalName: name(from) });
  if (started.kind !== "ok") throw new Error(started.reason);
  for (let n = from; n < from + SEGMENTS; n++) {
    const bytes = segmentLikeWal(name(n), SEGMENT_BYTES, RANDOM_BYTES);
    const end = await send(client, bytes, { walName: name(n), sendToTier2: false }, BLOCK_BYTES);
    if (end.kind !== "ok" || !end.value.complete) throw new Error(`${name(n)}: ${JSON.stringify(end)}`);
  }
}

export async function benchMemory(bench: WalBench): Promise<Figure[]> {
  const figures: Figure[] = [];
  const log = testLog();
  for (const [round, count] of COUNTS.entries()) {
    const clients = await Promise.all(
      memoryClusters.slice(0, count).map((clusterName) => {
        const { cert, key } = bench.certificates.client(clusterName);
        const tls = { serverCertPath: bench.certificates.caCert, clientCertPath: cert, clientKeyPath: key };
        return connectWal({ address: bench.serverAddress, tls, clusterName, telemetry: noTelemetry(), log });
      }),
    );
    forgetPeak(bench.serverPid);
    await Promise.all(clients.map((client) => stream(client, 1 + round * SEGMENTS)));
    const { peakMiB } = usageOf(bench.serverPid);
    for (const client of clients) client.close();
    const bound = 150 + 3 * count;
    figures.push({ name: `memory of the server, ${count} streams`, value: peakMiB, unit: "MiB", bound });
  }
  return figures;
}
