// The thread behind draw-chart.ts: one chart in, one picture out.
import { parentPort, workerData } from "node:worker_threads";
import { errorText } from "../errors.ts";
import { layoutChart } from "./chart-layout.ts";
import { chartSvg } from "./chart-svg.ts";
import type { Drawing } from "./draw-chart.ts";

async function draw(): Promise<Drawing> {
  try {
    return { kind: "drawn", svg: chartSvg(await layoutChart(workerData), { standalone: false }) };
  } catch (error) {
    return { kind: "failed", reason: errorText(error) };
  }
}

const drawing = await draw();
parentPort?.postMessage(drawing);
