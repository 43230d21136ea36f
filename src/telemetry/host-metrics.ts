// What the machine and the process spend, from /proc, under the names of OpenTelemetry's host instrumentation.
import { readFileSync } from "node:fs";
import { cpus, freemem, totalmem } from "node:os";
import type { BatchObservableResult, Meter } from "@opentelemetry/api";

const NETWORK = "/proc/net/dev";

function textOf(file: string): string {
  try {
    return readFileSync(file, "utf8");
  } catch {
    return ""; // not Linux
  }
}

/** Bytes over all interfaces but the loopback one. */
export function networkBytes(text: string): { receive: number; transmit: number } {
  const sum = { receive: 0, transmit: 0 };
  for (const line of text.split("\n")) {
    const match = /^\s*([^:\s]+):\s*(.*)$/.exec(line);
    if (match === null || match[1] === "lo") continue;
    const columns = (match[2] ?? "").trim().split(/\s+/).map(Number);
    sum.receive += columns[0] ?? 0;
    sum.transmit += columns[8] ?? 0;
  }
  return sum;
}

/** Memory that can be had without swapping counts as free. */
export function memoryBytes(text: string): { used: number; free: number } {
  const value = (name: string) =>
    Number(new RegExp(`^${name}:\\s+(\\d+) kB`, "m").exec(text)?.[1] ?? Number.NaN) * 1024;
  const total = value("MemTotal");
  const free = value("MemAvailable");
  if (Number.isFinite(total) && Number.isFinite(free)) return { used: total - free, free };
  return { used: totalmem() - freemem(), free: freemem() };
}

/** Seconds of all CPUs by mode. */
function cpuSeconds(): Record<"user" | "system" | "idle" | "other", number> {
  const sum = { user: 0, system: 0, idle: 0, other: 0 };
  for (const { times } of cpus()) {
    sum.user += times.user / 1000;
    sum.system += times.sys / 1000;
    sum.idle += times.idle / 1000;
    sum.other += (times.nice + times.irq) / 1000;
  }
  return sum;
}

export function observeHost(meter: Meter): void {
  const processCpu = meter.createObservableCounter("process.cpu.time", {
    unit: "s",
    description: "Total CPU seconds broken down by different CPU modes.",
  });
  const systemCpu = meter.createObservableCounter("system.cpu.time", {
    unit: "s",
    description: "Seconds each logical CPU spent on each mode.",
  });
  const memory = meter.createObservableUpDownCounter("system.memory.usage", {
    unit: "By",
    description: "Reports memory in use by state.",
  });
  const utilization = meter.createObservableGauge("system.memory.utilization", {
    unit: "1",
    description: "Percentage of memory bytes in use.",
  });
  const network = meter.createObservableCounter("system.network.io", {
    unit: "By",
    description: "The number of bytes transmitted and received.",
  });
  const observe = (result: BatchObservableResult) => {
    const { user, system } = process.cpuUsage();
    result.observe(processCpu, user / 1e6, { "cpu.mode": "user" });
    result.observe(processCpu, system / 1e6, { "cpu.mode": "system" });
    for (const [mode, seconds] of Object.entries(cpuSeconds()))
      result.observe(systemCpu, seconds, { "cpu.mode": mode });
    const bytes = memoryBytes(textOf("/proc/meminfo"));
    for (const [state, value] of Object.entries(bytes)) {
      result.observe(memory, value, { "system.memory.state": state });
      result.observe(utilization, value / (bytes.used + bytes.free), { "system.memory.state": state });
    }
    for (const [direction, value] of Object.entries(networkBytes(textOf(NETWORK))))
      result.observe(network, value, { "network.io.direction": direction });
  };
  meter.addBatchObservableCallback(observe, [processCpu, systemCpu, memory, utilization, network]);
}
