// The console's page: what view.js holds, drawn.
import { element, make, makeName, setText, sync } from "./dom.js";
import { drawPicture, forgetFailures, scaleBy, toggleFit } from "./picture.js";
import { countsOf, emptyView, rowsAt, spanText, stepBeside, stepsOf, tally, updated, viewOf } from "./view.js";

/** More lines than this nobody reads, and each costs time to draw. */
const MAX_LINES = 200;
const ZOOM_STEP = 1.25;

let view = emptyView();
/** What is looked at: a chart, one actor of it (0: all), a step of the past (undefined: live). */
let chosen = { chart: "", actor: 0, seq: undefined };
let skewMs = 0;
/** The step that the list of steps was last scrolled to. */
let seenSeq;
let isDue = false;

/** Of an actor of the chart that is shown, without the chart. */
const shortName = (id, chart) => (id.startsWith(`${chart}:`) ? id.slice(chart.length + 1) : id);

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
  if (chosen.chart === "") return;
  const row = rows.find(({ key }) => key === chosen.actor);
  const summary = view.charts.find(({ chart }) => chart === chosen.chart);
  const inState = chosen.seq === undefined ? (summary?.inState ?? {}) : tally(rows);
  drawPicture({
    chart: chosen.chart,
    row,
    counts: countsOf(chosen.chart, inState),
    followed: row ?? (rows.length === 1 ? rows[0] : undefined),
    edges: last?.edges ?? [],
    whenLoaded: draw,
  });
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
    forgetFailures();
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
for (const [id, change] of [
  ["smaller", () => scaleBy(1 / ZOOM_STEP)],
  ["larger", () => scaleBy(ZOOM_STEP)],
  ["fit", toggleFit],
])
  element(id).addEventListener("click", () => {
    change();
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
