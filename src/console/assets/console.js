// The console's page: what view.js holds, drawn. All texts go in as text, never as markup; the pictures come from this
// server as XML.
import {
  activePaths,
  countsOf,
  emptyView,
  rowsAt,
  spanText,
  stepBeside,
  stepsOf,
  tally,
  updated,
  viewOf,
} from "./view.js";

/** More lines than this nobody reads, and each costs time to draw. */
const MAX_LINES = 200;
const ZOOM_STEP = 1.25;
const LARGEST_FIT = 1.4;
const SMALLEST_READABLE = 0.75;

const element = (id) => document.getElementById(id);
const pictures = new Map();
let view = emptyView();
/** What is looked at: a chart, one actor of it (0: all), a step of the past (undefined: live). */
let chosen = { chart: "", actor: 0, seq: undefined };
let skewMs = 0;
/** "readable": as large as the window allows, but not smaller than can be read; "whole": all of it; or a scale. */
let zoom = "readable";
/** What was last scrolled to, in the picture and in the list of steps. */
let seen = "";
let seenSeq;
let isDue = false;

function make(tag, className = "", text = "") {
  const node = document.createElement(tag);
  if (className !== "") node.className = className;
  if (text !== "") node.textContent = text;
  return node;
}

/** A name that is cut at its start when there is no room; of an actor of the chart that is shown, without the chart. */
function makeName(tag, className, text) {
  const node = make(tag, `${className} name-end`);
  node.append(make("bdi", "", text));
  node.title = text;
  return node;
}

const shortName = (id, chart) => (id.startsWith(`${chart}:`) ? id.slice(chart.length + 1) : id);

function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** Makes `list` show `items`, keeping the nodes of those that stay: a click must find the node it began on. */
function sync(list, items, keyOf, create, update) {
  const known = new Map([...list.children].map((node) => [node.dataset.key, node]));
  let place = list.firstElementChild;
  for (const item of items) {
    const key = String(keyOf(item));
    const node = known.get(key) ?? create(item);
    known.delete(key);
    node.dataset.key = key;
    update(node, item);
    if (node === place) place = place.nextElementSibling;
    else list.insertBefore(node, place);
  }
  for (const node of known.values()) node.remove();
}

const timeFormat = new Intl.DateTimeFormat(undefined, { timeStyle: "medium", hour12: false });
const timeText = (ms) => `${timeFormat.format(ms)}.${String(Math.floor(ms % 1000)).padStart(3, "0")}`;
const stateShown = (state, status) => {
  if (status === "unknown") return "not kept";
  return state === "" ? status : state;
};

function choose(next) {
  chosen = { ...chosen, ...next };
  const hash = `#${chosen.chart}${chosen.actor === 0 ? "" : `/${chosen.actor}`}`;
  if (location.hash !== hash) history.replaceState(null, "", hash);
  draw();
}

function readHash() {
  const [, chart = "", actor = "0"] = /^#([^/]*)(?:\/(\d+))?$/.exec(location.hash) ?? [];
  chosen = { chart, actor: Number(actor), seq: undefined };
  draw();
}

/** What was chosen may be gone after a restart of the server; without a choice the first chart is shown. */
function settleChoice() {
  if (view.charts.length === 0) return;
  const isKnown = view.charts.some(({ chart }) => chart === chosen.chart);
  if (!isKnown) chosen = { chart: view.charts[0].chart, actor: 0, seq: undefined };
  const isThere = view.actors.has(chosen.actor) || view.steps.some(({ actor }) => actor === chosen.actor);
  if (chosen.actor !== 0 && !isThere) chosen.actor = 0;
  if (chosen.seq !== undefined && !view.steps.some(({ seq }) => seq === chosen.seq)) {
    const [oldest] = travelSteps(); // it fell out of the window: stay as near as can be
    chosen.seq = oldest?.seq;
  }
}

const travelSteps = () => stepsOf(view, element("all").checked ? "" : chosen.chart, chosen.actor);

function drawCharts() {
  sync(
    element("charts"),
    view.charts,
    ({ chart }) => chart,
    ({ chart }) => {
      const item = make("li");
      const button = make("button");
      button.type = "button";
      button.append(make("span", "chart-name", chart), make("span", "count"));
      button.addEventListener("click", () => choose({ chart, actor: 0, seq: undefined }));
      item.append(button);
      return item;
    },
    (item, { chart, living, ended }) => {
      const [button] = item.children;
      button.setAttribute("aria-current", String(chart === chosen.chart));
      button.classList.toggle("idle", living === 0);
      button.title = `${living} living, ${ended} ended`;
      setText(button.lastElementChild, String(living));
    },
  );
}

