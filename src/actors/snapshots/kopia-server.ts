// The repository server of a tier as a supervised child process.
import { createHash, X509Certificate } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import type { Log } from "../../domain/log.ts";
import { errorText, KlioError } from "../../errors.ts";
import type { ChildSpec } from "../process/run-child.actor.ts";
import type { KopiaRepository } from "./repository.ts";

export type KopiaServerOptions = {
  /** `host:port`, `[v6]:port` or `:port` (all interfaces). */
  listenAddress: string;
  /** PEM files, read again at each start. */
  tls: { cert: string; key: string };
  log: Log;
};

/** SHA-256 of the leaf certificate's DER, lower-case hex. Throws KLIO-CERTIFICATE. */
function certificateFingerprint(file: string): string {
  try {
    return createHash("sha256")
      .update(new X509Certificate(readFileSync(file)).raw)
      .digest("hex");
  } catch (cause) {
    throw new KlioError("KLIO-CERTIFICATE", `cannot read the certificate ${file}: ${errorText(cause)}`, { cause });
  }
}

function splitAddress(listenAddress: string): { host: string; port: number } {
  const at = listenAddress.lastIndexOf(":");
  return { host: listenAddress.slice(0, at), port: Number(listenAddress.slice(at + 1)) };
}

/** URL to listen at, and the one under which this host reaches it. */
export function serverUrls(listenAddress: string): { listen: string; local: string } {
  const { host, port } = splitAddress(listenAddress);
  const isAny = host === "" || host === "0.0.0.0" || host === "[::]";
  return {
    listen: `https://${host === "" ? "[::]" : host}:${port}`,
    local: `https://${isAny ? "127.0.0.1" : host}:${port}`,
  };
}

/** What the program says when trying again cannot help. */
function refusal(line: string): string | undefined {
  if (/address already in use|cannot assign requested address|bind: permission denied/.test(line)) return line.trim();
  if (/invalid repository password|repository is not connected|unable to load TLS|tls: /i.test(line))
    return line.trim();
  return undefined;
}

const READY_WITHIN_MS = 60_000;
/** A client's upload in progress is cut at the end; it tries again for half a minute. */
const STOP_WITHIN_MS = 10_000;
/** Request and session lines come with every command of a client. */
const CHATTER = /^(starting session|session ended|successful login|SERVER|Server will allow|User accounts|$)/;

/** Made anew for each start (the certificate may have changed). Throws KLIO-CERTIFICATE. */
export function kopiaServerSpec(repository: KopiaRepository, options: KopiaServerOptions): ChildSpec {
  const { executable, configFile, usersFile, stateDirectory, env } = repository.server();
  const urls = serverUrls(options.listenAddress);
  repository.setServed({ url: urls.local, fingerprint: certificateFingerprint(options.tls.cert) });
  return {
    command: executable,
    args: [
      "server",
      "start",
      `--config-file=${configFile}`,
      "--disable-file-logging",
      "--no-ui",
      `--address=${urls.listen}`,
      `--tls-cert-file=${options.tls.cert}`,
      `--tls-key-file=${options.tls.key}`,
      `--htpasswd-file=${usersFile}`,
      "--log-server-requests",
    ],
    env,
    lockFile: join(stateDirectory, "server.lock"),
    ready: { line: /^SERVER ADDRESS: / },
    readyWithinMs: READY_WITHIN_MS,
    refusal,
    onLine: (_, line) => tell(options.log.with({ tier: repository.tier }), line),
    stopWithinMs: STOP_WITHIN_MS,
  };
}

function tell(log: Log, line: string): void {
  const text = line.trim();
  if (/no space left on device/i.test(text)) log.error("repository.server.full", `no space left: ${text}`);
  else if (/\berror\b|unable to|failed/i.test(text)) log.warn("repository.server.output", text);
  else if (CHATTER.test(text)) log.debug("repository.server.output", text);
  else log.info("repository.server.output", text);
}
