// Pictures and reference pages from the sources: `npm run docs` writes them, `npm run docs -- --check` names those that
// are stale and exits with 1.
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { commandsPage } from "./docs/commands.ts";
import { generatePages } from "./docs/pages.ts";

const root = fileURLToPath(new URL("..", import.meta.url));
const textOf = (path: string) => (existsSync(join(root, path)) ? readFileSync(join(root, path), "utf8") : "");

/** Files in the generated folders that nothing stands behind any more. */
function leftOver(pages: ReadonlyMap<string, string>): string[] {
  return ["docs/machines", "docs/reference"]
    .filter((folder) => existsSync(join(root, folder)))
    .flatMap((folder) => readdirSync(join(root, folder)).map((name) => `${folder}/${name}`))
    .filter((path) => !pages.has(path));
}

const pages = await generatePages();
pages.set("docs/reference/cli.md", await commandsPage());
const stale = [...pages].filter(([path, text]) => textOf(path) !== text).map(([path]) => path);
const gone = leftOver(pages);
if (process.argv.includes("--check")) {
  for (const path of [...stale, ...gone]) console.error(`${path} is stale: run 'npm run docs' and commit the result`);
  process.exitCode = stale.length + gone.length === 0 ? 0 : 1;
} else {
  for (const path of stale) {
    mkdirSync(dirname(join(root, path)), { recursive: true });
    writeFileSync(join(root, path), pages.get(path) ?? "");
  }
  for (const path of gone) rmSync(join(root, path));
  console.log(`${pages.size} files: ${stale.length} written, ${gone.length} removed`);
}
