// Places a chart's states, transitions and texts in the plane. The settings were found by looking at pictures; each of
// the less obvious ones carries its reason.
//   Z2. The same chart gives the same picture every time.
import elk, { type ElkExtendedEdge, type ElkNode } from "elkjs/lib/elk.bundled.js";
import type { Chart, ChartEdge, ChartState } from "./chart.ts";

type Point = { x: number; y: number };
export type Box = Point & { width: number; height: number };
export type PlacedState = Box & { state: ChartState; depth: number; lines: string[] };
export type PlacedEdge = {
  source: string;
  target: string;
  /** Ids of the transitions that this line stands for. */
  ids: string[];
  title: string;
  points: Point[];
  label?: Box & { lines: string[] };
};
export type PlacedChart = {
  chart: string;
  width: number;
  height: number;
  states: PlacedState[];
  dots: Box[];
  edges: PlacedEdge[];
};

export const TITLE_PX = 13;
export const TEXT_PX = 11;
export const LINE_PX = 15;
const TITLE_CHARACTER_PX = 7.6;
const TEXT_CHARACTER_PX = 6.3;
const PADDING_PX = 12;
const DOT_PX = 10;

/** A label longer than this is cut; the whole text is in the tooltip. */
const MAX_CHARACTERS = 44;
const cut = (text: string) => (text.length > MAX_CHARACTERS ? `${text.slice(0, MAX_CHARACTERS - 1)}…` : text);
const textWidth = (lines: readonly string[]) =>
  Math.ceil(Math.max(0, ...lines.map((line) => line.length)) * TEXT_CHARACTER_PX);

/** What a transition does, in one line. */
function edgeText(edge: ChartEdge, withActions: boolean): string {
  const guard = edge.guard === "" ? "" : `[${edge.guard}]`;
  const actions = withActions && edge.actions.length > 0 ? `/ ${edge.actions.join(", ")}` : "";
  const text = [edge.event, guard, actions].filter((part) => part !== "").join(" ");
  return text === "" ? "otherwise" : text;
}

/** Lines below a state's name: its actors, its span, and the transitions that change no state. */
function linesOf(state: ChartState, edges: readonly ChartEdge[]): string[] {
  const span = state.telemetry?.span;
  const inner = edges.filter((edge) => edge.source === state.id && edge.targets.length === 0);
  return [
    ...state.invokes.map((name) => `▸ ${name}`),
    ...(span === undefined ? [] : [`◷ ${span}`]),
    ...inner.map((edge) => edgeText(edge, true)),
  ].map(cut);
}

type Group = { source: string; target: string; edges: ChartEdge[] };

/** One line per pair of states, however many transitions lead from one to the other: fewer lines, same meaning. */
function groupsOf(edges: readonly ChartEdge[]): Group[] {
  const groups = new Map<string, Group>();
  for (const edge of edges)
    for (const target of edge.targets) {
      const key = `${edge.source}>${target}`;
      const group = groups.get(key) ?? { source: edge.source, target, edges: [] };
      group.edges.push(edge);
      groups.set(key, group);
    }
  return [...groups.values()];
}

/** For the sheet. ELK's own distances are right: what is set here for distances would not reach the charts' insides. */
const ROOT_OPTIONS = {
  "elk.algorithm": "layered",
  "elk.direction": "DOWN",
  // Transitions lead in and out of states.
  "elk.hierarchyHandling": "INCLUDE_CHILDREN",
  // All positions from the sheet's corner, as SVG wants them.
  "elk.json.shapeCoords": "ROOT",
  "elk.json.edgeCoords": "ROOT",
  "elk.layered.nodePlacement.strategy": "NETWORK_SIMPLEX",
};

type Sheet = { states: Map<string, PlacedState>; edges: readonly ChartEdge[] };

function nodeOf(state: ChartState, depth: number, sheet: Sheet): ElkNode {
  const lines = linesOf(state, sheet.edges);
  sheet.states.set(state.id, { state, depth, lines, x: 0, y: 0, width: 0, height: 0 });
  const width = Math.max(Math.ceil(state.name.length * TITLE_CHARACTER_PX), textWidth(lines)) + 2 * PADDING_PX;
  const head = 26 + lines.length * LINE_PX;
  if (state.states.length === 0) return { id: state.id, width: Math.max(width, 70), height: head + 6 };
  const children = state.states.map((child) => nodeOf(child, depth + 1, sheet));
  // Without the constraint the dot floats in the middle of the box and the flow runs upwards.
  const dot: ElkNode = {
    id: `${state.id}#initial`,
    width: DOT_PX,
    height: DOT_PX,
    layoutOptions: { "elk.layered.layering.layerConstraint": "FIRST" },
  };
  return {
    id: state.id,
    layoutOptions: {
      "elk.padding": `[top=${head + 10},left=16,bottom=16,right=16]`,
      "elk.nodeSize.constraints": "MINIMUM_SIZE",
      "elk.nodeSize.minimum": `(${width},${head})`,
    },
    children: state.initial === undefined ? children : [dot, ...children],
  };
}