function drawRows(rows) {
  const order = { active: 0, unknown: 1 };
  const sorted = [...rows].sort((a, b) => (order[a.status] ?? 2) - (order[b.status] ?? 2) || b.sinceMs - a.sinceMs);
  const now = chosen.seq === undefined ? Date.now() + skewMs : (stepAt(chosen.seq)?.atMs ?? 0);
  const shown = sorted.slice(0, MAX_LINES);
  sync(
    element("rows"),
    shown,
    ({ key }) => key,
    ({ key, id, chart }) => {
      const row = make("tr");
      const name = make("td");
      const button = makeName("button", "link", shortName(id, chart));
      button.type = "button";
      name.append(button);
      row.append(name, make("td", "where"), make("td", "number"));
      row.addEventListener("click", () => choose({ actor: chosen.actor === key ? 0 : key }));
      return row;
    },
    (row, { key, state, status, sinceMs }) => {
      const [, where, since] = row.children;
      row.className = status;
      row.setAttribute("aria-selected", String(key === chosen.actor));
      setText(where, stateShown(state, status));
      where.title = status;
      setText(since, status === "unknown" ? "" : spanText(now - sinceMs));
    },
  );
  const chart = view.charts.find((each) => each.chart === chosen.chart);
  const living =
    chosen.seq === undefined ? (chart?.living ?? 0) : rows.filter(({ status }) => status === "active").length;
  const ended = chosen.seq === undefined ? (chart?.ended ?? 0) : rows.filter(({ status }) => status === "done").length;
  setText(element("actor-count"), `${living} living, ${ended} ended`);
  const unseen = Math.max(sorted.length, chosen.seq === undefined ? living : 0) - shown.length;
  setText(element("more"), unseen > 0 ? `and ${unseen} more` : "");
}

const stepAt = (seq) => view.steps.find((step) => step.seq === seq);

function drawSteps(steps) {
  const isMixed = element("all").checked;
  const at = chosen.seq === undefined ? steps.length : steps.findLastIndex(({ seq }) => seq <= chosen.seq);
  const end = Math.min(steps.length, at + MAX_LINES / 2);
  sync(
    element("steps"),
    steps.slice(Math.max(0, end - MAX_LINES), end).reverse(),
    ({ seq }) => (isMixed ? `${seq} of all` : seq),
    ({ seq, chart, id }) => {
      const item = make("li");
      const button = make("button");
      button.type = "button";
      const what = make("span", "what");
      what.append(make("span", "event"), make("span", "times"), make("span", "where"));
      button.append(make("time"), makeName("span", "who", isMixed ? id : shortName(id, chart)), what);
      button.title = `${chart}: ${id}`;
      button.addEventListener("click", () =>
        choose({ chart, seq, actor: stepAt(seq)?.actor === chosen.actor ? chosen.actor : 0 }),
      );
      item.append(button);
      return item;
    },
    (item, { seq, atMs, event, state, status, edges, times }) => {
      const [button] = item.children;
      const [event_, times_, where] = button.lastElementChild.children;
      item.className = `${status} ${edges.length === 0 && event !== "started" ? "ignored" : ""}`;
      button.setAttribute("aria-current", String(seq === chosen.seq));
      setText(button.firstElementChild, timeText(atMs));
      setText(event_, event);
      setText(times_, times > 1 ? `×${times}` : "");
      setText(where, stateShown(state, status));
    },
  );
  if (chosen.seq === seenSeq) return;
  seenSeq = chosen.seq;
  if (seenSeq === undefined) element("steps").scrollTop = 0;
  else element("steps").querySelector('[aria-current="true"]')?.scrollIntoView({ block: "nearest" });
}

function drawTravel(steps) {
  const slider = element("slider");
  const at = chosen.seq === undefined ? steps.length : steps.findLastIndex(({ seq }) => seq <= chosen.seq);
  slider.max = String(steps.length);
  slider.value = String(at);
  slider.disabled = steps.length === 0;
  const step = chosen.seq === undefined ? undefined : stepAt(chosen.seq);
  document.body.classList.toggle("past", step !== undefined);
  element("live").setAttribute("aria-pressed", String(step === undefined));
  element("back").disabled = at <= 0;
  element("forth").disabled = step === undefined;
  slider.setAttribute("aria-valuetext", step === undefined ? "live" : `${step.event}, ${timeText(step.atMs)}`);
  setText(
    element("when"),
    step === undefined
      ? `live · ${steps.length} ${steps.length === 1 ? "step" : "steps"} kept`
      : `step ${at + 1} of ${steps.length} · ${timeText(step.atMs)} · ${step.id}: ${step.event}`,
  );
}

async function loadPicture(chart) {
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
  draw();
}

function pictureOf(chart) {
  if (!pictures.has(chart)) {
    pictures.set(chart, make("p", "empty", "Drawing the statechart."));
    void loadPicture(chart);
  }
  return pictures.get(chart);
}

