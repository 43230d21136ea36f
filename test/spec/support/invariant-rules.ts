// Invariants are promises in the header of a file; tests cite them in their titles. Which invariant an id means:
//   - in src/machines a letter belongs to one file, elsewhere ids are counted through a folder;
//   - two folders may use the same letter: a test means the folder it mirrors, else the file that it imports;
//   - P1, P2, … are the promises of docs/architecture.md.
import { posix } from "node:path";
import { headerOf } from "../../../scripts/docs/header.ts";
import { testTitles } from "../../../scripts/docs/test-titles.ts";
import { importsOf, type Source } from "./sources.ts";

export type Definition = { id: string; path: string };

export function definitionsIn(sources: readonly Source[]): Definition[] {
  return sources.flatMap(({ path, text }) => headerOf(text).invariants.map(({ id }) => ({ id, path })));
}

const letterOf = (id: string) => id.replace(/\d+$/, "");
/** What counts its invariants together. */
const seriesOf = (path: string) =>
  path.startsWith("src/machines/") ? path : posix.dirname(path).replace(/\/assets$/, "");

function repeated<T>(items: readonly T[], keyOf: (item: T) => string): T[][] {
  return [...Map.groupBy(items, keyOf).values()].filter((group) => group.length > 1);
}

/** Ids that two files define, and letters that two machines share. */
export function definitionViolations(definitions: readonly Definition[]): string[] {
  const twice = repeated(definitions, ({ id, path }) => `${seriesOf(path)} ${id}`).map(
    (group) => `${group[0]?.id} is defined twice: ${group.map(({ path }) => path).join(", ")}`,
  );
  const machines = new Set(
    definitions.filter(({ path }) => path.startsWith("src/machines/")).map(({ id, path }) => `${letterOf(id)} ${path}`),
  );
  const shared = repeated([...machines], (entry) => entry.split(" ")[0] ?? "").map(
    (group) => `two machines share a letter: ${group.join(", ")}`,
  );
  const reserved = definitions
    .filter(({ id }) => letterOf(id) === "P")
    .map(({ id, path }) => `${path}: ${id}: P is for the promises in docs/architecture.md`);
  return [...twice, ...shared, ...reserved];
}

/** `test/unit/machines/a.test.ts` stands for `src/machines/`. */
const mirroredFolder = (path: string) => `src/${posix.dirname(path).split("/").slice(2).join("/")}/`;

function meantBy(test: Source, id: string, definitions: readonly Definition[]): Definition[] {
  const candidates = definitions.filter((one) => one.id === id);
  if (candidates.length < 2) return candidates;
  const mirrored = candidates.filter(({ path }) => path.startsWith(mirroredFolder(test.path)));
  if (mirrored.length === 1) return mirrored;
  const imported = new Set(importsOf(test).map(({ to }) => to));
  return candidates.filter(({ path }) => imported.has(path));
}

/** Invariants that no test cites, ids that nothing defines, and ids that could mean two things. */
export function citationViolations(
  definitions: readonly Definition[],
  promises: readonly string[],
  tests: readonly Source[],
): string[] {
  const open = new Set<Definition | string>([...definitions, ...promises]);
  const wrong = tests.flatMap((source) =>
    testTitles(source.text).flatMap(({ title, ids }) =>
      ids.flatMap((id) => {
        if (letterOf(id) === "P") {
          open.delete(id);
          return promises.includes(id) ? [] : [`${source.path}: "${title}" cites ${id}, which is no promise`];
        }
        const meant = meantBy(source, id, definitions);
        for (const one of meant) open.delete(one);
        if (meant.length === 1) return [];
        return [
          `${source.path}: "${title}" cites ${id}, ${meant.length === 0 ? "which nothing defines" : "which is ambiguous"}`,
        ];
      }),
    ),
  );
  const uncited = [...open].map((one) =>
    typeof one === "string"
      ? `docs/architecture.md: no test cites ${one}`
      : `${one.path}: no test cites ${one.id}: prove it, and begin the test's title with "${one.id}: "`,
  );
  return [...wrong, ...uncited];
}

const REMARK =
  /(?:\/\/|\*)(?:.*\((?<inner>[A-Z]{1,2}\d+(?:, [A-Z]{1,2}\d+)*)\)| (?<whole>[A-Z]{1,2}\d+(?:, [A-Z]{1,2}\d+)*)(?: \*\/)?$)/gm;

/** Ids in comments of the sources ("// O2", "(P4)") that nothing defines, or several folders but not the file's own. */
export function remarkViolations(
  definitions: readonly Definition[],
  promises: readonly string[],
  sources: readonly Source[],
): string[] {
  return sources.flatMap(({ path, text }) => {
    const isClear = (id: string) => {
      const meant = definitions.filter((one) => one.id === id);
      return meant.length === 1 || meant.some((one) => posix.dirname(one.path) === posix.dirname(path));
    };
    return [...text.matchAll(REMARK)]
      .flatMap(({ groups }) => (groups?.inner ?? groups?.whole ?? "").split(", "))
      .filter((id) => id !== "" && !isClear(id) && !promises.includes(id))
      .map((id) => `${path}: a comment cites ${id}, which nothing defines, or more than one folder`);
  });
}
