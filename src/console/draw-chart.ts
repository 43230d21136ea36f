// Draws a chart in a thread of its own: the layout takes up to a second of CPU, during which a server must go on
// receiving WAL.
import { Worker } from "node:worker_threads";
import type { Chart } from "./chart.ts";

export type Drawing = { kind: "drawn"; svg: string } | { kind: "failed"; reason: string };

const WORKER = import.meta.url.endsWith(".ts")
  ? new URL("./draw-chart-worker.ts", import.meta.url)
  : new URL("./draw-chart-worker.js", import.meta.url);

/** The chart as SVG for the page. Rejects when the thread fails. */
export async function drawChart(chart: Chart): Promise<string> {
  const worker = new Worker(WORKER, { workerData: chart, name: "klio-chart" });
  worker.unref();
  try {
    const drawing = await new Promise<Drawing>((resolve, reject) => {
      worker.once("message", resolve);
      worker.once("error", reject);
      worker.once("exit", (status) => reject(new Error(`the drawing thread ended with status ${status}`)));
    });
    if (drawing.kind === "failed") throw new Error(drawing.reason);
    return drawing.svg;
  } finally {
    await worker.terminate();
  }
}
