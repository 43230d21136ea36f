// The comment on top of a source file: what the file is for, and its numbered invariants.

type Invariant = { id: string; text: string };
export type Header = { purpose: string; invariants: Invariant[] };

const INVARIANT = /^ {2,}([A-Z]{1,2}\d+)\. +(.+)$/;

/**
 * `// What the file is for.`, then `//   O1. A promise.` with deeper indented lines that go on with it. Whatever follows the
 * first empty comment line is explanation.
 */
export function headerOf(source: string): Header {
  const purpose: string[] = [];
  const invariants: Invariant[] = [];
  for (const line of source.split("\n")) {
    if (!line.startsWith("//") || line === "//") break;
    const text = line.slice(2);
    const [, id = "", promise = ""] = INVARIANT.exec(text) ?? [];
    const last = invariants.at(-1);
    if (id !== "") invariants.push({ id, text: promise });
    else if (last === undefined) purpose.push(text.trim());
    else if (/^ {4,}/.test(text)) last.text += ` ${text.trim()}`;
    else break;
  }
  return { purpose: purpose.join(" "), invariants };
}
