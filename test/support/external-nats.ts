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

type Options = {
  /** False: the port and the files are there, the server is not. */
  isStarted?: boolean;
  withJetStream?: boolean;
  /** Lines of its configuration that say who may come in. */
  access?: string;
  /** Clients need a certificate of its authority. */
  wantsCertificate?: boolean;
};

export async function externalNats(directory: string, options: Options = {}): Promise<ExternalNats> {
  const { isStarted = true, withJetStream = true, wantsCertificate = false } = options;
  const { access = 'authorization { user: "klio", password: "open sesame" }' } = options;
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
tls { cert_file: "${certificates.server.cert}", key_file: "${certificates.server.key}"
  ${wantsCertificate ? `ca_file: "${certificates.caCert}", verify: true` : ""} }
${access}
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
      void gone.then(() => {
        output += "\nended";
      });
      await eventually(() => /Server is ready|\nended$/.test(output), { what: "nats-server" });
      if (output.endsWith("\nended")) throw new Error(`nats-server did not start: ${output}`);
    },
    kill: () => end(),
    [Symbol.asyncDispose]: () => end(),
  };
  if (isStarted) await nats.start();
  return nats;
}
