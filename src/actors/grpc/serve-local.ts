// A gRPC service on a unix socket that only our own user may open.
import { chmodSync, existsSync, lstatSync, rmSync } from "node:fs";
import { createConnection } from "node:net";
import { KlioError } from "../../errors.ts";
import { type GrpcServer, type GrpcServerOptions, serveGrpc } from "./serve-grpc.ts";

/** A socket file that nobody answers on was left over by a killed run. Rejects with KLIO-PORT-BUSY for a living one. */
async function removeStale(path: string): Promise<void> {
  if (!existsSync(path)) return;
  if (!lstatSync(path).isSocket())
    throw new KlioError("KLIO-CONFIG", `${path} exists and is no socket`, { hint: "choose another --socket-path" });
  const isAlive = await new Promise<boolean>((resolve) => {
    const socket = createConnection({ path });
    socket.once("connect", () => {
      socket.destroy();
      resolve(true);
    });
    socket.once("error", () => resolve(false));
  });
  if (isAlive) throw new KlioError("KLIO-PORT-BUSY", `another process listens on ${path}`);
  rmSync(path, { force: true });
}

/** Listens on `socketPath` (mode 0600). Rejects with KLIO-PORT-BUSY or KLIO-CONFIG. The caller closes it. */
export async function serveLocal(
  options: { socketPath: string } & Pick<GrpcServerOptions, "services" | "interceptors" | "log">,
): Promise<GrpcServer> {
  const { socketPath, ...rest } = options;
  await removeStale(socketPath);
  const umask = process.umask(0o177); // the file is made by the bind: nobody else may be faster than a chmod
  try {
    const server = await serveGrpc({ listenAddress: `unix:${socketPath}`, ...rest });
    chmodSync(socketPath, 0o600);
    return {
      ...server,
      async close(graceMs) {
        await server.close(graceMs);
        rmSync(socketPath, { force: true });
      },
    };
  } finally {
    process.umask(umask);
  }
}