function initialEdges(state: ChartState): ElkExtendedEdge[] {
  const own =
    state.initial === undefined
      ? []
      : [{ id: `initial|${state.id}`, sources: [`${state.id}#initial`], targets: [state.initial] }];
  return [...own, ...state.states.flatMap(initialEdges)];
}

/** Numbers the states in the order of the file. */
function orderOf(state: ChartState, order = new Map<string, number>()): Map<string, number> {
  order.set(state.id, order.size);
  for (const child of state.states) orderOf(child, order);
  return order;
}

/**
 * Whether a line leads back to a state that the file names earlier. Such lines are given to the layout turned round, so
 * that the flow runs down the picture in the order in which the author wrote the states.
 */
function leadsBack({ source, target }: Group, order: ReadonlyMap<string, number>): boolean {
  const isAround = (outer: string, inner: string) => inner === outer || inner.startsWith(`${outer}.`);
  if (isAround(source, target) || isAround(target, source)) return false;
  return (order.get(target) ?? 0) < (order.get(source) ?? 0);
}

function labelled(group: Group, index: number, isBack: boolean): ElkExtendedEdge {
  const lines = group.edges.map((edge) => cut(edgeText(edge, false)));
  return {
    id: `edge|${index}`,
    sources: [isBack ? group.target : group.source],
    targets: [isBack ? group.source : group.target],
    labels: [
      {
        text: lines.join("\n"),
        width: textWidth(lines) + 8,
        height: lines.length * LINE_PX,
        // Beside the line, labels between parallel lines are ambiguous.
        layoutOptions: { "elk.edgeLabels.inline": "true" },
      },
    ],
  };
}

const round = (value: number | undefined) => Math.round((value ?? 0) * 10) / 10;
const boxOf = (shape: { x?: number; y?: number; width?: number; height?: number }): Box => ({
  x: round(shape.x),
  y: round(shape.y),
  width: round(shape.width),
  height: round(shape.height),
});

function pointsOf(edge: ElkExtendedEdge): Point[] {
  return (edge.sections ?? []).flatMap((section) =>
    [section.startPoint, ...(section.bendPoints ?? []), section.endPoint].map(({ x, y }) => ({
      x: round(x),
      y: round(y),
    })),
  );
}

/** The picture of a chart (Z2). Takes a fraction of a second of CPU. */
export async function layoutChart(chart: Chart): Promise<PlacedChart> {
  const sheet: Sheet = { states: new Map(), edges: chart.edges };
  const root = nodeOf(chart.root, 0, sheet);
  const groups = groupsOf(chart.edges);
  const order = orderOf(chart.root);
  const back = groups.map((group) => leadsBack(group, order));
  const graph: ElkNode = {
    id: "sheet",
    layoutOptions: ROOT_OPTIONS,
    children: [root],
    edges: [...initialEdges(chart.root), ...groups.map((group, index) => labelled(group, index, back[index] === true))],
  };
  const placed: ElkNode = await new elk.default().layout(graph);
  const dots: Box[] = [];
  const walk = (node: ElkNode) => {
    const state = sheet.states.get(node.id);
    if (state !== undefined) Object.assign(state, boxOf(node));
    else if (node.id.endsWith("#initial")) dots.push(boxOf(node));
    for (const child of node.children ?? []) walk(child);
  };
  walk(placed);
  const drawn = new Map((placed.edges ?? []).map((edge) => [edge.id, edge]));
  const starts = initialEdges(chart.root).map(({ id, targets: [target = ""] }): PlacedEdge => {
    const edge = drawn.get(id);
    return { source: "", target, ids: [], title: "", points: edge === undefined ? [] : pointsOf(edge) };
  });
  const lines = groups.map((group, index): PlacedEdge => {
    const edge = drawn.get(`edge|${index}`);
    const label = edge?.labels?.[0];
    const points = edge === undefined ? [] : pointsOf(edge);
    return {
      source: group.source,
      target: group.target,
      ids: group.edges.map(({ id }) => id),
      title: group.edges.map((each) => edgeText(each, true)).join("\n"),
      points: back[index] === true ? points.reverse() : points,
      ...(label !== undefined && { label: { ...boxOf(label), lines: (label.text ?? "").split("\n") } }),
    };
  });
  return {
    chart: chart.id,
    width: Math.ceil(round(placed.width)),
    height: Math.ceil(round(placed.height)),
    states: [...sheet.states.values()],
    dots,
    edges: [...starts, ...lines],
  };
}
