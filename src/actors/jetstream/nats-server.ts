// The embedded queue server: how its process is started. Loopback only, random credentials per run, everything fsynced.
import { randomBytes } from "node:crypto";
import { chmodSync, mkdirSync, writeFileSync } from "node:fs";
import { createConnection, createServer } from "node:net";
import { join } from "node:path";
import type { ChildSpec } from "../process/run-child.actor.ts";

export type EmbeddedQueue = {
  url: string;
  user: string;
  password: string;
  spec: () => ChildSpec;
};

const LOOPBACK = "127.0.0.1";
/** The volume is the limit. Left to itself the server takes three quarters of what is free at its start, for good: 0 when it is full. */
const MAX_STORE = "1PB";

function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const probe = createServer();
    probe.once("error", reject);
    probe.listen(0, LOOPBACK, () => {
      const address = probe.address();
      probe.close(() => resolve(typeof address === "object" && address !== null ? address.port : 0));
    });
  });
}

function accepts(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = createConnection({ host: LOOPBACK, port });
    socket.once("connect", () => {
      socket.destroy();
      resolve(true);
    });
    socket.once("error", () => resolve(false));
  });
}

const quote = (text: string) => JSON.stringify(text);

/**
 * Chooses a free port, which every restart of the child keeps, and credentials that live as long as this process.
 * `directory`: the queue volume; the configuration with the password lies there (0600) and is rewritten at each start.
 */
export async function embedQueue(options: {
  executable: string;
  directory: string;
  onLine: (line: string) => void;
}): Promise<EmbeddedQueue> {
  const { executable, directory } = options;
  const port = await freePort();
  const user = "klio";
  const password = randomBytes(24).toString("base64url");
  const configFile = join(directory, "nats-server.conf");
  const config = `# written by klio at each start
listen: ${quote(`${LOOPBACK}:${port}`)}
server_name: "klio-queue"
jetstream { store_dir: ${quote(directory)}, sync_interval: always, max_file_store: ${MAX_STORE} }
authorization { user: ${quote(user)}, password: ${quote(password)} }
max_payload: 64KB
`;
  const spec = (): ChildSpec => {
    mkdirSync(directory, { recursive: true, mode: 0o750 });
    writeFileSync(configFile, config, { mode: 0o600 });
    chmodSync(configFile, 0o600);
    return {
      command: executable,
      args: ["--config", configFile],
      env: { HOME: directory },
      lockFile: join(directory, "nats-server.lock"),
      ready: { probe: () => accepts(port), probeEveryMs: 20 },
      readyWithinMs: 60_000, // a large queue is read in at start
      refusal: (line) => (/address already in use/.test(line) ? `port ${port} is taken by another process` : undefined),
      onLine: (_, line) => options.onLine(line),
      stopWithinMs: 10_000,
    };
  };
  return { url: `nats://${LOOPBACK}:${port}`, user, password, spec };
}
