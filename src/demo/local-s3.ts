// An S3 server of our own on loopback (versitygw over a directory), for the demo and the tests.
import type { ChildProcess } from "node:child_process";
import { randomBytes } from "node:crypto";
import { createWriteStream, mkdirSync, readFileSync } from "node:fs";
import { createConnection } from "node:net";
import { join } from "node:path";
import { spawnTied } from "../actors/process/run-child.actor.ts";
import { KlioError } from "../errors.ts";
import { freePort } from "./local-postgres.ts";

export interface LocalS3 extends AsyncDisposable {
  readonly endpoint: string;
  readonly port: number;
  readonly region: string;
  readonly bucket: string;
  readonly accessKeyId: string;
  readonly secretAccessKey: string;
  /** Directory that holds the bucket's objects as files. */
  readonly bucketDirectory: string;
  readonly pid: number | undefined;
  start(): Promise<void>;
  stop(): Promise<void>;
}

const START_LIMIT_MS = 20_000;

/** Starts the server with one bucket (3 characters or more). `executable`: path of versitygw. The caller stops it. */
export async function startS3(options: {
  directory: string;
  bucket: string;
  executable: string;
  port?: number;
  /** PEM files; then it speaks TLS only. */
  tls?: { cert: string; key: string };
}): Promise<LocalS3> {
  const root = join(options.directory, "objects");
  const sidecar = join(options.directory, "attributes");
  const bucketDirectory = join(root, options.bucket);
  mkdirSync(bucketDirectory, { recursive: true });
  mkdirSync(sidecar, { recursive: true });
  const port = options.port ?? (await freePort());
  const accessKeyId = randomBytes(10).toString("hex").toUpperCase();
  const secretAccessKey = randomBytes(20).toString("base64url");
  const { tls } = options;
  const logFile = join(options.directory, "s3.log");
  let child: ChildProcess | undefined;
  let gone: Promise<void> = Promise.resolve();
  const isUp = () => child?.exitCode === null && child.signalCode === null;
  const server: LocalS3 = {
    endpoint: `${tls === undefined ? "http" : "https"}://127.0.0.1:${port}`,
    port,
    region: "us-east-1",
    bucket: options.bucket,
    accessKeyId,
    secretAccessKey,
    bucketDirectory,
    get pid() {
      return isUp() ? child?.pid : undefined;
    },
    async start() {
      if (isUp()) return;
      const log = createWriteStream(logFile, { flags: "a" });
      const started = spawnTied(
        options.executable,
        [
          ...["--port", `127.0.0.1:${port}`, "--region", "us-east-1"],
          ...(tls === undefined ? [] : ["--cert", tls.cert, "--key", tls.key]),
          ...["posix", "--sidecar", sidecar, root],
        ],
        {
          ROOT_ACCESS_KEY: accessKeyId,
          ROOT_SECRET_KEY: secretAccessKey,
          HOME: options.directory,
        },
      );
      started.stdout.pipe(log, { end: false });
      started.stderr.pipe(log);
      child = started;
      gone = new Promise((resolve) => started.once("exit", () => resolve()));
      const deadline = Date.now() + START_LIMIT_MS;
      while (Date.now() < deadline && isUp()) {
        if (await accepts(port)) return;
        await new Promise((resolve) => setTimeout(resolve, 20));
      }
      throw new KlioError("KLIO-S3-DOWN", `the S3 server did not start on port ${port}: ${tail(logFile)}`);
    },
    async stop() {
      child?.kill("SIGTERM");
      await gone;
    },
    async [Symbol.asyncDispose]() {
      child?.kill("SIGKILL");
      await gone;
    },
  };
  await server.start();
  return server;
}

function tail(file: string): string {
  return readFileSync(file, "utf8").split("\n").slice(-5).join(" ");
}

/** Does something accept connections on this loopback port? */
function accepts(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = createConnection({ host: "127.0.0.1", port });
    socket.once("connect", () => {
      socket.destroy();
      resolve(true);
    });
    socket.once("error", () => resolve(false));
  });
}
