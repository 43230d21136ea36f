// What is generated under docs/ is what the sources say, and the options are really read. The command line's page, which
// needs the whole program, is compared by `npm run docs -- --check`.
import { readdirSync } from "node:fs";
import { expect, test } from "vitest";
import { generatePages } from "../../scripts/docs/pages.ts";
import { clientOptions, serverOptions, variableOf } from "../../src/config/options.ts";
import { unreadOptions } from "./support/option-rules.ts";
import { textOf } from "./support/sources.ts";

test("pages and pictures are those of the sources: else run 'npm run docs' and commit the result", async () => {
  const pages = await generatePages();
  expect([...pages].filter(([path, text]) => textOf(path) !== text).map(([path]) => path)).toEqual([]);
  const pictures = readdirSync(new URL("../../docs/machines/", import.meta.url)).map((name) => `docs/machines/${name}`);
  expect(pictures.filter((path) => !pages.has(path))).toEqual([]);
  expect(pictures.length).toBeGreaterThan(13);
});

test("links of the pages lead somewhere", () => {
  const broken = [
    "docs/architecture.md",
    "docs/operations.md",
    "README.md",
    "CONTRIBUTING.md",
    "deploy/README.md",
  ].flatMap((page) => {
    const text = textOf(page);
    const anchors = new Set(
      [...text.matchAll(/^#+ (.+)$/gm)].map(([, title = ""]) =>
        title
          .toLowerCase()
          .replace(/[^\w\- ]/g, "")
          .replaceAll(" ", "-"),
      ),
    );
    return [...text.matchAll(/\]\(([^)\s]+)\)/g)]
      .map(([, link = ""]) => link)
      .filter((link) => !/^https?:/.test(link))
      .filter((link) => {
        const [path = "", anchor] = link.split("#");
        if (path === "") return !anchors.has(anchor ?? "");
        try {
          textOf(new URL(path, `file:///${page}`).pathname.slice(1));
          return false;
        } catch {
          return true; // what cannot be read is what is looked for
        }
      })
      .map((link) => `${page}: ${link}`);
  });
  expect(broken).toEqual([]);
});

test("files and functions that the walk of a WAL block names are there", () => {
  const text = textOf("docs/architecture.md");
  const walk = text.slice(text.indexOf("## Where a WAL block goes"), text.indexOf("## How a backup goes"));
  const files = [...new Set([...walk.matchAll(/`((?:src|test)\/[\w./-]+\.ts)`/g)].map(([, path = ""]) => path))];
  expect(files.length).toBeGreaterThan(12);
  const code = files.map(textOf).join("\n") + textOf("src/actors/postgres/block-builder.ts");
  const names = [...walk.matchAll(/`#?(?:\w+\.)?#?([a-zA-Z]\w+)`/g)].map(([, name = ""]) => name);
  expect(names.length).toBeGreaterThan(30);
  const foreign = /^(writev|O_DSYNC|sealing|stream|Stream|Put|complete|PutAck|manage_wal_stream)$/;
  expect(names.filter((name) => !foreign.test(name) && !new RegExp(`\\b${name}\\b`).test(code))).toEqual([]);
});

test("every option is read, and documented under its key and its variable", () => {
  const page = textOf("docs/reference/options.md");
  const options = [...serverOptions, ...clientOptions];
  expect(options.length).toBeGreaterThan(55);
  expect(
    unreadOptions(
      options.map(({ key }) => key),
      textOf("src/config/resolve.ts"),
    ),
  ).toEqual([]);
  for (const option of options)
    for (const word of [option.key, variableOf(option)]) expect(page).toContain(`\`${word}\``);
});

test("caught: an option that nothing reads", () => {
  const text = `v.text("a.key"); v.text(\`\${tier}.identity_file\`); key.startsWith("gone."); optional({ endpoint: "endpoint" });`;
  expect(unreadOptions(["a.key", "tier1.identity_file", "b.key", "gone.key"], text)).toEqual(["b.key", "gone.key"]);
});
