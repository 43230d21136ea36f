// Who may import what, by folder of src/. The table is that of docs/architecture.md.
import { type Exception, type Import, importsOf, type Source } from "./sources.ts";

type Rule = {
  /** Folders (or files) of src whose code may be used. */
  uses: readonly string[];
  /** Folders (or files) of src of which only types may be used. */
  types?: readonly string[];
  packages: readonly RegExp[];
};

const NODE = /^node:/;
const NONE: readonly RegExp[] = [];
/** What a client of another system needs; telemetry, logging and the command line are nobody's client library. */
const CLIENTS = /^(?!@opentelemetry\/|pino$|commander$)/;

export const importTable: Readonly<Record<string, Rule>> = {
  "errors.ts": { uses: [], packages: NONE },
  domain: { uses: ["domain", "errors.ts"], packages: NONE },
  wire: { uses: ["wire", "domain", "errors.ts"], packages: [/^node:(crypto|zlib)$/] },
  machines: {
    uses: ["machines", "domain"],
    types: ["telemetry/state-telemetry.ts", "errors.ts"],
    packages: [/^xstate$/],
  },
  actors: { uses: ["actors", "domain", "wire", "proto", "errors.ts"], types: ["machines"], packages: [CLIENTS] },
  telemetry: {
    uses: ["telemetry", "domain", "errors.ts"],
    types: ["config", "machines"],
    packages: [/^@opentelemetry\//, /^xstate$/, /^pino$/, /^@grpc\/grpc-js$/, NODE],
  },
  config: { uses: ["config", "domain", "errors.ts"], packages: [/^zod$/, /^yaml$/] },
  console: {
    uses: ["console", "errors.ts"],
    types: ["domain", "telemetry", "machines"],
    packages: [/^elkjs\//, /^xstate$/, NODE],
  },
  proto: { uses: ["proto"], packages: [/^@bufbuild\/protobuf/, /^@grpc\/grpc-js$/] },
  roles: {
    uses: ["roles", "actors", "config", "console", "domain", "errors.ts", "machines", "proto", "telemetry", "wire"],
    packages: [/^xstate$/, /^@bufbuild\/protobuf/, NODE],
  },
  demo: {
    uses: ["demo", "actors", "config", "domain", "errors.ts"],
    types: ["machines"],
    packages: [/^(?!@opentelemetry\/|xstate$|commander$)/],
  },
  cli: { uses: ["cli", "roles", "config", "errors.ts"], packages: [/^commander$/, /^node:(fs|os|path)$/] },
  "main.ts": { uses: ["cli"], packages: NONE },
};

export const importExceptions: readonly Exception[] = [
  {
    path: "src/actors/grpc/serve-get.ts",
    to: "src/machines/wal-serving.machine.ts",
    reason: "each call is a walServing of its own: whoever takes the call starts the machine",
  },
  {
    path: "src/actors/grpc/serve-ingest.ts",
    to: "src/machines/wal-ingest.machine.ts",
    reason: "each call is a walIngest of its own: whoever takes the call starts the machine",
  },
  {
    path: "src/cli/backup.ts",
    to: "src/domain/backup-metadata.ts",
    reason: "prints a backup's metadata in their published form",
  },
  {
    path: "src/cli/backup.ts",
    to: "src/telemetry/telemetry.ts",
    reason: "a session that only looks says so by noTelemetry",
  },
  {
    path: "src/config/tools.ts",
    to: "node:*",
    reason: "finds programs: looks at files and asks them for their version",
  },
  {
    path: "src/roles/demo.ts",
    to: "src/demo/*",
    reason: "the demo's composition root",
  },
  {
    path: "src/roles/wal-stream.ts",
    to: "@opentelemetry/api",
    reason: "the span of the running actor travels with the call that it makes",
  },
];

const folderOf = (path: string) => path.replace(/^src\//, "").replace(/\/.*$/, "");
const isIn = (path: string, places: readonly string[]) =>
  places.some((place) => path === `src/${place}` || path.startsWith(`src/${place}/`));
const matches = (to: string, pattern: string) =>
  pattern.endsWith("*") ? to.startsWith(pattern.slice(0, -1)) : to === pattern;

function isAllowed(rule: Rule, { to, isOwn, isType }: Import): boolean {
  if (!isOwn) return rule.packages.some((pattern) => pattern.test(to));
  return isIn(to, rule.uses) || (isType && isIn(to, rule.types ?? []));
}

/** Imports that the table forbids, and exceptions that nothing needs. */
export function importViolations(sources: readonly Source[], exceptions: readonly Exception[]): string[] {
  const unused = new Set(exceptions);
  const violations = sources.flatMap((source) => {
    const folder = folderOf(source.path);
    const rule = importTable[folder];
    if (rule === undefined)
      return [`${source.path}: ${folder} is no folder of the tree: give it a row in ${import.meta.filename}`];
    return importsOf(source)
      .filter((one) => !isAllowed(rule, one))
      .filter((one) => {
        const known = exceptions.find(({ path, to }) => path === source.path && matches(one.to, to));
        if (known !== undefined) unused.delete(known);
        return known === undefined;
      })
      .map(
        ({ to, isType, isOwn }) =>
          `${source.path}: imports ${isType ? "types of " : ""}${to}; ${folder} may import ${rule.uses.join(", ") || "nothing of ours"}` +
          (isOwn && rule.types !== undefined ? ` and types of ${rule.types.join(", ")}` : ""),
      );
  });
  return [
    ...violations,
    ...[...unused].map(({ path, to }) => `${path}: the exception for ${to} is not needed: remove it`),
  ];
}

/** Circles of files that need each other to run; types do not count. */
export function importCircles(sources: readonly Source[]): string[] {
  const edges = new Map(
    sources.map((source) => [
      source.path,
      importsOf(source)
        .filter(({ isOwn, isType }) => isOwn && !isType)
        .map(({ to }) => to),
    ]),
  );
  const done = new Set<string>();
  const circles: string[] = [];
  const visit = (path: string, way: readonly string[]) => {
    const at = way.indexOf(path);
    if (at >= 0) circles.push([...way.slice(at), path].join(" -> "));
    if (at >= 0 || done.has(path)) return;
    for (const to of edges.get(path) ?? []) visit(to, [...way, path]);
    done.add(path);
  };
  for (const path of edges.keys()) visit(path, []);
  return circles;
}

const DRAWERS = /(?:^|\/)(utils?|helpers?|common|lib|misc|shared|types|interfaces)(?:\.\w+|\/|$)/;

/** Drawers, barrels and default exports. */
export function namingViolations(sources: readonly Source[]): string[] {
  return sources.flatMap((source) => {
    const { path, text } = source;
    const drawer = DRAWERS.exec(path.replace(/^(src|test|scripts)\//, ""));
    return [
      ...(drawer === null ? [] : [`${path}: "${drawer[1]}" names no idea: call the file by what it holds`]),
      ...(/(?:^|\/)index\.\w+$/.test(path) ? [`${path}: no barrels: import from the file itself`] : []),
      ...(/^export default\b/m.test(text) ? [`${path}: no default exports: give it a name`] : []),
      ...importsOf(source)
        .filter(({ isExport, isType }) => isExport && !isType)
        .map(({ to }) => `${path}: re-exports ${to}: import it where it is`),
      ...importsOf(source)
        .filter(({ isOwn, to }) => isOwn && !/\.(ts|mts|mjs|js)$/.test(to))
        .map(({ to }) => `${path}: ${to}: imports name the file, with its ending`),
    ];
  });
}
