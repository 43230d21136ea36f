// A placed chart as SVG. In the console the page's style sheet colours it (an inline style would be refused there); a
// picture that stands alone brings its own style, light, with the same classes.
//   Z3. Whatever the texts of a chart hold, the picture is well-formed XML and has no element or attribute but its own.
import {
  type Box,
  LINE_PX,
  type PlacedChart,
  type PlacedEdge,
  type PlacedState,
  TEXT_PX,
  TITLE_PX,
} from "./chart-layout.ts";

const ENTITIES: Record<string, string> = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&apos;" };
/** What XML 1.0 allows in no form, not even as a reference: control characters, lone surrogates, two non-characters. */
const NOT_XML = /[^\t\n\r\u{20}-\u{D7FF}\u{E000}-\u{FFFD}\u{10000}-\u{10FFFF}]/gu;

/** Text as it may stand in an element or between quotes (Z3). */
export function escapeXml(text: string): string {
  return text.replace(NOT_XML, "\u{FFFD}").replace(/[&<>"']/g, (character) => ENTITIES[character] ?? character);
}

const FONT = "font-family='system-ui, -apple-system, Segoe UI, Helvetica, Arial, sans-serif'";

/** Colours of a picture that stands alone. */
const STANDALONE_STYLE = `
  .sheet { fill: #ffffff; }
  .box { fill: #ffffff; stroke: #9aa5b1; stroke-width: 1.2; }
  .depth-0 > .box { fill: #fbfcfd; stroke: #cbd2d9; }
  .depth-1 > .box { fill: #ffffff; }
  .compound.depth-1 > .box, .parallel.depth-1 > .box { fill: #f5f7fa; }
  .final > .box { fill: #eef1f4; }
  .inner { fill: none; stroke: #9aa5b1; }
  .name { fill: #1f2933; font-weight: 600; }
  .note { fill: #616e7c; }
  .line { fill: none; stroke: #7b8794; stroke-width: 1.2; }
  .head { fill: #7b8794; }
  .dot { fill: #52606d; }
  .label { fill: #323f4b; paint-order: stroke; stroke: #ffffff; stroke-width: 4px; stroke-linejoin: round; }
`;

function textLines(lines: readonly string[], x: number, y: number, attributes: string): string {
  return lines
    .map((line, index) => `<text x="${x}" y="${y + index * LINE_PX}" ${attributes}>${escapeXml(line)}</text>`)
    .join("");
}

function stateShape({ state, depth, lines, x, y, width, height }: PlacedState): string {
  const tooltip = [state.name, state.description].filter((part) => part !== "").join(": ");
  const inner =
    state.kind === "final"
      ? `<rect class="inner" x="${x + 3}" y="${y + 3}" width="${width - 6}" height="${height - 6}" rx="6"/>`
      : "";
  const isLeaf = state.states.length === 0;
  const middle = x + width / 2;
  const anchor = isLeaf ? `text-anchor="middle"` : "";
  const left = isLeaf ? middle : x + 12;
  return [
    `<g class="state ${state.kind} depth-${Math.min(depth, 3)}" data-state="${escapeXml(state.id)}">`,
    `<title>${escapeXml(tooltip)}</title>`,
    `<rect class="box" x="${x}" y="${y}" width="${width}" height="${height}" rx="8"/>${inner}`,
    `<text class="name" x="${left}" y="${y + 20}" font-size="${TITLE_PX}" ${anchor}>${escapeXml(state.name)}</text>`,
    textLines(lines, left, y + 20 + LINE_PX, `class="note" font-size="${TEXT_PX}" ${anchor}`),
    "</g>",
  ].join("");
}

function edgeLine(edge: PlacedEdge): string {
  const path = edge.points.map(({ x, y }, index) => `${index === 0 ? "M" : "L"}${x} ${y}`).join("");
  const data =
    edge.ids.length === 0
      ? ""
      : ` data-source="${escapeXml(edge.source)}" data-target="${escapeXml(edge.target)}" data-edges="${escapeXml(edge.ids.join(" "))}"`;
  const title = edge.title === "" ? "" : `<title>${escapeXml(edge.title)}</title>`;
  return `<g class="edge"${data}>${title}<path class="line" d="${path}" marker-end="url(#head)"/></g>`;
}

function edgeLabel(edge: PlacedEdge): string {
  const { label } = edge;
  if (label === undefined) return "";
  const attributes = `class="label" font-size="${TEXT_PX}" text-anchor="middle"`;
  const lines = textLines(label.lines, label.x + label.width / 2, label.y + 11, attributes);
  return `<g class="edge-label" data-edges="${escapeXml(edge.ids.join(" "))}"><title>${escapeXml(edge.title)}</title>${lines}</g>`;
}

const dot = ({ x, y, width }: Box) =>
  `<circle class="dot" cx="${x + width / 2}" cy="${y + width / 2}" r="${width / 2 - 1}"/>`;

/** The whole picture; `standalone` brings its own colours and background. Ends in a line feed. */
export function chartSvg(chart: PlacedChart, { standalone }: { standalone: boolean }): string {
  const { width, height } = chart;
  const style = standalone ? `<style>${STANDALONE_STYLE}</style><rect class="sheet" width="100%" height="100%"/>` : "";
  return `${[
    `<svg xmlns="http://www.w3.org/2000/svg" class="chart" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" role="img" aria-label="statechart ${escapeXml(chart.chart)}" ${FONT}>`,
    // userSpaceOnUse: else the arrow grows with the line when the last transition is drawn bold.
    `<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" markerUnits="userSpaceOnUse" orient="auto"><path class="head" d="M0 0.8L8 4L0 7.2Z"/></marker></defs>`,
    ...(style === "" ? [] : [style]),
    ...chart.states.map(stateShape),
    ...chart.edges.map(edgeLine),
    ...chart.dots.map(dot),
    ...chart.edges.map(edgeLabel),
    "</svg>",
  ]
    .filter((line) => line !== "")
    .join("\n")}\n`;
}
