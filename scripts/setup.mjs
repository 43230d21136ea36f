// Set-up behind `npm start` and `npm test`: Node 24, the npm dependencies, and the external programs of tools/tools.json.
// Plain JavaScript and node: imports only, because it runs before anything is installed, with any Node from 20 on.
// Safe when several set-ups run at once: each result appears by a rename, and `npm ci` runs under a lock.
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import {
  accessSync,
  constants,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { homedir } from "node:os";
import { delimiter, dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";

const root = resolve(dirname(fileURLToPath(import.meta.url)), "..");
const toolsDirectory = join(root, "tools");
const tools = JSON.parse(readFileSync(join(toolsDirectory, "tools.json"), "utf8"));
const cache = join(process.env.XDG_CACHE_HOME || join(homedir(), ".cache"), "klio", "tools");
const quiet = process.argv.includes("--quiet");
/** Also what only the tests need. */
const forTests = process.argv.includes("--tests");
/** A set-up that holds the lock this long without finishing is dead. */
const LOCK_STALE_MS = 15 * 60_000;

const say = (text) => {
  if (!quiet) process.stderr.write(`set-up: ${text}\n`);
};
const seconds = (since) => `${((Date.now() - since) / 1000).toFixed(1)} s`;

/** Ends the set-up with one sentence on what to do. */
function giveUp(sentence) {
  process.stderr.write(`set-up: ${sentence}\n`);
  process.exit(69);
}

function run(command, args, options = {}) {
  const result = spawnSync(command, args, { stdio: ["ignore", "inherit", "inherit"], ...options });
  if (result.error?.code === "ENOENT") return { missing: true, status: 127 };
  return { missing: false, status: result.status ?? 1 };
}

function sleep(ms) {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms);
}

function isAlive(pid) {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return error.code === "EPERM";
  }
}

/** Runs `work` while no other set-up holds the same lock; a lock of a dead process is taken over. */
function underLock(directory, name, work) {
  mkdirSync(directory, { recursive: true });
  const lock = join(directory, `.${name}.lock`);
  let told = false;
  for (;;) {
    try {
      writeFileSync(lock, String(process.pid), { flag: "wx" });
      break;
    } catch (error) {
      if (error.code !== "EEXIST") throw error;
      let owner = 0;
      let ageMs = 0;
      try {
        owner = Number(readFileSync(lock, "utf8"));
        ageMs = Date.now() - statSync(lock).mtimeMs;
      } catch {
        continue; // it was released just now
      }
      if ((owner > 0 && !isAlive(owner)) || ageMs > LOCK_STALE_MS) {
        rmSync(lock, { force: true });
        continue;
      }
      if (!told) say(`waiting for another set-up (process ${owner})`);
      told = true;
      sleep(200);
    }
  }
  const release = () => rmSync(lock, { force: true });
  process.once("exit", release);
  try {
    return work();
  } finally {
    process.off("exit", release);
    release();
  }
}

// --- Node 24 -------------------------------------------------------------------------------------------------------------

const [major = 0] = process.versions.node.split(".").map(Number);
if (major < 20)
  giveUp(
    `Node ${process.versions.node} is too old: install Node 20 or newer (Node 24 is then brought by npm on Linux).`,
  );
const bringsNode = process.platform === "linux" && (process.arch === "x64" || process.arch === "arm64");
if (!bringsNode && major < 24)
  giveUp(
    `on ${process.platform}-${process.arch} Klio runs on the system's Node: install Node 24 or newer (this is ${process.versions.node}).`,
  );

// --- npm dependencies ----------------------------------------------------------------------------------------------------

function installDependencies() {
  const stamp = join(root, "node_modules", ".klio-setup");
  const want = createHash("sha256")
    .update(readFileSync(join(root, "package-lock.json")))
    .digest("hex");
  const isDone = () => existsSync(stamp) && readFileSync(stamp, "utf8") === want;
  if (isDone()) return;
  underLock(root, "klio-setup", () => {
    if (isDone()) return;
    const since = Date.now();
    say("installing the npm dependencies, Node 24 and PostgreSQL 15 to 18 among them (about half a minute)");
    const result = run("npm", ["ci", "--no-audit", "--no-fund", "--loglevel=error"], { cwd: root });
    if (result.missing) giveUp("npm was not found: install npm, which comes with Node.");
    if (result.status !== 0)
      giveUp(
        `'npm ci' failed with exit status ${result.status}: see its messages above; it needs access to the npm registry.`,
      );
    writeFileSync(stamp, want);
    say(`npm dependencies installed in ${seconds(since)}`);
  });
}

// --- external programs ---------------------------------------------------------------------------------------------------

function isExecutable(path) {
  try {
    accessSync(path, constants.X_OK);
    return statSync(path).isFile();
  } catch {
    return false;
  }
}

/** Path of the tool where it is already: named by its variable, in the cache, or on PATH at an accepted version. */
function present(name, tool) {
  const named = process.env[tool.variable];
  if (named) {
    if (!isExecutable(named))
      giveUp(`${tool.variable}=${named} is not an executable file: correct or unset the variable.`);
    return named;
  }
  const cached = join(cache, `${name}-${tool.version}`, name);
  if (isExecutable(cached)) return cached;
  for (const directory of (process.env.PATH ?? "").split(delimiter)) {
    const path = join(directory, name);
    if (directory === "" || !isExecutable(path)) continue;
    const { stdout = "", stderr = "" } = spawnSync(path, tool.versionArgs, { encoding: "utf8" });
    if (new RegExp(tool.accept).test(stdout || stderr)) return path;
  }
  return undefined;
}

function goVersion() {
  const result = spawnSync("go", ["env", "GOVERSION"], { encoding: "utf8", cwd: toolsDirectory });
  return result.status === 0 ? result.stdout.trim() : undefined;
}

function build(name, tool) {
  underLock(cache, name, () => {
    if (present(name, tool)) return;
    const go = goVersion();
    if (go === undefined)
      giveUp(
        `${name} ${tool.version} (${tool.purpose}) is missing: install it, or install Go 1.26 so that it can be built, or name it in ${tool.variable}.`,
      );
    // Under the lock nobody else builds this tool: what lies here is of a set-up that was killed.
    for (const left of readdirSync(cache))
      if (left.startsWith(`.${name}-`)) rmSync(join(cache, left), { recursive: true, force: true });
    const since = Date.now();
    say(`building ${name} ${tool.version} (${tool.purpose}) with ${go}, once for this user (one to three minutes)`);
    const target = join(cache, `${name}-${tool.version}`);
    const temporary = mkdtempSync(join(cache, `.${name}-`));
    const args = ["build", "-mod=readonly", "-trimpath", "-ldflags", tool.ldflags];
    if (tool.tags) args.push("-tags", tool.tags);
    const result = run("go", [...args, "-o", join(temporary, name), tool.package], {
      cwd: join(toolsDirectory, tool.module ?? name),
      env: { ...process.env, CGO_ENABLED: "0", GOFLAGS: "" },
    });
    if (result.status !== 0) {
      rmSync(temporary, { recursive: true, force: true });
      giveUp(
        `building ${name} ${tool.version} failed with exit status ${result.status}: see the messages above; it needs Go 1.26 and access to a Go module proxy, or name an installed ${name} in ${tool.variable}.`,
      );
    }
    rmSync(target, { recursive: true, force: true });
    renameSync(temporary, target);
    say(`${name} ${tool.version} built in ${seconds(since)}`);
  });
}

installDependencies();
for (const [name, tool] of Object.entries(tools))
  if ((forTests || !tool.testsOnly) && !present(name, tool)) build(name, tool);