function drawPicture(rows, last) {
  const sheet = element("sheet");
  if (chosen.chart === "") return;
  const picture = pictureOf(chosen.chart);
  if (sheet.firstElementChild !== picture) sheet.replaceChildren(picture);
  if (picture.nodeName !== "svg") return;
  resize(picture, sheet);
  const row = rows.find(({ key }) => key === chosen.actor);
  const summary = view.charts.find(({ chart }) => chart === chosen.chart);
  const inState = chosen.seq === undefined ? (summary?.inState ?? {}) : tally(rows);
  const counts =
    row === undefined
      ? countsOf(chosen.chart, inState)
      : new Map(row.status === "unknown" ? [] : activePaths(chosen.chart, row.state).map((path) => [path, 1]));
  const hasCounts = row === undefined && (counts.get(chosen.chart) ?? 0) > 1;
  const edges = new Set(last?.edges ?? []);
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
  showActive(picture, row ?? (rows.length === 1 ? rows[0] : undefined));
}

/** Scrolls to the state that one actor came into, when it is out of sight. */
function showActive(picture, row) {
  const sight = `${chosen.chart} ${row?.key} ${row?.state}`;
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
  const scale = { readable: Math.max(whole, SMALLEST_READABLE), whole }[zoom] ?? zoom;
  picture.setAttribute("width", String(Math.round(width * scale)));
  picture.setAttribute("height", String(Math.round(height * scale)));
  sheet.dataset.scale = String(scale);
}

function drawShown(rows) {
  const row = rows.find(({ key }) => key === chosen.actor);
  const all = row ?? (rows.length === 1 ? rows[0] : undefined);
  setText(element("shown"), row === undefined ? chosen.chart : row.id);
  setText(element("state"), all === undefined ? "" : stateShown(all.state, all.status));
  element("state").className = all?.status ?? "";
  sync(
    element("fields"),
    Object.entries(all?.fields ?? {}),
    ([name]) => name,
    ([name]) => {
      const field = make("div");
      field.append(make("dt", "", name), make("dd"));
      return field;
    },
    (field, [, value]) => setText(field.lastElementChild, String(value)),
  );
}

function drawNow() {
  isDue = false;
  settleChoice();
  const rows = rowsAt(view, chosen.chart, chosen.seq);
  const steps = travelSteps();
  const last = chosen.seq === undefined ? stepsOf(view, chosen.chart, chosen.actor).at(-1) : stepAt(chosen.seq);
  setText(element("title"), view.title);
  document.title = view.title;
  drawCharts();
  drawRows(rows);
  drawSteps(steps);
  drawTravel(steps);
  drawShown(rows);
  drawPicture(rows, last);
}

/** Once per frame, however much comes. */
function draw() {
  if (isDue) return;
  isDue = true;
  requestAnimationFrame(drawNow);
}

function travel(by) {
  const steps = travelSteps();
  const seq = stepBeside(steps, chosen.seq, by);
  travelTo(seq);
}

function travelTo(seq) {
  const step = seq === undefined ? undefined : stepAt(seq);
  choose({ seq, ...(step !== undefined && step.chart !== chosen.chart && { chart: step.chart, actor: 0 }) });
}

function setZoom(scale) {
  zoom = Math.min(4, Math.max(0.2, scale));
  draw();
}

function connect() {
  const link = element("link");
  const source = new EventSource("events");
  const tell = (isLive, text) => {
    link.className = isLive ? "live" : "lost";
    setText(link, text);
  };
  source.addEventListener("hello", (event) => {
    const hello = JSON.parse(event.data);
    view = viewOf(hello);
    skewMs = hello.nowMs - Date.now();
    for (const [chart, picture] of pictures) if (picture.nodeName !== "svg") pictures.delete(chart);
    tell(true, "live");
    draw();
  });
  source.addEventListener("update", (event) => {
    view = updated(view, JSON.parse(event.data));
    draw();
  });
  source.addEventListener("error", () => {
    tell(false, "not connected; what is shown may be old");
    // The browser gives up after an answer such as 503; a new source begins anew.
    if (source.readyState === EventSource.CLOSED) setTimeout(connect, 5_000);
  });
}

element("back").addEventListener("click", () => travel(-1));
element("forth").addEventListener("click", () => travel(1));
element("live").addEventListener("click", () => choose({ seq: undefined }));
element("slider").addEventListener("input", ({ target }) => travelTo(travelSteps()[Number(target.value)]?.seq));
element("all").addEventListener("change", draw);
element("smaller").addEventListener("click", () => setZoom(Number(element("sheet").dataset.scale ?? 1) / ZOOM_STEP));
element("larger").addEventListener("click", () => setZoom(Number(element("sheet").dataset.scale ?? 1) * ZOOM_STEP));
element("fit").addEventListener("click", () => {
  zoom = zoom === "whole" ? "readable" : "whole";
  draw();
});
addEventListener("hashchange", readHash);
addEventListener("resize", draw);
addEventListener("keydown", (event) => {
  if (event.target instanceof HTMLInputElement || event.altKey || event.ctrlKey || event.metaKey) return;
  if (event.key === "ArrowLeft") travel(-1);
  else if (event.key === "ArrowRight") travel(1);
  else if (event.key === "Escape") choose({ seq: undefined });
  else return;
  event.preventDefault();
});
setInterval(draw, 1_000); // ages
readHash();
connect();
