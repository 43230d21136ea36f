import { expect, test } from "vitest";
import type { Chart, ChartState } from "../../../src/console/chart.ts";
import { chartOf } from "../../../src/console/chart.ts";
import { layoutChart } from "../../../src/console/chart-layout.ts";
import { chartSvg, escapeXml } from "../../../src/console/chart-svg.ts";
import { drawChart } from "../../../src/console/draw-chart.ts";
import { small } from "./small-chart.ts";

test("Z2: the same chart is placed the same way each time", async () => {
  const [first, second] = [await layoutChart(chartOf(small)), await layoutChart(structuredClone(chartOf(small)))];
  expect(second).toEqual(first);
});

test("Z2: another thread draws the same picture", async () => {
  expect(await drawChart(chartOf(small))).toBe(chartSvg(await layoutChart(chartOf(small)), { standalone: false }));
});

test("Z2: all of a chart is placed, children within their parents, lines with an end", async () => {
  const placed = await layoutChart(chartOf(small));
  const boxes = new Map(placed.states.map((each) => [each.state.id, each]));
  for (const { state, x, y, width, height } of placed.states)
    for (const child of state.states) {
      const inner = boxes.get(child.id)!;
      expect(inner.x).toBeGreaterThan(x);
      expect(inner.y).toBeGreaterThan(y);
      expect(inner.x + inner.width).toBeLessThan(x + width);
      expect(inner.y + inner.height).toBeLessThan(y + height);
    }
  expect(placed.edges.every(({ points }) => points.length >= 2)).toBe(true);
  // Two ways from idle to judging are one line; a transition that changes no state is a text in its state.
  expect(placed.edges.find(({ source }) => source === "small.idle")?.ids).toEqual([
    "small.idle|go|0",
    "small.idle|go|1",
  ]);
  expect(boxes.get("small.busy")?.lines).toEqual(["▸ work", "◷ work", "tick / count"]);
});

/** Elements of well-formed XML with the names of their attributes; fails on anything else. */
function elementsOf(xml: string): string[] {
  const found: string[] = [];
  const open: string[] = [];
  const token = /<(\/?)([a-zA-Z]+)((?:\s+[\w:-]+=(?:"[^"<]*"|'[^'<]*'))*)\s*(\/?)>|([^<]+)/gy;
  let at = 0;
  for (const match of xml.matchAll(token)) {
    const [all, end, name = "", attributes = "", empty, text = ""] = match;
    expect(match.index).toBe(at);
    at += all.length;
    for (const part of [text, attributes]) expect(part.replace(/&(amp|lt|gt|quot|apos);/g, "")).not.toMatch(/&/);
    if (name === "") continue;
    if (end === "/") expect(open.pop()).toBe(name);
    else
      found.push([name, ...[...attributes.matchAll(/([\w:-]+)=(?:"[^"]*"|'[^']*')/g)].map(([, key]) => key)].join(" "));
    if (end === "" && empty === "") open.push(name);
  }
  expect(at).toBe(xml.length);
  expect(open).toEqual([]);
  return found;
}

const evil = `"><script>alert('x')</script><g onload="alert(1)" a='&lt;&#1;\u0000\u001b\ud800]]>`;
const kind = "atomic";
const leaf = (id: string, text: string): ChartState => {
  return { id, name: text, kind, description: text, invokes: [text], states: [], telemetry: { span: text } };
};
const chartWith = (text: string): Chart => ({
  id: text,
  root: { ...leaf("m", text), kind: "compound", states: [leaf(`m.a${text}`, text), leaf(`m.b${text}`, text)] },
  edges: [
    { id: text, source: `m.a${text}`, targets: [`m.b${text}`], event: text, guard: text, actions: [text] },
    { id: text, source: `m.a${text}`, targets: [], event: text, guard: text, actions: [text] },
  ],
});

test("Z3: no text of a chart becomes an element or an attribute", async () => {
  for (const standalone of [true, false]) {
    const harmless = chartSvg(await layoutChart(chartWith("x")), { standalone });
    const harmful = chartSvg(await layoutChart(chartWith(evil)), { standalone });
    expect(elementsOf(harmful)).toEqual(elementsOf(harmless));
    // biome-ignore lint/suspicious/noControlCharactersInRegex: these are what must not be there
    expect(harmful).not.toMatch(/[\u0000-\u0008\u000b\u000c\u000e-\u001f]|\p{Surrogate}/u);
  }
});

test("Z3: text is escaped, and what XML cannot hold is replaced", () => {
  expect(escapeXml(`<a b="c" d='e'>&`)).toBe("&lt;a b=&quot;c&quot; d=&apos;e&apos;&gt;&amp;");
  expect(escapeXml("a\u0000b\u001b\ud800c\uffff")).toBe("a\ufffdb\ufffd\ufffdc\ufffd");
  expect(escapeXml("tab\tline\n▸ 🚀")).toBe("tab\tline\n▸ 🚀");
});
