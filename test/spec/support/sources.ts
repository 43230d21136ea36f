// The sources as the rules see them: path, text, text without comments, imports. No parser: what is read here is our own
// code, formatted by one formatter.
import { readdirSync, readFileSync } from "node:fs";
import { posix } from "node:path";

export type Source = {
  /** From the root of the repository. */
  path: string;
  text: string;
};

const root = new URL("../../../", import.meta.url);

export const textOf = (path: string) => readFileSync(new URL(path, root), "utf8");

/** Files below the folders; generated code is nobody's style. */
export function sourcesIn(...folders: string[]): Source[] {
  return folders.flatMap((folder) =>
    readdirSync(new URL(`${folder}/`, root), { recursive: true, encoding: "utf8" })
      .map((name) => `${folder}/${name.replaceAll("\\", "/")}`)
      .filter((path) => /\.(ts|mts|mjs|js)$/.test(path) && !path.startsWith("src/proto/generated/"))
      .sort()
      .map((path) => ({ path, text: textOf(path) })),
  );
}

const TOKEN = /"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'|`(?:\\.|[^`\\])*`|\/\/[^\n]*|\/\*[\s\S]*?\*\//g;
const blank = (text: string) => text.replace(/[^\n]/g, " ");

/** Comments blanked, lines kept. */
export function withoutComments(text: string): string {
  return text.replace(TOKEN, (token) => (token.startsWith("/") ? blank(token) : token));
}

/** Comments and texts blanked, lines kept; what stands in `${…}` of a template stays. */
export function codeOnly(text: string): string {
  return text.replace(TOKEN, (token) => {
    if (!token.startsWith("`")) return blank(token);
    return token.replace(/\$\{[^}]*\}|[^\n]/g, (piece) => (piece.length > 1 ? piece : " "));
  });
}

export type Import = {
  /** `src/domain/lsn.ts` for a file of ours, else the name of the package or `node:…`. */
  to: string;
  isOwn: boolean;
  /** Nothing of it is there when the code runs. */
  isType: boolean;
  names: string[];
  /** Re-exported. */
  isExport: boolean;
};

const STATEMENT =
  /^(import|export)\s+(type\s+)?([^;"']*?)\s*from\s+"([^"]+)"|\bimport\(\s*"([^"]+)"\s*\)|^import\s+"([^"]+)"/gm;

export function importsOf({ path, text }: Source): Import[] {
  return [...withoutComments(text).matchAll(STATEMENT)].map(
    ([, keyword, type, what = "", named, dynamic, bare]): Import => {
      const specifier = named ?? dynamic ?? bare ?? "";
      const isOwn = specifier.startsWith(".");
      const names = /^\{/.test(what)
        ? what
            .replace(/[{}]/g, "")
            .split(",")
            .map((name) => name.trim())
            .filter((name) => name !== "")
        : [what];
      return {
        to: isOwn ? posix.join(posix.dirname(path), specifier) : specifier,
        isOwn,
        isType: type !== undefined || (named !== undefined && names.every((name) => name.startsWith("type "))),
        names: names.map((name) => name.replace(/^type /, "")),
        isExport: keyword === "export",
      };
    },
  );
}

/** Line of a place in the text, from 1. */
export function lineAt(text: string, index: number): number {
  return text.slice(0, index).split("\n").length;
}

/** `path:line: what` for each match. */
export function findings({ path, text }: Source, code: string, pattern: RegExp, what: string): string[] {
  return [...code.matchAll(pattern)].map(
    ({ 0: match, index }) => `${path}:${lineAt(text, index)}: ${match.trim()}: ${what}`,
  );
}

/** A rule's exception, with its reason. One that nothing needs is a violation, so that the lists shrink. */
export type Exception = { path: string; to: string; reason: string };
