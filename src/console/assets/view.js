// What the page knows, as plain data and pure functions; console.js draws it. Tested without a browser.
//   Z4. The page keeps no more steps per chart than the server does.
//   Z5. At a step of the past each actor is shown as that step left it: not begun yet, in its state of then, or unknown when
//       what it did last by then is no longer kept. Nothing of a later step shows.

/** An empty picture, before the first message. */
export function emptyView() {
  return { title: "Klio", window: 1, charts: [], actors: new Map(), steps: [] };
}

/** The whole picture. */
export function viewOf(hello) {
  return {
    title: hello.title,
    window: hello.window,
    charts: hello.charts,
    actors: new Map(hello.actors.map((row) => [row.key, row])),
    steps: hello.steps,
  };
}

/** The picture after an update. */
export function updated(view, update) {
  const actors = new Map(view.actors);
  for (const row of update.actors) actors.set(row.key, row);
  for (const key of update.gone) actors.delete(key);
  const steps = new Map(view.steps.map((step) => [step.seq, step]));
  for (const step of update.steps) steps.set(step.seq, step);
  return { ...view, charts: update.charts, actors, steps: lastOfEach([...steps.values()], view.window) };
}

/** The last `limit` steps of each chart, oldest first (Z4). */
function lastOfEach(steps, limit) {
  const counts = new Map();
  return steps
    .sort((a, b) => b.seq - a.seq)
    .filter(({ chart }) => {
      const count = (counts.get(chart) ?? 0) + 1;
      counts.set(chart, count);
      return count <= limit;
    })
    .reverse();
}

/** The steps of a chart, or of one actor of it (`actor` not 0), or of all charts (`chart` empty), oldest first. */
export function stepsOf(view, chart, actor) {
  return view.steps.filter((step) => (chart === "" || step.chart === chart) && (actor === 0 || step.actor === actor));
}

/** The actors of a chart, now or as step `seq` left them (Z5). */
export function rowsAt(view, chart, seq) {
  const rows = new Map([...view.actors].filter(([, row]) => row.chart === chart));
  if (seq === undefined) return [...rows.values()];
  const atMs = view.steps.find((step) => step.seq === seq)?.atMs ?? 0;
  const histories = new Map([...rows.keys()].map((key) => [key, []]));
  for (const step of stepsOf(view, chart, 0)) {
    const history = histories.get(step.actor);
    if (history === undefined) histories.set(step.actor, [step]);
    else history.push(step);
  }
  return [...histories].flatMap(([key, history]) => {
    const row = rowAt(rows.get(key), history, seq, atMs);
    return row === undefined ? [] : [row];
  });
}

function rowAt(row, history, seq, atMs) {
  const past = history.filter((step) => step.seq <= seq);
  const last = past.at(-1);
  if (last !== undefined) {
    const { actor: key, chart, id, state, status, fields } = last;
    const first = past.findLastIndex((step) => step.state !== state || step.status !== status) + 1;
    return { key, parent: row?.parent ?? 0, chart, id, state, status, fields, sinceMs: past[first]?.atMs ?? last.atMs };
  }
  const [next] = history;
  if (next?.event === "started") return undefined;
  const wasThere = row !== undefined && row.sinceMs <= atMs;
  if (next !== undefined)
    return wasThere ? { ...row, fields: {} } : unknownRow(row ?? { ...next, key: next.actor, parent: 0 });
  if (row === undefined) return undefined;
  return wasThere ? row : unknownRow(row);
}

function unknownRow({ key, parent, chart, id }) {
  return { key, parent, chart, id, state: "", status: "unknown", fields: {}, sinceMs: 0 };
}

/** Paths of all active states of a chart, the chart's own included, for a state as the server writes it ("a.b & c"). */
export function activePaths(chart, state) {
  const paths = new Set([chart]);
  for (const part of state.split(" & ")) {
    if (part === "") continue;
    const names = part.split(".");
    for (let length = 1; length <= names.length; length++) paths.add([chart, ...names.slice(0, length)].join("."));
  }
  return [...paths];
}

/** How many actors are in each state, by its path. `inState` counts by state as the server writes it. */
export function countsOf(chart, inState) {
  const counts = new Map();
  for (const [state, count] of Object.entries(inState))
    for (const path of activePaths(chart, state)) counts.set(path, (counts.get(path) ?? 0) + count);
  return counts;
}

/** Counts by state of living actors, of rows as they were. */
export function tally(rows) {
  const inState = {};
  for (const { status, state } of rows) if (status === "active") inState[state] = (inState[state] ?? 0) + 1;
  return inState;
}

/** The step to stand on after `by` steps to either side; undefined: live. `seq` undefined: live. */
export function stepBeside(steps, seq, by) {
  const at = seq === undefined ? steps.length : steps.findLastIndex((step) => step.seq <= seq);
  const next = Math.max(0, at + by);
  return steps[next]?.seq;
}

/** A span of time in the two largest units. */
export function spanText(ms) {
  const seconds = Math.max(0, Math.floor(ms / 1000));
  if (seconds < 60) return `${seconds} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} min ${seconds % 60} s`;
  const hours = Math.floor(minutes / 60);
  return hours < 48 ? `${hours} h ${minutes % 60} min` : `${Math.floor(hours / 24)} d ${hours % 24} h`;
}
