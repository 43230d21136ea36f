// Pieces of Markdown that the generated pages are made of.

/** Text for a table's cell: one line, no cell border of its own. */
function cell(text: string): string {
  return text.replaceAll("|", "\\|").replace(/\s*\n\s*/g, " ");
}

/** A table; a column that is empty in every row is left out. */
export function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const kept = head.map((_, index) => rows.some((row) => (row[index] ?? "") !== ""));
  const line = (cells: readonly string[]) => `| ${cells.filter((_, index) => kept[index] === true).join(" | ")} |`;
  return [line(head), line(head.map(() => "---")), ...rows.map((row) => line(row.map(cell)))].join("\n");
}

export const code = (text: string) => (text === "" ? "" : `\`${text}\``);

/** Says on top of a page where its text comes from. */
export function generatedFrom(source: string): string {
  return `<!-- Generated from ${source} by \`npm run docs\`; changes here are overwritten. -->`;
}

/** Joins paragraphs; ends in a line feed. */
export function page(...parts: readonly string[]): string {
  return `${parts.filter((part) => part !== "").join("\n\n")}\n`;
}

/** Replaces what stands between `<!-- generated: name -->` and the next `<!-- /generated -->`. Throws without them. */
export function replaceGenerated(text: string, name: string, body: string): string {
  const start = `<!-- generated: ${name} -->`;
  const end = "<!-- /generated -->";
  const from = text.indexOf(start);
  const to = text.indexOf(end, from);
  if (from < 0 || to < 0) throw new Error(`the page has no "${start}" … "${end}"`);
  return `${text.slice(0, from + start.length)}\n\n${body.trim()}\n\n${text.slice(to)}`;
}
