// A chart's picture on the page: fetched once, then its states and lines are marked. It comes from this server as XML.
import { element, make, setText } from "./dom.js";
import { activePaths } from "./view.js";

const LARGEST_FIT = 1.4;
const SMALLEST_READABLE = 0.75;

/** By chart; a text while it is drawn, or when it cannot be. */
const pictures = new Map();
/** "readable": as large as the window allows, but not smaller than can be read; "whole": all of it; or a scale. */
let zoom = "readable";
let scale = 1;
/** What was last scrolled to. */
let seen = "";

export function scaleBy(factor) {
  zoom = Math.min(4, Math.max(0.2, scale * factor));
}

export function toggleFit() {
  zoom = zoom === "whole" ? "readable" : "whole";
}

/** Pictures that could not be had are asked for again. */
export function forgetFailures() {
  for (const [chart, picture] of pictures) if (picture.nodeName !== "svg") pictures.delete(chart);
}

async function loadPicture(chart, whenLoaded) {
  try {
    const response = await fetch(`charts/${encodeURIComponent(chart)}.svg`);
    if (!response.ok) throw new Error(await response.text());
    const text = await response.text();
    const { documentElement: svg } = new DOMParser().parseFromString(text, "image/svg+xml");
    if (svg.nodeName !== "svg") throw new Error("the picture is not well-formed");
    pictures.set(chart, document.importNode(svg, true));
  } catch (error) {
    pictures.set(chart, make("p", "empty", `The chart of ${chart} cannot be shown: ${error.message}`));
  }
  whenLoaded();
}

function pictureOf(chart, whenLoaded) {
  if (!pictures.has(chart)) {
    pictures.set(chart, make("p", "empty", "Drawing the statechart."));
    void loadPicture(chart, whenLoaded);
  }
  return pictures.get(chart);
}

/**
 * Shows a chart: for one actor (`row`) the states it is in, else how many actors are in each (`counts`, by path); with the
 * transitions of the last step (`edges`). The actor that is `followed` is kept in sight.
 */
export function drawPicture({ chart, row, counts: all, followed, edges: taken, whenLoaded }) {
  const sheet = element("sheet");
  const picture = pictureOf(chart, whenLoaded);
  if (sheet.firstElementChild !== picture) sheet.replaceChildren(picture);
  if (picture.nodeName !== "svg") return;
  resize(picture, sheet);
  const own = row === undefined || row.status === "unknown" ? [] : activePaths(chart, row.state);
  const counts = row === undefined ? all : new Map(own.map((path) => [path, 1]));
  const hasCounts = row === undefined && (counts.get(chart) ?? 0) > 1;
  const edges = new Set(taken);
  for (const node of picture.querySelectorAll("[data-state]")) {
    const count = counts.get(node.dataset.state) ?? 0;
    node.classList.toggle("active", count > 0);
    node.classList.toggle("failed", count > 0 && row?.status === "error");
    if (count > 0) node.setAttribute("aria-current", "true");
    else node.removeAttribute("aria-current");
    drawBadge(node, hasCounts ? count : 0);
  }
  for (const node of picture.querySelectorAll("[data-edges]"))
    node.classList.toggle(
      "taken",
      node.dataset.edges.split(" ").some((id) => edges.has(id)),
    );
  showActive(picture, `${chart} ${followed?.key} ${followed?.state} ${sheet.clientWidth}`);
}

/** Scrolls to the state that one actor came into, when it is out of sight. */
function showActive(picture, sight) {
  if (sight === seen) return;
  seen = sight;
  const sheet = element("sheet");
  const leaf = [...picture.querySelectorAll(".state.active")].at(-1)?.querySelector(".box").getBoundingClientRect();
  if (leaf === undefined) return;
  const frame = sheet.getBoundingClientRect();
  if (leaf.left < frame.left || leaf.right > frame.right)
    sheet.scrollLeft += (leaf.left + leaf.right - frame.left - frame.right) / 2;
  if (leaf.top < frame.top || leaf.bottom > frame.bottom)
    sheet.scrollTop += (leaf.top + leaf.bottom - frame.top - frame.bottom) / 2;
}

function drawBadge(node, count) {
  let badge = node.querySelector(":scope > .badge");
  if (count === 0) return badge?.remove();
  if (badge === null) {
    badge = document.createElementNS("http://www.w3.org/2000/svg", "g");
    badge.setAttribute("class", "badge");
    const box = node.querySelector(".box");
    const right = Number(box.getAttribute("x")) + Number(box.getAttribute("width"));
    const plate = document.createElementNS(badge.namespaceURI, "rect");
    const text = document.createElementNS(badge.namespaceURI, "text");
    text.setAttribute("text-anchor", "end");
    text.setAttribute("x", String(right - 5));
    text.setAttribute("y", String(Number(box.getAttribute("y")) + 4));
    text.setAttribute("font-size", "11");
    plate.setAttribute("y", String(Number(box.getAttribute("y")) - 8));
    plate.setAttribute("height", "16");
    plate.setAttribute("rx", "8");
    plate.dataset.right = String(right);
    badge.append(plate, text);
    node.append(badge);
  }
  const [plate, text] = badge.children;
  const width = 12 + 7 * String(count).length;
  plate.setAttribute("x", String(Number(plate.dataset.right) - width + 2));
  plate.setAttribute("width", String(width));
  setText(text, String(count));
}

function resize(picture, sheet) {
  const { width, height } = picture.viewBox.baseVal;
  const room = { width: sheet.clientWidth - 24, height: sheet.clientHeight - 24 };
  const whole = Math.min(LARGEST_FIT, room.width / width, room.height / height);
  scale = { readable: Math.max(whole, SMALLEST_READABLE), whole }[zoom] ?? zoom;
  picture.setAttribute("width", String(Math.round(width * scale)));
  picture.setAttribute("height", String(Math.round(height * scale)));
}
