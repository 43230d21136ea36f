import { expect, test } from "vitest";
import { memoryBytes, networkBytes } from "../../../src/telemetry/host-metrics.ts";

test("bytes of all interfaces but the loopback one", () => {
  const text = `Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo: 999999 10 0 0 0 0 0 0 999999 10 0 0 0 0 0 0
  eth0:   1000 10 0 0 0 0 0 0   2000 10 0 0 0 0 0 0
  eth1:1 10 0 0 0 0 0 0 2 10 0 0 0 0 0 0
`;
  expect(networkBytes(text)).toEqual({ receive: 1001, transmit: 2002 });
  expect(networkBytes("")).toEqual({ receive: 0, transmit: 0 });
});

test("memory that can be had counts as free; without /proc what the system says", () => {
  expect(memoryBytes("MemTotal:       100 kB\nMemFree: 1 kB\nMemAvailable:    40 kB\n")).toEqual({
    used: 60 * 1024,
    free: 40 * 1024,
  });
  const { used, free } = memoryBytes("");
  expect(used).toBeGreaterThan(0);
  expect(free).toBeGreaterThan(0);
});
