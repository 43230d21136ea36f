// A nats-server as somebody else runs it: TLS, users, file storage, on a port of its own.
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { spawnTied } from "../../src/actors/process/run-child.actor.ts";
import { findTool } from "../../src/config/tools.ts";
import { type Certificates, createCertificates } from "../../src/demo/certificates.ts";
import { freePort } from "../../src/demo/local-postgres.ts";
import { eventually } from "./eventually.ts";

export type ExternalNats = AsyncDisposable & {
  url: string;
  certificates: Certificates;
  /** Files with the right and with a wrong password of the user `klio`. */
  passwordFile: string;
  wrongFile: string;
  start(): Promise<void>;
  /** Ends it with SIGKILL. */
  kill(): Promise<void>;
};

/** `isStarted: false`: the port and the files are there, the server is not. */
export async function externalNats(
  directory: string,
  { isStarted = true, withJetStream = true } = {},
): Promise<ExternalNats> {
  const certificates = await createCertificates(join(directory, "tls"), { clusters: ["klio"] });
  const port = await freePort();
  mkdirSync(join(directory, "store"));
  const passwordFile = join(directory, "password");
  const wrongFile = join(directory, "wrong");
  writeFileSync(passwordFile, "open sesame\n");
  writeFileSync(wrongFile, "open barley\n");
  const config = join(directory, "nats.conf");
  writeFileSync(
    config,
    `listen: "127.0.0.1:${port}"
tls { cert_file: "${certificates.server.cert}", key_file: "${certificates.server.key}" }
authorization { user: "klio", password: "open sesame" }
${withJetStream ? `jetstream { store_dir: "${join(directory, "store")}" }` : ""}
`,
  );
  let end: () => Promise<void> = async () => undefined;
  const nats: ExternalNats = {
    url: `tls://127.0.0.1:${port}`,
    certificates,
    passwordFile,
    wrongFile,
    async start() {
      const child = spawnTied(findTool("nats-server", process.env), ["--config", config], { HOME: directory });
      let output = "";
      for (const stream of [child.stdout, child.stderr]) stream.on("data", (chunk) => (output += String(chunk)));
      const gone = new Promise<void>((resolve) => child.once("close", () => resolve()));
      end = async () => {
        child.kill("SIGKILL");
        await gone;
      };
      await eventually(() => output.includes("Server is ready"), { what: "nats-server" });
    },
    kill: () => end(),
    [Symbol.asyncDispose]: () => end(),
  };
  if (isStarted) await nats.start();
  return nats;
}
