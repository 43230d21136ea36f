// Reads the configuration file of a command and resolves it with the environment.
import { readFileSync } from "node:fs";
import { homedir, tmpdir } from "node:os";
import { join } from "node:path";
import type { ClientConfig, S3Config, ServerConfig } from "../config/config.ts";
import {
  type ClientSection,
  resolveClientConfig,
  resolveS3Config,
  resolveServerConfig,
  type ServerTiers,
} from "../config/resolve.ts";
import { errorText, KlioError } from "../errors.ts";
import type { CliContext } from "./context.ts";

/** The file named by --config must be readable; the default one (`~/.klio.yaml`) may be absent. */
function readConfigFile(context: CliContext, path: string | undefined): { text: string | undefined; where: string } {
  const file = path ?? join(context.env.HOME || homedir(), ".klio.yaml");
  try {
    return { text: readFileSync(file, "utf8"), where: file };
  } catch (cause) {
    if (path === undefined && (cause as NodeJS.ErrnoException).code === "ENOENT")
      return { text: undefined, where: "environment" };
    throw new KlioError("KLIO-CONFIG", `cannot read the configuration file ${file}: ${errorText(cause)}`, { cause });
  }
}

function warn(context: CliContext, warnings: readonly string[]): void {
  for (const warning of warnings) context.stderr.write(`Warning: ${warning}\n`);
}

/** Throws KLIO-CONFIG with all faults at once. */
export function loadClientConfig(
  context: CliContext,
  path: string | undefined,
  needs: readonly ClientSection[],
): ClientConfig {
  const { text, where } = readConfigFile(context, path);
  const { config, warnings } = resolveClientConfig(text, context.env, needs, where);
  warn(context, warnings);
  return config;
}

/** Where the admin socket of a server is when no flag says otherwise. */
export function defaultAdminSocket(context: CliContext): string {
  return join(context.env.TMPDIR || tmpdir(), ".klio-admin");
}

/** Where the control socket of a sidecar is when no flag says otherwise. */
export function defaultSidecarSocket(context: CliContext): string {
  return join(context.env.TMPDIR || tmpdir(), ".klio-sidecar");
}

/** Throws KLIO-CONFIG with all faults at once. */
export function loadServerConfig(
  context: CliContext,
  path: string | undefined,
  options: ServerTiers & { adminSocketPath: string },
): ServerConfig {
  const { text, where } = readConfigFile(context, path);
  const { config, warnings } = resolveServerConfig(text, context.env, { ...options, where });
  warn(context, warnings);
  return config;
}

/** What a server's configuration says of the object store, and nothing else of it. Throws KLIO-CONFIG with all faults at once. */
export function loadS3Config(context: CliContext, path: string | undefined): S3Config {
  const { text, where } = readConfigFile(context, path);
  const { config, warnings } = resolveS3Config(text, context.env, where);
  warn(context, warnings);
  return config;
}
