// What no file of ours contains, whatever it is about.
import { codeOnly, findings, type Source } from "./sources.ts";

const MAX_LINES = 400;

/** Files that are too long already, with the lines they have: they may only become shorter. */
export type Overlong = Readonly<Record<string, number>>;

export function longFiles(sources: readonly Source[], overlong: Overlong): string[] {
  const sizes = new Map(sources.map(({ path, text }) => [path, text.trimEnd().split("\n").length]));
  const long = [...sizes]
    .filter(([path, lines]) => lines > Math.max(MAX_LINES, overlong[path] ?? 0))
    .map(([path, lines]) => `${path} has ${lines} lines: cut it along a responsibility (at most ${MAX_LINES})`);
  const stale = Object.entries(overlong)
    .filter(([path]) => (sizes.get(path) ?? 0) <= MAX_LINES)
    .map(([path]) => `${path} is short enough: remove it from the list`);
  return [...long, ...stale];
}

/** Tests that are left out, or that leave out the others. */
export function skippedTests(tests: readonly Source[]): string[] {
  return tests.flatMap((source) =>
    findings(
      source,
      codeOnly(source.text),
      /\b(?:test|it|describe)(?:\.\w+)*\.(?:only|skip|todo|fails)\b/g,
      "every test runs; runIf says when it can",
    ),
  );
}

/** A file that may wait for time, with its reason. */
export type Patience = Readonly<Record<string, string>>;

const SLEEPS = [
  /\bnew Promise\b[^;]{0,80}?\bsetTimeout\(/g,
  /\bsetTimeout\(\s*(?:resolve|done)\b/g,
  /\bawait\s+(?:setTimeout|sleep|delay|wait)\(\s*[\d_]/g,
];
const TIMERS = /\bfrom\s+"node:timers\/promises"/;

/** Waiting for time instead of for a fact. */
export function sleeps(tests: readonly Source[], allowed: Patience): string[] {
  const unused = new Set(Object.keys(allowed));
  const found = tests.flatMap((source) => {
    const code = codeOnly(source.text);
    const imports =
      TIMERS.test(source.text) &&
      /\bimport \{[^}]*\bsetTimeout\b[^}]*\} from "node:timers\/promises"/.test(source.text);
    const all = [
      ...SLEEPS.flatMap((pattern) =>
        findings(source, code, pattern, "wait for a fact (test/support/eventually.ts), not for time"),
      ),
      ...(imports ? [`${source.path}: setTimeout of node:timers/promises: wait for a fact`] : []),
    ];
    if (all.length > 0) unused.delete(source.path);
    return allowed[source.path] === undefined ? all : [];
  });
  return [...found, ...[...unused].map((path) => `${path}: waits no more: remove it from the list`)];
}

export function leftOvers(sources: readonly Source[]): string[] {
  return sources.flatMap((source) => {
    const code = codeOnly(source.text);
    return [
      ...findings(
        source,
        source.text,
        /\b(?:TODO|FIXME|XXX|HACK)\b/g,
        "do it, or write a doubt as ??? with a sentence",
      ),
      ...findings(
        source,
        code,
        /\bcatch\s*(?:\([^)]*\)\s*)?\{\s*\}/g,
        "says nothing: let it fall to the role, or say why it may",
      ).filter((_, index) => isSilent(source.text, code, index)),
      ...findings(source, code, /\bdebugger\b/g, "remove it"),
      ...findings(source, source.text, /@ts-(?:ignore|nocheck|expect-error)\b/g, "types are ours: repair them"),
    ];
  });
}

/** Whether the n-th empty catch has no comment either. */
function isSilent(text: string, code: string, n: number): boolean {
  const [found] = [...code.matchAll(/\bcatch\s*(?:\([^)]*\)\s*)?\{\s*\}/g)].slice(n);
  return found !== undefined && !text.slice(found.index, found.index + found[0].length).includes("/");
}

const EXACT = /^(?:npm:@?[\w./-]+@)?\d+\.\d+\.\d+(?:-[\w.]+)?$/;

/** Dependencies whose version is not one version. */
export function looseVersions(packageJson: string): string[] {
  const manifest: Record<string, Record<string, string> | undefined> = JSON.parse(packageJson);
  return ["dependencies", "devDependencies", "optionalDependencies"].flatMap((kind) =>
    Object.entries(manifest[kind] ?? {})
      .filter(([, version]) => !EXACT.test(version))
      .map(([name, version]) => `${name} "${version}": write one version`),
  );
}
