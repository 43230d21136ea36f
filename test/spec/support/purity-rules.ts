// What the pure folders may not touch, and what only one place may.
import { codeOnly, findings, type Source } from "./sources.ts";

const PURE = ["src/machines/", "src/domain/", "src/wire/"];

const IMPURE: readonly (readonly [RegExp, string])[] = [
  [/\bDate\.now\b|\bnew Date\(\s*\)|\bDate\(\)|\bperformance\./g, "time comes in as an argument"],
  [
    /\bMath\.random\b|\brandomBytes\b|\brandomUUID\b|\brandomInt\b|\bcrypto\.getRandomValues\b/g,
    "randomness comes in as an argument",
  ],
  [/\b(?:setTimeout|setInterval|setImmediate|queueMicrotask)\b/g, "waiting is a state with a delay"],
  [/\bprocess\.|\bglobalThis\b/g, "surroundings come in as arguments"],
  [/\bfetch\(/g, "IO is an actor's"],
  [/\bconsole\./g, "logging is a role's"],
];

export function impurities(sources: readonly Source[]): string[] {
  return sources
    .filter(({ path }) => PURE.some((folder) => path.startsWith(folder)))
    .flatMap((source) => {
      const code = codeOnly(source.text);
      return IMPURE.flatMap(([pattern, what]) => findings(source, code, pattern, what));
    });
}

/** The chart itself; what comes before it is its setup. */
function chartOnly(code: string): string {
  const start = code.indexOf(".createMachine(");
  return start < 0 ? code : code.slice(0, start).replace(/[^\n]/g, " ") + code.slice(start);
}

/** Statecharts keep plain data: a snapshot must survive JSON. */
export function machineImpurities(sources: readonly Source[]): string[] {
  return sources
    .filter(({ path }) => path.startsWith("src/machines/"))
    .flatMap((source) => {
      const code = codeOnly(source.text);
      return [
        ...findings(source, code, /\bBuffer\b|\bUint8Array\b/g, "bytes stay with actors"),
        ...findings(source, chartOnly(code), /\benqueueActions\b/g, "hides branches from the chart: name it in setup"),
        ...findings(source, code, /\basync\b|\bawait\b|\bPromise\b/g, "IO is an actor's: invoke it").filter(
          () => !source.path.endsWith("/unprovided.ts"),
        ),
      ];
    });
}

/** `process.argv`, `process.env` and the end of the process belong to main.ts. */
export function processUses(sources: readonly Source[]): string[] {
  return sources
    .filter(({ path }) => path !== "src/main.ts")
    .flatMap((source) =>
      findings(
        source,
        codeOnly(source.text),
        /\bprocess\.(?:argv|env|exit|exitCode|on|chdir)\b/g,
        "only src/main.ts: take it from the context",
      ),
    );
}
