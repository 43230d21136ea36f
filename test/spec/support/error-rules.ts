// Error codes: every row is used and provoked, every code that is written somewhere has a row.
import { lineAt, type Source, withoutComments } from "./sources.ts";

const CODE = /KLIO-[A-Z0-9]+(?:-[A-Z0-9]+)*/g;

/** Codes in texts (comments do not count), by the files that hold them. */
export function codesIn(sources: readonly Source[]): Map<string, string[]> {
  const found = new Map<string, string[]>();
  for (const { path, text } of sources)
    for (const code of new Set(withoutComments(text).match(CODE))) found.set(code, [...(found.get(code) ?? []), path]);
  return found;
}

export function codeViolations(
  rows: readonly string[],
  sources: readonly Source[],
  tests: readonly Source[],
  pages: readonly Source[],
): string[] {
  const used = codesIn(sources.filter(({ path }) => path !== "src/errors.ts"));
  const provoked = codesIn(tests);
  const unknown = [...sources, ...pages].flatMap(({ path, text }) =>
    [...withoutComments(text).matchAll(CODE)]
      // "KLIO-S3-" and "KLIO-…" stand for a group.
      .filter(({ 0: code, index }) => !rows.includes(code) && !/^(?:-|…)/.test(text.slice(index + code.length)))
      .map(({ 0: code, index }) => `${path}:${lineAt(text, index)}: ${code} has no row in src/errors.ts`),
  );
  return [
    ...unknown,
    ...rows.filter((row) => !used.has(row)).map((row) => `${row} is never used: use it, or remove its row`),
    ...rows.filter((row) => !provoked.has(row)).map((row) => `no test provokes ${row}`),
  ];
}
