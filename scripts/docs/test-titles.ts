// Titles of tests and the invariants they cite: "O1, O2: …" or "… (O1, O2)".

export type TestTitle = { title: string; ids: string[] };

const ID = "[A-Z]{1,2}\\d+";
const LIST = `${ID}(?:, ${ID})*`;
const AHEAD = new RegExp(`^(${LIST}): `);
const BRACKETS = new RegExp(`\\((${LIST})\\)`, "g");
const CALL = /\b(?:test|it|describe)((?:\.\w+)*)(?:<[^(;]*?>)?\(/g;
const LITERAL = /^\s*(?:"((?:[^"\\\n]|\\.)*)"|'((?:[^'\\\n]|\\.)*)'|`((?:[^`\\]|\\.)*)`)/;
const TEXT = /^(?:"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'|`(?:[^`\\]|\\.)*`|\/\/[^\n]*)/;

/** Ids in front of a title's colon, and in brackets anywhere in it. */
function citedIds(title: string): string[] {
  const ahead = AHEAD.exec(title)?.[1]?.split(", ") ?? [];
  const inner = [...title.matchAll(BRACKETS)].flatMap(([, ids = ""]) => ids.split(", "));
  return [...new Set([...ahead, ...inner])];
}

/** Index behind the bracket that closes the one before `from`. */
function behindBracket(source: string, from: number): number {
  let depth = 1;
  for (let at = from; at < source.length; ) {
    const text = TEXT.exec(source.slice(at, at + 2_000))?.[0];
    if (text !== undefined) {
      at += text.length;
      continue;
    }
    if (source[at] === "(") depth += 1;
    else if (source[at] === ")") depth -= 1;
    at += 1;
    if (depth === 0) return at;
  }
  return source.length;
}

/** All titles of a test file, in its order. Titles of `test.each` keep their placeholders. */
export function testTitles(source: string): TestTitle[] {
  return [...source.matchAll(CALL)].flatMap(({ 0: call, 1: chain = "", index }) => {
    let at = index + call.length;
    if (/\.(?:each|for|runIf|skipIf)$/.test(chain)) {
      at = behindBracket(source, at);
      if (source[at] !== "(") return [];
      at += 1;
    }
    const [, double, single, template] = LITERAL.exec(source.slice(at)) ?? [];
    const title = double ?? single ?? template;
    return title === undefined ? [] : [{ title: title.replace(/\\(["'`])/g, "$1"), ids: citedIds(title) }];
  });
}
