// Names of telemetry: every row is used, every used name is a row. That machines use rows with the right tracer, attributes
// and labels is in test/unit/telemetry/names.test.ts.
import { codeOnly, lineAt, type Source, withoutComments } from "./sources.ts";

/** Rows of a table that nothing uses though they are promised, each with the reason. */
export type Gaps = Readonly<Record<string, string>>;

/** Rows that no source names and that are no gap, and gaps that are none any more. `of`: what a row is. */
export function unusedRows(of: string, rows: readonly string[], used: ReadonlySet<string>, gaps: Gaps): string[] {
  return [
    ...rows
      .filter((row) => !used.has(row) && gaps[row] === undefined)
      .map((row) => `${of} ${row} is never used: use it, or remove its row`),
    ...Object.keys(gaps)
      .filter((row) => used.has(row) || !rows.includes(row))
      .map((row) => `${of} ${row} is no gap any more: remove it from the list of gaps`),
  ];
}

/** Names that stand as texts in the sources. */
export function literalsIn(sources: readonly Source[], pattern: RegExp): Set<string> {
  return new Set(
    sources.flatMap(({ text }) =>
      [...withoutComments(text).matchAll(/"([^"\\\n]+)"/g)]
        .map(([, literal = ""]) => literal)
        .filter((literal) => pattern.test(literal)),
    ),
  );
}

const MOVE = /\.(?:add|set|adjust|flag|record|observe|hydrate)\(\s*"(klio\.[^"]+)"/g;

/** Instruments that are moved under a name that is no row: they would be dropped at run time. */
export function unknownInstruments(sources: readonly Source[], known: ReadonlySet<string>): string[] {
  return sources.flatMap(({ path, text }) =>
    [...withoutComments(text).matchAll(MOVE)]
      .filter(([, name = ""]) => !known.has(name))
      .map(
        ({ 1: name, index }) =>
          `${path}:${lineAt(text, index)}: ${name} is no metric: give it a row in src/telemetry/names.ts`,
      ),
  );
}

const LOG = /\blog(?:\.(?:debug|info|warn|error)|\[level\])\(\s*(?:"([^"]*)"|(\w+|`))/g;

/** Log calls whose event is no `word.rest` with a known first word. A variable is taken for checked elsewhere. */
export function logViolations(sources: readonly Source[], words: ReadonlySet<string>): string[] {
  return sources.flatMap(({ path, text }) =>
    [...withoutComments(text).matchAll(LOG)].flatMap(({ 1: event, 2: other, index }) => {
      const place = `${path}:${lineAt(text, index)}`;
      if (other === "`") return [`${place}: the event of a log line is a fixed text: put what varies into its fields`];
      if (event === undefined) return [];
      if (!/^[a-z0-9]+(\.[a-zA-Z0-9]+)+$/.test(event)) return [`${place}: "${event}" is no event: write word.what`];
      const [word = ""] = event.split(".");
      return words.has(word)
        ? []
        : [`${place}: no log event begins with "${word}": give it a row in src/telemetry/names.ts`];
    }),
  );
}

/** First words of the events of all log calls, also those that reach them through a variable. */
export function logWords(sources: readonly Source[]): Set<string> {
  const loud = sources.filter(({ text }) => /\blog(?:\.\w+|\[level\])\(|\bLog\b/.test(codeOnly(text)));
  return new Set([...literalsIn(loud, /^[a-z0-9]+(\.[a-zA-Z0-9]+)+$/)].map((event) => event.split(".")[0] ?? ""));
}

/** Names that a page or a dashboard gives to metrics, without those that are not scraped. */
export function unknownScraped(files: readonly Source[], scraped: ReadonlySet<string>): string[] {
  const base = (name: string) => (scraped.has(name) ? name : name.replace(/_(?:bucket|count|sum)$/, ""));
  return files.flatMap(({ path, text }) =>
    [...text.matchAll(/\bklio_[a-z0-9_]+/g)]
      .filter(([name]) => !scraped.has(base(name)))
      .map(({ 0: name, index }) => `${path}:${lineAt(text, index)}: ${name} is not among the metrics that are scraped`),
  );
}
