// What several benches send and measure.
import { walSegment } from "../test/support/wal-bytes.ts";

/** CPU seconds of this process since then. */
export function cpuSeconds(since: NodeJS.CpuUsage): number {
  const { user, system } = process.cpuUsage(since);
  return (user + system) / 1e6;
}

const PAGE_BYTES = 8192;

/** A segment of which `randomBytes` of each page are random: the fewer, the better it compresses. */
export function segmentLikeWal(name: string, segmentBytes: number, randomBytes: number): Buffer {
  const bytes = walSegment(name, segmentBytes);
  for (let at = 0; at < segmentBytes; at += PAGE_BYTES) bytes.fill(at / PAGE_BYTES, at + randomBytes, at + PAGE_BYTES);
  return bytes;
}
