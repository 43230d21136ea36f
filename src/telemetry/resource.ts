// Who reports: service, what OTEL_RESOURCE_ATTRIBUTES says, what the asked detectors find, and the Kubernetes names.
import { readFileSync } from "node:fs";
import { hostname, machine, type as osType, release, userInfo } from "node:os";
import { basename } from "node:path";
import type { Environment } from "../config/config.ts";

export type ResourceAttributes = Record<string, string | number | string[]>;
type Detector = () => ResourceAttributes;

function firstLineOf(...files: string[]): string | undefined {
  for (const file of files) {
    try {
      const [line = ""] = readFileSync(file, "utf8").split("\n");
      if (line.trim() !== "") return line.trim();
    } catch {
      // The next one may be there; a container has often none.
    }
  }
  return undefined;
}

function textOf(file: string): string {
  try {
    return readFileSync(file, "utf8");
  } catch {
    return "";
  }
}

const given = (name: string, value: string | undefined): ResourceAttributes =>
  value === undefined || value === "" ? {} : { [name]: value };

function owner(): string | undefined {
  try {
    return userInfo().username;
  } catch {
    return undefined; // a uid without a passwd entry, as containers have it
  }
}

/** The command line, from the kernel; elsewhere than on Linux only the program is known. */
function commandLine(): string[] {
  const words = textOf("/proc/self/cmdline").split("\0");
  return words.length > 1 ? words.slice(0, -1) : [process.execPath];
}

/** The script that runs, not the interpreter that every Node process shares. */
function programName(): string {
  const [, script] = commandLine().filter((word) => !word.startsWith("-"));
  return basename(script ?? process.execPath);
}

function detectorsOf(sdkVersion: string): Record<string, Detector> {
  const { pid, execPath, platform } = process;
  const nodeVersion = process.versions.node;
  return {
    "telemetry.sdk": () => ({
      "telemetry.sdk.name": "opentelemetry",
      "telemetry.sdk.language": "nodejs",
      "telemetry.sdk.version": sdkVersion,
    }),
    host: () => ({ "host.name": hostname() }),
    "host.id": () => given("host.id", firstLineOf("/etc/machine-id", "/var/lib/dbus/machine-id")),
    "os.type": () => ({ "os.type": platform === "win32" ? "windows" : platform }),
    "os.description": () => {
      const pretty = /^PRETTY_NAME="?([^"\n]*)/m.exec(textOf("/etc/os-release"))?.[1];
      const kernel = `(${osType()} ${hostname()} ${release()} ${machine()})`;
      return { "os.description": pretty === undefined ? kernel : `${pretty} ${kernel}` };
    },
    "process.pid": () => ({ "process.pid": pid }),
    "process.executable.name": () => ({ "process.executable.name": programName() }),
    "process.executable.path": () => ({ "process.executable.path": execPath }),
    "process.command.args": () => ({ "process.command_args": commandLine() }),
    "process.owner": () => given("process.owner", owner()),
    "process.runtime.name": () => ({ "process.runtime.name": "nodejs" }),
    "process.runtime.version": () => ({ "process.runtime.version": nodeVersion }),
    "process.runtime.description": () => ({ "process.runtime.description": `Node.js ${nodeVersion}` }),
    container: () => {
      // As with the first version of control groups; the second has no id to read.
      const id = /(?:^|\/|-)([0-9a-f]{64})(?:\.scope)?$/m.exec(textOf("/proc/self/cgroup"))?.[1];
      return given("container.id", id);
    },
  };
}

/** Kubernetes names that the pod's own variables give. */
const KUBERNETES = {
  CONTAINER_NAME: "k8s.container.name",
  POD_NAME: "k8s.pod.name",
  NAMESPACE_NAME: "k8s.namespace.name",
} as const;

function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

/** The good entries of `key=value,…`; a bad one costs only itself. */
export function parseAttributes(text: string | undefined): { attributes: Record<string, string>; bad: string[] } {
  const attributes: Record<string, string> = {};
  const bad: string[] = [];
  for (const entry of (text ?? "").split(",")) {
    if (entry.trim() === "") continue;
    const cut = entry.indexOf("=");
    const key = entry.slice(0, cut).trim();
    if (cut < 1 || key === "") bad.push(entry.trim());
    else attributes[decoded(key)] = decoded(entry.slice(cut + 1).trim());
  }
  return { attributes, bad };
}

/**
 * The attributes of the resource, and what was odd about the variables. What OTEL_RESOURCE_ATTRIBUTES gives stands against
 * detectors and Kubernetes names, OTEL_SERVICE_NAME against both.
 */
export function resourceAttributes(
  env: Environment,
  service: string,
  sdkVersion: string,
): { attributes: ResourceAttributes; warnings: string[] } {
  const warnings: string[] = [];
  const detectors = detectorsOf(sdkVersion);
  const found: ResourceAttributes = {};
  for (const id of (env.OTEL_RESOURCE_DETECTORS ?? "").split(",").map((one) => one.trim())) {
    if (id === "") continue;
    const detect = Object.hasOwn(detectors, id) ? detectors[id] : undefined;
    if (detect !== undefined) Object.assign(found, detect());
    else
      warnings.push(
        `OTEL_RESOURCE_DETECTORS: ${id} is not supported; supported are ${Object.keys(detectors).join(", ")}`,
      );
  }
  for (const [variable, name] of Object.entries(KUBERNETES)) Object.assign(found, given(name, env[variable]));
  const { attributes, bad } = parseAttributes(env.OTEL_RESOURCE_ATTRIBUTES);
  for (const entry of bad)
    warnings.push(`OTEL_RESOURCE_ATTRIBUTES: ${JSON.stringify(entry)} is no key=value and is left out`);
  const named = env.OTEL_SERVICE_NAME?.trim() || attributes["service.name"];
  if (named === undefined || named === "")
    warnings.push(`OTEL_SERVICE_NAME is not set; ${service} is reported as the name of the service`);
  return { attributes: { ...found, ...attributes, "service.name": named || service }, warnings };
}
