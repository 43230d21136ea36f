// Options that are declared must be read.

/**
 * Keys that `reader` (the text of resolve.ts) never names: neither as a whole, nor as the pattern of a template, nor by the last
 * part of a table whose section is a template.
 */
export function unreadOptions(keys: readonly string[], reader: string): string[] {
  const quoted = new Set([...reader.matchAll(/"([\w.]+)"/g)].map(([, text = ""]) => text));
  const patterns = [...reader.matchAll(/`([^`]*\$\{[^`]*)`/g)].map(([, template = ""]) => {
    const parts = template.split(/\$\{[^}]*\}/).map((part) => part.replaceAll(".", "\\."));
    return new RegExp(`^${parts.join("(\\w+)")}$`);
  });
  const isRead = (key: string) => {
    if (quoted.has(key)) return true;
    return patterns.some((pattern) => {
      const match = pattern.exec(key);
      if (match === null) return false;
      const filled = match.at(-1) ?? "";
      // A template that ends in `${key}` reads what a table names.
      return !key.endsWith(filled) || quoted.has(filled) || new RegExp(`"${filled}"`, "i").test(reader);
    });
  };
  return keys.filter((key) => !isRead(key));
}
